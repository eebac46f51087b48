"""`python -m experiments.teacher_scale`: the teacher's guidance scale, fixed and random (the paper's Table 1).

The teacher gets the same partial captions and noise at every scale. Results are written after each scale; scales that
were already measured with the same model and protocol are skipped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from experiments.json_file import read_results, write_json
from experiments.removal import Generate, World, entropy, shows
from experiments.sampling import ManySteps
from experiments.worlds import BUNDLED, WORLDS
from training.models.backbone import fingerprint
from training.models.loading import load_backbone
from training.trainer.monitor.frechet import Gaussian, frechet_distance

# The paper's scales, one without guidance, and PG-SB's range.
SCALES: tuple[float | tuple[float, float], ...] = (1.0, 2.0, 3.0, 4.0, 5.0, (2.0, 5.0), (0.5, 4.0))
SEEDS = (30_000, 31_000, 32_000)  # of captions and noise, one per block
REAL, REAL_SEED = 2000, 33_000
_POOL = 16  # side of a field in pixels: 4 x 4 fields with three mean colours each, 48 numbers per picture


def name_of(scale: float | tuple[float, float]) -> str:
    return f"U({scale[0]:g}, {scale[1]:g})" if isinstance(scale, tuple) else f"{scale:g}"


def features(images: torch.Tensor) -> Any:
    """Mean colours (B, 48), fp64, of the fields of images (B, 3, H, W) in [0, 1]."""
    return avg_pool2d(images.double().clamp(0, 1), _POOL).flatten(1).numpy()


def measure(world: World, generate: Generate, count: int, seed: int) -> tuple[dict[str, float], torch.Tensor]:
    """(shares of stated-right and valid images, entropy in bits of unstated attributes), and the images."""
    texts, stated = world.captions(count, seed)
    images = generate(texts, list(range(seed, seed + count)))
    seen = world.read(images)
    left_open: dict[tuple[str, str], list[str]] = {}
    for row, each in zip(seen.rows, stated, strict=True):
        subject = row.get("subject", "")
        for name in row.keys() - each.keys() - {"subject"}:
            left_open.setdefault((subject, name), []).append(row[name])
    bits = [entropy(values) for _, values in sorted(left_open.items())]
    right = fmean(shows(row, each) for row, each in zip(seen.rows, stated, strict=True))
    return {"stated": right, "valid": fmean(seen.valid), "entropy": fmean(bits) if bits else 0.0}, images


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.teacher_scale", description=__doc__)
    parser.add_argument("model", nargs="?", help="default: the world's teacher")
    parser.add_argument("--world", choices=WORLDS, default=BUNDLED)
    parser.add_argument("--json", type=Path, default=Path("docs/data/teacher_scale.json"))
    parser.add_argument("--count", type=int, default=60, help="captions in each of 3 blocks")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    world = WORLDS[args.world]
    path = args.model or world.teacher
    model = load_backbone(path)
    about = {"model": path, "fingerprint": fingerprint(model.network), "steps": args.steps, "count": args.count}
    about |= {"reader": world.reader, "seeds": list(SEEDS), "real": REAL}
    found = read_results(args.json, about) or about | {"scales": {}}
    real = Gaussian.of_features(features(world.draw(REAL, REAL_SEED)))
    missing = [scale for scale in SCALES if name_of(scale) not in found["scales"]]
    for scale in tqdm(missing, unit="scale"):
        generate = ManySteps(model=model, steps=args.steps, cfg=scale)
        rows, images = zip(*(measure(world, generate, args.count, seed) for seed in SEEDS), strict=True)
        distance = frechet_distance(Gaussian.of_features(features(torch.cat(images))), real)
        found["scales"][name_of(scale)] = {"blocks": rows, "frechet": distance}
        write_json(args.json, found)
    print(f"{args.json}: {len(found['scales'])} scales, {len(missing)} measured now")
    return 0


if __name__ == "__main__":
    sys.exit(main())
