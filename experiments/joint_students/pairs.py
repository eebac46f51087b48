"""`python -m experiments.joint_students.pairs`: draw pairs of noise and x0 from the world's model, for captions.

First the rotation of the noise is measured (turn.py). Continues where it stopped: each file is written whole, or not at
all.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from tqdm import tqdm

from experiments.joint_students.turn import DRAWS, turn, turned
from experiments.joint_students.world import TEXT, TOKENS, captions, load, sampler, text_states
from snoopi_core.formats.atomic import replacing
from training.distill.rng import generator

PART = 1000  # pairs in a file
FIRST_SEED = 1_000_000  # far from the seeds with which models are measured


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """N pairs: turned noise and x0 (N, *LATENT), text states (U, TOKENS, TEXT) with each pair's number in them."""

    noise: torch.Tensor
    x0: torch.Tensor
    texts: torch.Tensor
    numbers: torch.Tensor


def _file(folder: Path, source: str, part: int) -> Path:
    return folder / f"pairs-{source}-{part:03}.pt"


def measure_turn(folder: Path, source: str, *, draws: int = DRAWS) -> None:
    """Write the rotation of the source's noise, if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "pairs.lock", timeout=0):
        file = folder / f"turn-{source}.pt"
        if not file.is_file():
            rotation = turn(source, draws=draws)
            with replacing(file) as temporary:
                torch.save(rotation, temporary)


def load_turn(folder: Path, source: str) -> torch.Tensor:
    """The rotation of the source's noise.

    Raises:
        FileNotFoundError: it has not been measured.
    """
    if not (file := folder / f"turn-{source}.pt").is_file():
        raise FileNotFoundError(f"{file} is missing; run `python -m experiments.joint_students.pairs` first")
    return torch.load(file, weights_only=True)


def draw_pairs(folder: Path, source: str, count: int) -> None:
    """Write the missing files of pairs. Latents are rounded to fp16."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "pairs.lock", timeout=0):
        parts = range(-(-count // PART))
        missing = [part for part in parts if not _file(folder, source, part).is_file()]
        if not missing:
            return
        generate = sampler(load(source), source)
        for part in tqdm(missing, unit=f"x {PART} pairs"):
            size = min(PART, count - part * PART)
            prompts = captions(size, generator(0, "pairs", part))
            seeds = list(range(FIRST_SEED + part * PART, FIRST_SEED + part * PART + size))
            content = {
                "captions": prompts,
                "noise": generate.noise(seeds).half(),
                "x0": generate.latents(prompts, seeds).half(),
            }
            with replacing(_file(folder, source, part)) as temporary:
                torch.save(content, temporary)


def load_pairs(folder: Path, source: str) -> Pairs:
    """All pairs that have been drawn.

    Raises:
        FileNotFoundError: there are none.
    """
    if not (files := sorted(folder.glob(f"pairs-{source}-*.pt"))):
        raise FileNotFoundError(f"{folder} has no pairs; run `python -m experiments.joint_students.pairs` first")
    parts = [torch.load(file, weights_only=True) for file in files]
    prompts = [prompt for part in parts for prompt in part["captions"]]
    unique = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    texts = text_states(load(source), list(unique))
    assert texts.shape[1:] == (TOKENS, TEXT)
    noise, x0 = (torch.cat([part[name] for part in parts]).float() for name in ("noise", "x0"))
    noise = turned(noise, load_turn(folder, source))
    return Pairs(noise=noise, x0=x0, texts=texts, numbers=torch.tensor([unique[each] for each in prompts]))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.joint_students.pairs", description=__doc__)
    parser.add_argument("--source", choices=("student", "teacher"), default="student", help="default: %(default)s")
    parser.add_argument("--count", type=int, default=40_000)
    parser.add_argument("--out", type=Path, default=Path("runs/joint_students"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    measure_turn(args.out, args.source)
    draw_pairs(args.out, args.source, args.count)


if __name__ == "__main__":
    main()
