"""`python -m experiments.joint_students.pairs`: draw pairs of noise and x0 from the world's model, for captions.

Continues where it stopped: each file of pairs is written whole, or not at all.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from tqdm import tqdm

from experiments.joint_students.worlds import TOKENS, WORLDS, World, as_seen, sampler, text_states
from snoopi_core.formats.atomic import replacing
from training.distill.rng import generator

PART = 1000  # pairs in a file
FIRST_SEED = 1_000_000  # far from the seeds with which models are measured


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """N pairs: noise and x0 (N, C / 4, 16, 16), and the text states (U, TOKENS, E) with each pair's number in them."""

    noise: torch.Tensor
    x0: torch.Tensor
    texts: torch.Tensor
    numbers: torch.Tensor


def _file(folder: Path, source: str, part: int) -> Path:
    return folder / f"pairs-{source}-{part:03}.pt"


def draw_pairs(folder: Path, world: World, source: str, count: int) -> None:
    """Write the missing files of pairs. Latents are rounded to fp16."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "pairs.lock", timeout=0):
        parts = range(-(-count // PART))
        missing = [part for part in parts if not _file(folder, source, part).is_file()]
        if not missing:
            return
        generate = sampler(world.load(source), source)
        for part in tqdm(missing, unit=f"x {PART} pairs"):
            size = min(PART, count - part * PART)
            captions = world.captions(size, generator(0, "pairs", part))
            seeds = list(range(FIRST_SEED + part * PART, FIRST_SEED + part * PART + size))
            content = {
                "captions": captions,
                "noise": as_seen(generate.noise(seeds)).half(),
                "x0": as_seen(generate.latents(captions, seeds)).half(),
            }
            with replacing(_file(folder, source, part)) as temporary:
                torch.save(content, temporary)


def load_pairs(folder: Path, world: World, source: str) -> Pairs:
    """All pairs that have been drawn.

    Raises:
        FileNotFoundError: there are none.
    """
    if not (files := sorted(folder.glob(f"pairs-{source}-*.pt"))):
        raise FileNotFoundError(f"{folder} has no pairs; run `python -m experiments.joint_students.pairs` first")
    parts = [torch.load(file, weights_only=True) for file in files]
    captions = [caption for part in parts for caption in part["captions"]]
    unique = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    texts = text_states(world.load(source), list(unique))
    assert texts.shape[1:] == (TOKENS, world.text)
    noise, x0 = (torch.cat([part[name] for part in parts]).float() for name in ("noise", "x0"))
    return Pairs(noise=noise, x0=x0, texts=texts, numbers=torch.tensor([unique[each] for each in captions]))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.joint_students.pairs", description=__doc__)
    parser.add_argument("--world", choices=WORLDS, default="shapes")
    parser.add_argument("--source", choices=("student", "teacher"), default="student", help="default: %(default)s")
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--out", type=Path, default=Path("runs/joint_students"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    draw_pairs(args.out, WORLDS[args.world], args.source, args.count)


if __name__ == "__main__":
    main()
