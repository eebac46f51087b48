"""Measures one arm: pictures of every pair, judged by the pixel rules, and their cost in FLOPs."""

from __future__ import annotations

from dataclasses import asdict
from statistics import fmean
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.negatives.settings import FOUR_STEPS, Arm, Protocol
from experiments.shapes.measure import SHARES, Generate, Pair, entropy, removal
from experiments.shapes.sampling import FewSteps, one_step
from training.models.backbone import Backbone
from training.models.guidance.methods import Method
from training.models.sampling_recipe import sampling_recipe
from training.prompts.shapes.rules import read
from training.prompts.shapes.scene import ATTRIBUTES


def measure_arm(model: Backbone, arm: Arm, pairs: list[Pair], protocol: Protocol) -> dict[str, Any]:
    """As `count_removals`, for a method with its strength."""
    generate = one_step(model, arm.method.name, arm.method.strength)
    if arm.steps > 1:
        generate = FewSteps(model=model, recipe=sampling_recipe(model, FOUR_STEPS), method=arm.method)
    return count_removals(generate, pairs, protocol, steer=arm.method.name != "none")


def count_removals(generate: Generate, pairs: list[Pair], protocol: Protocol, *, steer: bool) -> dict[str, Any]:
    """Counts of images by block and pair; by pair the mean entropy (bits) of the other attributes."""
    counts: dict[str, list[list[int]]] = {name: [[] for _ in protocol.seeds] for name in SHARES}
    entropies = []
    for pair in pairs:
        seeds = [seed for start in protocol.seeds for seed in range(start, start + protocol.images)]
        images = generate([pair.prompt] * len(seeds), seeds, pair.negative if steer else None)
        for block, part in enumerate(images.split(protocol.images)):
            row = asdict(removal(part, pair))
            for name in SHARES:
                counts[name][block].append(round(row[name] * protocol.images))
        values = read(images).values
        entropies.append(
            fmean(entropy(values[name]) for name in ATTRIBUTES if name not in {*pair.stated, pair.attribute})
        )
    return counts | {"entropy": entropies}


def flops(model: Backbone, method: Method, pair: Pair) -> int:
    """FLOPs of the network alone for one picture; the negative is encoded once for all pictures."""
    bare = one_step(model, method.name, method.strength)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        bare([pair.prompt], [0], None if method.name == "none" else pair.negative)
    return sum(counter.get_flop_counts()[type(model.network).__name__].values())
