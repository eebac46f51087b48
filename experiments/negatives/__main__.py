"""`python -m experiments.negatives`: what a negative prompt does to a student, with NASA and with other methods.

Every arm is measured on the same pairs, noise and blocks of seeds. Results are written after each arm; arms that were
already measured with the same model and protocol are skipped.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, fields
from pathlib import Path

import torch
from tqdm import tqdm

from experiments.json_file import as_json, read_results, write_json
from experiments.negatives.measure import all_pairs, flops, measure_arm
from experiments.negatives.results import Negatives
from experiments.negatives.settings import FOUR_STEPS, STRENGTHS, Protocol, arms
from experiments.negatives.sheets import draw_sheets
from experiments.removal import Pair
from experiments.sampling import one_step
from experiments.worlds import BUNDLED, WORLDS
from snoopi_core.guidance.nag import BLEND, TAU
from training.models.backbone import fingerprint
from training.models.guidance.methods import Method
from training.models.loading import load_backbone


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.negatives", description=__doc__)
    parser.add_argument("model", nargs="?", help="default: the world's student")
    parser.add_argument("--world", choices=WORLDS, default=BUNDLED)
    parser.add_argument("--json", type=Path, default=Path("docs/data/negatives.json"))
    parser.add_argument("--pictures", type=Path, default=Path("docs/images"), help="folder (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    counts = [field for field in fields(Protocol) if isinstance(field.default, int)]
    for field in counts:
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    world = WORLDS[args.world]
    path = args.model or world.student
    model, protocol = load_backbone(path), Protocol(**{field.name: getattr(args, field.name) for field in counts})
    about = {"model": path, "fingerprint": fingerprint(model.network), "protocol": as_json(asdict(protocol))}
    about |= {"reader": world.reader, "four_steps": list(FOUR_STEPS), "nag": [TAU, BLEND]}
    found = read_results(args.json, about)
    if not found:
        pairs = all_pairs(world, one_step(model, "none"), protocol)
        rows = [as_json(asdict(pair)) for pair in pairs]
        cost = {name: flops(model, Method(name, 1.0), pairs[0]) for name in ("none", *STRENGTHS)}
        found = about | {"pairs": rows, "flops": cost, "arms": {}}
        write_json(args.json, found)
    pairs = [Pair.from_json(row) for row in found["pairs"]]
    missing = [arm for arm in arms() if str(arm) not in found["arms"]]
    for arm in tqdm(missing, unit="arm"):
        found["arms"][str(arm)] = measure_arm(world, model, arm, pairs, protocol)
        write_json(args.json, found)
    draw_sheets(world, model, Negatives(found), pairs, args.pictures)
    print(f"{args.json}: {len(found['arms'])} arms, {len(missing)} measured now")
    return 0


if __name__ == "__main__":
    sys.exit(main())
