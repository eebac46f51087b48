"""Measures one arm: pictures of every pair, read by the world's rules, and their cost in FLOPs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.negatives.settings import FOUR_STEPS, Arm, Protocol
from experiments.removal import SHARES, Generate, Pair, World, modal_pairs, open_entropy, verdicts
from experiments.sampling import FewSteps, one_step
from training.models.backbone import Backbone
from training.models.guidance.methods import Method
from training.models.sampling_recipe import sampling_recipe


def all_pairs(world: World, generate: Generate, protocol: Protocol) -> list[Pair]:
    """The world's fixed pairs, and the modal pairs of a model that are not among them."""
    modal = modal_pairs(
        world, generate, per_group=protocol.pairs_per_group, count=protocol.pair_images, seed=protocol.pair_seed
    )
    return [*world.fixed, *(pair for pair in modal if replace(pair, share=0.0, fixed=True) not in world.fixed)]


def measure_arm(world: World, model: Backbone, arm: Arm, pairs: list[Pair], protocol: Protocol) -> dict[str, Any]:
    """As `count_removals`, for a method with its strength."""
    generate = one_step(model, arm.method.name, arm.method.strength)
    if arm.steps > 1:
        generate = FewSteps(model=model, recipe=sampling_recipe(model, FOUR_STEPS), method=arm.method)
    return count_removals(world, generate, pairs, protocol, steer=arm.method.name != "none")


def count_removals(
    world: World, generate: Generate, pairs: list[Pair], protocol: Protocol, *, steer: bool
) -> dict[str, Any]:
    """Counts of images by block and pair; by pair the mean entropy (bits) of the other attributes."""
    counts: dict[str, list[list[int]]] = {name: [[] for _ in protocol.seeds] for name in SHARES}
    entropies = []
    for pair in pairs:
        seeds = [seed for start in protocol.seeds for seed in range(start, start + protocol.images)]
        seen = world.read(generate([pair.prompt] * len(seeds), seeds, pair.negative if steer else None))
        for name, judged in verdicts(seen, pair).items():
            for block, rows in enumerate(counts[name]):
                rows.append(sum(judged[block * protocol.images : (block + 1) * protocol.images]))
        entropies.append(open_entropy(world, seen, pair.stated, besides=pair.attribute))
    return counts | {"entropy": entropies}


def flops(model: Backbone, method: Method, pair: Pair) -> int:
    """FLOPs of the network alone for one picture; the negative is encoded once for all pictures."""
    bare = one_step(model, method.name, method.strength)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        bare([pair.prompt], [0], None if method.name == "none" else pair.negative)
    return sum(counter.get_flop_counts()[type(model.network).__name__].values())
