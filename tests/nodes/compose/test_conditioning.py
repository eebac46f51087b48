"""Several prompts: combined, for areas, with masks, for a range of steps; all with classifier-free guidance."""

from __future__ import annotations

import pytest
import torch
from composed import POSITIVE, UNCONDITIONAL, T, assert_close_to_exact, prompt, sampled, steer, subject, subtractions
from reference import relative_error
from regions import Part, blended, host_conditioning, with_opposites
from unets import noise

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

CFG = 2.0
OTHER, LONG = 5, 154
SIZE = (16, 16)  # in smaller areas, the deepest level normalizes over a pixel or two, which would magnify rounding
LEFT, INNER, BOTTOM = (16, 8, 0, 0), (8, 8, 4, 6), (8, 16, 8, 0)
RAMP = torch.linspace(0, 1, SIZE[1]).expand(SIZE)
FIRST, SECOND, BASE = Part(prompt(POSITIVE)), Part(prompt(OTHER)), Part(prompt(UNCONDITIONAL))


def part(seed: int, tokens: int = 77, **settings) -> Part:
    return Part(prompt(seed, tokens), **settings)


# Name: positive and negative conditioning.
LAYOUTS = {
    "ConditioningCombine": ([FIRST, SECOND], [BASE]),
    "ConditioningCombine, unequal lengths": ([FIRST, part(OTHER, LONG)], [BASE]),
    "ConditioningSetArea": ([FIRST, part(OTHER, area=LEFT, strength=1.5)], [BASE]),
    "ConditioningSetArea, overlapping": ([FIRST, part(OTHER, area=BOTTOM), part(8, area=INNER)], [BASE]),
    "ConditioningSetArea of the negative": ([FIRST], [BASE, part(OTHER, area=LEFT)]),
    "ConditioningSetMask": ([part(POSITIVE, mask=RAMP), part(OTHER, mask=1 - RAMP, mask_strength=0.7)], [BASE]),
    "ConditioningSetMask in an area": ([FIRST, part(OTHER, mask=RAMP, area=INNER)], [BASE]),
    "ConditioningSetTimestepRange": ([FIRST, part(OTHER, end=0.5), part(8, start=0.5)], [BASE]),
    "ConditioningSetAreaStrength": ([FIRST, part(OTHER, strength=0.5)], [BASE]),
}


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", LAYOUTS)
def test_each_prompt_is_steered_in_its_region(name, rows):
    positive, negative = LAYOUTS[name]
    conditionings = host_conditioning(positive), host_conditioning(negative)
    got = sampled(steer(subject().patcher), *conditionings, cfg=CFG, rows=rows, size=SIZE)
    x, reference = noise(rows, size=SIZE), subject().reference
    everywhere = with_opposites(positive, negative)
    steered, plain = (blended(reference, x, T, everywhere, away) for away in (subtractions(), ()))
    unguided = blended(reference, x, T, with_opposites(negative, positive))
    expected = unguided + CFG * (steered - unguided)
    assert relative_error(unguided + CFG * (plain - unguided), expected) > 1e-2
    assert_close_to_exact(name, relative_error(got, expected))
