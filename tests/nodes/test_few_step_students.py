"""Students of several steps: the trainer's backward simulation is what One-Step Sampler does with the exported file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from distilled import make_distillation, make_recipe
from effort import some
from figures import measured
from host_world import pack_node
from reference import relative_error
from tiny import tiny_backbone, tiny_pixart_backbone

from snoopi_core.host.loading.attachment import get_metadata
from snoopi_core.host.loading.loader import load_checkpoint
from snoopi_core.host.nasa.alpha import known_alpha
from snoopi_core.host.one_step import _SEED_STEP, one_step
from training.distill.rng import ImageDraws
from training.models.guidance.few_steps import steered_x0
from training.models.guidance.methods import Method
from training.trainer.distributed.state_dicts import trained_state
from training.trainer.export import export_backbone, export_student

pytestmark = pytest.mark.host

KINDS = {"sd15": (tiny_backbone, 8), "pixart": (tiny_pixart_backbone, 40)}  # the host cannot place a smaller PixArt
TIMESTEPS, ALPHA, SEED, BAR = (999, 749, 499, 249), 0.5, 11, 1e-5
CASES = [
    ("sd15", "epsilon", "consistency", "full"),
    ("sd15", "v_prediction", "euler", "lora"),
    ("pixart", "epsilon", "consistency", "full"),
    ("pixart", "epsilon", "euler", "lora"),
]


@pytest.mark.both_hosts
@pytest.mark.parametrize("case", some(CASES, 2), ids=", ".join)
def test_the_node_samples_as_the_trainer_does(case, tmp_path):
    kind, prediction_type, transition, train = case
    make, side = KINDS[kind]
    recipe = make_recipe(
        student={"timesteps": TIMESTEPS, "transition": transition, "train": train}
        | ({"alpha_T_squared": 0.0048} if kind == "sd15" else {}),
        loop={"latent_size": side},
    )
    teacher = make(prediction_type)
    for weight in teacher.network.parameters():
        weight.data = weight.data.half().float()
    d = make_distillation(teacher, recipe)
    rng = torch.Generator().manual_seed(3)
    for weight in d.student.parameters():
        if weight.requires_grad:  # another student than the teacher, as half precision holds it
            weight.data = (weight + 0.02 * torch.randn(weight.shape, generator=rng)).data.half().float()
    fresh = make(prediction_type)
    for weight in fresh.network.parameters():
        weight.data = weight.data.half().float()
    path = export_student(tmp_path / "student.safetensors", fresh, trained_state(d.student), recipe, 1)
    if train == "lora":
        base = export_backbone(tmp_path / "base.safetensors", fresh, title="base", role="teacher")
        model, *_ = load_checkpoint(base, lora=path)
    else:
        model, *_ = load_checkpoint(path)
    metadata = get_metadata(model)
    assert (metadata.recipe.timesteps, metadata.recipe.steps) == (TIMESTEPS, transition)
    assert metadata.recommended_alpha is None and known_alpha(model) is None, "the paper's are for one step"

    text, negative = fresh.encode(["a red ring"]), fresh.encode(["blue"])
    noise = [
        torch.randn((1, 4, side, side), generator=torch.Generator().manual_seed((SEED + step * _SEED_STEP) % 2**64))
        for step in range(len(TIMESTEPS))
    ]
    draws = ImageDraws(z=noise[0], step=3, noise=tuple(noise[1:]) if transition == "consistency" else ())

    def hosts(model):
        states = text.states if text.mask is None else text.states[:, text.mask[0]]
        latent = {"samples": torch.zeros(1, 4, side, side)}
        samples = one_step(model, [[states, {}]], latent, seed=SEED, timesteps="auto")["samples"]
        return samples * model.model.latent_format.scale_factor

    with torch.no_grad():
        plain = d.student_images(text, draws)
        earlier = d.student_images(text, ImageDraws(z=draws.z, step=2, noise=draws.noise))
    row = f"{'PixArt' if kind == 'pixart' else 'SD1.5'} student of 4 steps, {transition}"
    measured("loader", row, "x0, relative error", relative_error(hosts(model), plain), BAR)
    assert relative_error(earlier, plain) > 10 * BAR

    d.student.eval()
    student = replace(fresh, network=d.student)
    states = negative.states if negative.mask is None else negative.states[:, negative.mask[0]]
    for steered, end, name in ((None, 1.0, "x0 with NASA"), (1, 0.1, "x0 with NASA in the first step")):
        apply = pack_node("nasa_apply", "NASAApply")
        got = hosts(apply.execute(model, [[states, {}]], ALPHA, 0.0, end).result[0])
        want = steered_x0(
            student, Method("nasa", ALPHA), text, negative, metadata.recipe, lambda step: noise[step], steered=steered
        )
        measured("loader", row, f"{name}, relative error", relative_error(got, want), BAR)
        assert relative_error(want, plain) > 10 * BAR
