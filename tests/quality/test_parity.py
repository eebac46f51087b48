"""The shipped student in the host against the same file in diffusers: two implementations of every part."""

from pathlib import Path

import pytest
import torch
from host_world import HostStudent

from experiments.worlds import BUNDLED, WORLDS
from snoopi_core.formats.checkpoint import read_metadata
from training.models.loading import load_backbone
from training.models.sampling import one_step_x0

pytestmark = pytest.mark.host
STUDENT = WORLDS[BUNDLED].student
PROMPTS = ("a person with long red hair and glasses, on a white background", "a beard", "a monster", "")
SEED, COUNT = 7, 3


@pytest.fixture(scope="module")
def host():
    return HostStudent(Path(STUDENT).name)


@pytest.fixture(scope="module")
def student(pack_root):
    return load_backbone(str(pack_root / STUDENT))


@pytest.fixture(scope="module")
def recipe(pack_root):
    return read_metadata(pack_root / STUDENT).recipe


def relative(got, want):
    return ((got.double() - want.double()).norm() / want.double().norm()).item()


def reference_x0(student, recipe, text):
    """x0 in the UNet's scale from the noise that the host draws for SEED."""
    z = torch.randn((COUNT, student.latent_channels, 8, 8), generator=torch.Generator().manual_seed(SEED))
    return one_step_x0(
        student,
        student.network,
        text.expand(COUNT),
        z,
        timestep=recipe.timesteps[0],
        alpha_T=recipe.alpha_T,
        sigma_T=recipe.sigma_T,
    )


@pytest.mark.parametrize("prompt", PROMPTS)
def test_token_ids_are_the_same(host, student, prompt):
    ids = [token for token, _ in host.clip.tokenize(prompt)["l"][0]]
    assert ids == student.tokenizer(prompt, padding="max_length", max_length=77).input_ids


@pytest.mark.parametrize("prompt", PROMPTS)
def test_x0_on_the_same_conditioning(host, student, recipe, prompt):
    text = student.encode([prompt])
    got = host.latents([[text.states, {}]], seed=SEED, count=COUNT)
    scale = student.vae.config.scaling_factor
    assert relative(got * scale, reference_x0(student, recipe, text)) <= 1e-4


@pytest.mark.parametrize("prompt", PROMPTS)
def test_image_from_the_text(host, student, recipe, prompt):
    x0 = reference_x0(student, recipe, student.encode([prompt]))
    samples = host.latents(host.encode(prompt), seed=SEED, count=COUNT)
    assert relative(samples * student.vae.config.scaling_factor, x0) <= 2e-3
    images = host.vae.decode(samples).movedim(-1, 1)
    assert relative(images, student.decode(x0)) <= 2e-3
