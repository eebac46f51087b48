"""Which seed a template starts with: the first of several at which its negative visibly works, read from its pictures.

A template has one seed, so it shows one chosen case, and its note says so; docs/RESULTS.md has shares over many.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from live_client import Client
from PIL import Image

from experiments.removal import Seen, Stated
from experiments.worlds import WORLDS
from scripts import ROOT
from scripts.pictures.run import run
from scripts.workflows.parts import SCALE, Node, Search, Workflow, api_prompt
from training.prompts.avatars.captions import SUBJECT
from training.prompts.avatars.parse import parse

READ = WORLDS["avatars"].read
LEAST = 0.85  # of `score`; with the unwanted in only half of the pictures before, it is at most 0.8


def with_seed(workflow: Workflow, seed: int) -> Workflow:
    """The same with this seed in its Seed node, or else in its samplers."""

    def seeded(node: Node) -> Node:
        key = "value" if node.type == "PrimitiveInt" else "seed"
        return replace(node, inputs={**node.inputs, key: seed}) if isinstance(node.inputs.get(key), int) else node

    return replace(workflow, nodes={key: seeded(node) for key, node in workflow.nodes.items()})


def find_seed(client: Client, search: Search, *, weak: bool = False) -> int:
    """The best seed, by the first result, which is without a negative, and the last, which is with it; prints it.

    Raises:
        RuntimeError: no seed shows the negative's effect, and `weak` is not set.
    """
    unwanted = [parse(text) for text in search.negatives]
    scores = []
    for seed in range(search.seeds):
        results, _ = run(client, api_prompt(with_seed(search.by, seed).nodes))
        scores.append(score(read(results[0]), read(results[-1]), unwanted))
    best = max(range(search.seeds), key=lambda seed: (scores[seed], -seed))
    said = f"{search.by.model}: seed {best} of {search.seeds}, score {scores[best]:.2f}"
    print(said, flush=True)
    if scores[best] < LEAST and not weak:
        raise RuntimeError(
            f"{said}, expected {LEAST} or more: at none is {' or '.join(search.negatives)} drawn without the negative "
            "and gone with it. Choose another prompt and negative in scripts/workflows/descriptions.py, or write "
            "templates that show little with --weak"
        )
    return best


def with_seeds(
    client: Client, workflows: Sequence[Workflow], searches: Sequence[Search], *, weak: bool
) -> list[Workflow]:
    """The same workflows, with the best seed in those that have a search."""
    seeds = {}
    for search in searches:
        names = {workflow.name for workflow in search.for_all} & {workflow.name for workflow in workflows}
        if names:
            seeds |= dict.fromkeys(names, find_seed(client, search, weak=weak))
    return [with_seed(each, seeds[each.name]) if each.name in seeds else each for each in workflows]


def with_shipped_seeds(workflows: Sequence[Workflow]) -> list[Workflow]:
    """The same workflows, each with the seed that its file has, if there is one."""
    found = []
    for workflow in workflows:
        path = ROOT / "workflows" / "api" / f"{workflow.name}.json"
        nodes = json.loads(path.read_text(encoding="utf-8")).values() if path.is_file() else []
        values = (node["inputs"].get("value" if node["class_type"] == "PrimitiveInt" else "seed") for node in nodes)
        seed = next((value for value in values if isinstance(value, int)), None)
        found.append(workflow if seed is None else with_seed(workflow, seed))
    return found


def read(pictures: Sequence[Image.Image], scale: int = SCALE) -> Seen:
    """What is in pictures that a workflow has enlarged `scale` times."""
    stack = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return READ(stack[:, scale // 2 :: scale, scale // 2 :: scale].permute(0, 3, 1, 2).float() / 255)


def score(without: Seen, steered: Seen, unwanted: Sequence[Stated]) -> float:
    """At most 1: the unwanted in each picture before, in none after, and all pictures valid; 0 if a subject changes."""
    before, after = (_share(seen, unwanted) for seen in (without, steered))
    valid = sum(without.valid + steered.valid) / len(without.valid + steered.valid)
    pairs = zip(without.rows, steered.rows, strict=True)
    kept = all(a.get(SUBJECT) == b.get(SUBJECT) for a, b in pairs)
    return kept * (0.4 * before + 0.3 * (1 - after) + 0.3 * valid)


def _share(seen: Seen, unwanted: Sequence[Stated]) -> float:
    shows: list[Any] = [
        any(row.get(name) in values for stated in unwanted for name, values in stated.items() if name != SUBJECT)
        for row in seen.rows
    ]
    return sum(shows) / len(shows)
