"""Look for the prompt, negative and seed that the shipped workflows open with, after the student has changed.

Prints the best candidates; the choice is written into scripts/workflows/descriptions.py by hand, then `make workflows`.
A good one shows the unwanted thing in most of its four pictures without the negative and in none with it, follows the
prompt and is clean in all eight. These are picked for looks: rates are measured by tests/quality and `make demo`.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from live_client import Client, load_prompt
from live_server import Server

from experiments.shapes import measure
from scripts.demo import BOTH, PAIR_SEED, fill, pixels, run, student
from scripts.setup.host import find_host
from training.prompts.shapes.rules import read

PICTURES = 4
SEEDS = 12


@dataclass(frozen=True, order=True)
class Candidate:
    """Counts over the four pictures without and the four with the negative; the larger ``score``, the better."""

    score: float
    pair: str
    seed: int
    unwanted: int
    left: int
    kept: int
    valid: int
    unchanged: int


def judge(client: Client, pair: measure.Pair, seed: int) -> Candidate:
    """Run the side-by-side workflow as it is shipped, with another prompt and seed."""
    prompt = fill(load_prompt(BOTH), text=pair.prompt, negative=pair.negative, seed=seed, count=PICTURES)
    without, steered = (read(pixels(pictures)) for pictures in run(client, prompt)[0])
    unwanted, left = (sum(v == pair.value for v in r.values[pair.attribute]) for r in (without, steered))
    rows = range(PICTURES)
    kept = sum(
        r.values[name][n] == value for r in (without, steered) for name, value in pair.stated.items() for n in rows
    )
    valid = int(without.valid.sum() + steered.valid.sum())
    others = [name for name in without.values if name != pair.attribute]
    unchanged = sum(without.values[name][n] == steered.values[name][n] for name in others for n in rows)
    score = unwanted - 3 * left + kept + valid + unchanged / len(others)
    name = f"{pair.prompt!r} without {pair.negative!r}"
    return Candidate(score, name, seed, unwanted, left, kept, valid, unchanged)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="snoopi-find-") as base, Server(find_host(), Path(base)) as server:
        client = server.client
        pairs = measure.modal_pairs(student(client), per_attribute=4, count=32, seed=PAIR_SEED)
        found = [judge(client, pair, seed) for pair in pairs for seed in range(SEEDS)]
    for c in sorted(found, reverse=True)[:20]:
        shown = (
            f"shows it {c.unwanted} -> {c.left} of {PICTURES}, prompt kept {c.kept}, valid {c.valid} of {2 * PICTURES}"
        )
        print(f"{c.score:5.2f}  {c.pair}, seed {c.seed}: {shown}, other attributes unchanged {c.unchanged}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
