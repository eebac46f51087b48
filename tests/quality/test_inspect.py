"""Where NASA Inspect's thresholds come from: negatives of the shapes world's student, good ones and others.

Prints the numbers for snoopi_core/guidance/strength.py and the node's help page (pytest -rP).
"""

from __future__ import annotations

import pytest
import torch
from effort import effort
from host_world import HostStudent, pack_node

from experiments.removal import mean_removal, removal_table
from experiments.shapes.world import SHAPES
from snoopi_core.guidance.strength import CLOSE_COSINE, SAME_COSINE, STRONG_CHANGE
from snoopi_core.host.families import family_of
from snoopi_core.host.inspect import StrengthObserver, first_step, observed_step

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.scaled]
PICTURES, SEED = effort(gate=2, full=12), 400_000  # seeds that are not used elsewhere
TOO_MUCH = 3.0  # times the recommended alpha


@pytest.fixture(scope="module")
def host():
    return HostStudent()


def means(host, prompt: str, negative: str, alpha: float) -> tuple[float, float]:
    """Mean over the layers of the cosine and of the change."""
    steered = pack_node("nasa_apply", "NASAApply").execute(host.model, host.encode(negative), alpha).result[0]
    names = dict.fromkeys(family_of(steered.model).layers(steered.model), "")
    watch, latent = StrengthObserver(names), {"samples": torch.zeros(4, 4, 8, 8)}
    observed_step(first_step(steered), host.encode(prompt), latent, seed=2, observer=watch)
    layers = watch.layers
    return (
        sum(layer.negatives[0].cosine for layer in layers) / len(layers),
        sum(layer.change for layer in layers) / len(layers),
    )


@torch.no_grad()
def test_the_cosine_separates_good_negatives_from_others(host, pairs, alpha):
    good = [means(host, pair.prompt, pair.negative, alpha)[0] for pair in pairs]
    prompts = sorted({pair.prompt for pair in pairs})
    twice = [means(host, prompt, f"{prompt} {prompt}", alpha)[0] for prompt in prompts]
    same = [means(host, prompt, prompt, alpha)[0] for prompt in prompts]
    print(f"\ncosine: {len(good)} informative negatives {min(good):.2f} to {max(good):.2f}")
    print(f"  the prompt twice {min(twice):.2f} to {max(twice):.2f}, the prompt itself {min(same):.2f}")
    assert max(good) < CLOSE_COSINE < min(twice)
    assert min(same) > SAME_COSINE


@torch.no_grad()
def test_the_change_shows_where_pictures_break(host, pairs, alpha):
    changes = {}
    for times in (1.0, TOO_MUCH):
        host.alpha = times * alpha
        changes[times] = [means(host, pair.prompt, pair.negative, host.alpha)[1] for pair in pairs]
        found = mean_removal(removal_table(SHAPES, host, pairs, count=PICTURES, seed=SEED))
        print(
            f"\nalpha {host.alpha:g}: change {min(changes[times]):.2f} to {max(changes[times]):.2f}, "
            f"valid {found.valid:.2f}, prompt kept {found.kept:.2f}, clean {found.clean:.2f}"
        )
    assert max(changes[1.0]) < STRONG_CHANGE < min(changes[TOO_MUCH])
