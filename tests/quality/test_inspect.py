"""Where NASA Inspect's thresholds come from: negatives of two students, good ones and others.

Prints the numbers for snoopi_core/guidance/strength.py and the node's help page (pytest -rP).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from effort import effort
from host_world import HostStudent, pack_node

from experiments.avatars.world import AVATARS
from experiments.removal import mean_removal, removal_table
from experiments.shapes.world import SHAPES
from snoopi_core.formats.checkpoint import read_metadata
from snoopi_core.guidance.strength import CLOSE_COSINE, SAME_COSINE, STRONG_CHANGE
from snoopi_core.host.families import family_of
from snoopi_core.host.inspect import StrengthObserver, first_step, observed_step

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.scaled]
PICTURES, SEED = effort(gate=2, full=12), 400_000  # seeds that are not used elsewhere
TOO_MUCH = 3.0  # times the recommended alpha


@pytest.fixture(scope="module", params=[SHAPES, AVATARS], ids=["shapes", "avatars"])
def world(request):
    return request.param


@pytest.fixture(scope="module")
def alpha(world, pack_root):
    found = read_metadata(pack_root / world.student).recommended_alpha
    assert found is not None
    return found


@pytest.fixture(scope="module")
def host(world):
    return HostStudent(Path(world.student).name)


@pytest.fixture(scope="module")
def informative(world, pairs):
    """The shapes' modal pairs; the fixed ones of the avatars, whose prompts leave open what the negative names."""
    return pairs if world is SHAPES else list(world.fixed)


def means(host, prompt: str, negative: str, alpha: float) -> tuple[float, float]:
    """Mean over the layers of the cosine and of the change."""
    steered = pack_node("nasa_apply", "NASAApply").execute(host.model, host.encode(negative), alpha).result[0]
    names = dict.fromkeys(family_of(steered.model).layers(steered.model), "")
    channels = host.model.model.latent_format.latent_channels
    watch, latent = StrengthObserver(names), {"samples": torch.zeros(4, channels, 8, 8)}
    observed_step(first_step(steered), host.encode(prompt), latent, seed=2, observer=watch)
    layers = watch.layers
    return (
        sum(layer.negatives[0].cosine for layer in layers) / len(layers),
        sum(layer.change for layer in layers) / len(layers),
    )


@torch.no_grad()
def test_the_cosine_separates_good_negatives_from_others(host, informative, alpha):
    good = [means(host, pair.prompt, pair.negative, alpha)[0] for pair in informative]
    prompts = sorted({pair.prompt for pair in informative})
    twice = [means(host, prompt, f"{prompt} {prompt}", alpha)[0] for prompt in prompts]
    same = [means(host, prompt, prompt, alpha)[0] for prompt in prompts]
    print(f"\ncosine: {len(good)} informative negatives {min(good):.2f} to {max(good):.2f}")
    print(f"  the prompt twice {min(twice):.2f} to {max(twice):.2f}, the prompt itself {min(same):.2f}")
    assert max(good) < CLOSE_COSINE < min(twice)
    assert min(same) > SAME_COSINE


@torch.no_grad()
def test_the_change_shows_where_pictures_break(world, host, informative, alpha):
    changes = {}
    for times in (1.0, TOO_MUCH):
        host.alpha = times * alpha
        changes[times] = [means(host, pair.prompt, pair.negative, host.alpha)[1] for pair in informative]
        found = mean_removal(removal_table(world, host, informative, count=PICTURES, seed=SEED))
        print(
            f"\nalpha {host.alpha:g}: change {min(changes[times]):.2f} to {max(changes[times]):.2f}, "
            f"valid {found.valid:.2f}, prompt kept {found.kept:.2f}, clean {found.clean:.2f}"
        )
    assert max(changes[1.0]) < STRONG_CHANGE < min(changes[TOO_MUCH])
