"""`python -m experiments.avatars_teacher.data`: draw the pictures that the networks of the avatars' world learn from.

They are drawn once and kept in a folder, 500 in a file: uint8 (500, 64, 64, 3), and a line of JSON for each scene. What
is there is not drawn again, so an interrupted run continues, and a larger count adds to it. The first `HELD_BACK`
pictures are for measuring alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy
import torch

from snoopi_core.formats.atomic import replacing, write_atomically
from training.distill.rng import generator
from training.prompts.avatars.draw import draw
from training.prompts.avatars.scene import Scene, sample_scenes

CHUNK = 500
HELD_BACK = 1000
COUNT = 20_000  # in all


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures and their scenes. images: uint8 (N, SIZE, SIZE, 3). The first `held_back` are not for training."""

    images: numpy.ndarray
    scenes: list[Scene]

    @property
    def held_back(self) -> int:
        return min(HELD_BACK, len(self.scenes) // 2)

    def sample(self, count: int, rng: torch.Generator) -> torch.Tensor:
        """Rows (count,) of pictures for training."""
        return torch.randint(self.held_back, len(self.scenes), (count,), generator=rng)

    def batch(self, rows: torch.Tensor) -> torch.Tensor:
        """The pictures of `rows` (B,), float (B, 3, SIZE, SIZE) in [0, 1]."""
        picked = numpy.ascontiguousarray(self.images[rows.numpy()])
        return torch.from_numpy(picked).permute(0, 3, 1, 2).float() / 255


def _chunk(folder: Path, seed: int, number: int) -> None:
    """Draw one chunk, unless it is there."""
    torch.set_num_threads(1)
    path = folder / f"chunk-{number:04d}.npy"
    if path.is_file():
        return
    scenes = sample_scenes(CHUNK, generator(seed, "pictures", number))
    images = numpy.stack([draw(scene) for scene in scenes])
    write_atomically(folder / f"chunk-{number:04d}.jsonl", "".join(json.dumps(asdict(s)) + "\n" for s in scenes))
    with replacing(path) as temporary, temporary.open("wb") as file:
        numpy.save(file, images)


def make(folder: Path, count: int, *, seed: int = 0, processes: int = 1) -> None:
    """Draw the pictures that are missing of `count`, in whole chunks."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(-(-count // CHUNK))
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        jobs = [pool.apply_async(_chunk, (folder, seed, number)) for number in numbers]
        for done, job in enumerate(jobs, 1):
            job.get()
            print(f"pictures: {done * CHUNK} of {len(numbers) * CHUNK}", flush=True)


def load(folder: Path, count: int) -> Pictures:
    """The first `count` pictures of a folder.

    Raises:
        FileNotFoundError: they have not been drawn.
    """
    chunks = [folder / f"chunk-{number:04d}.npy" for number in range(-(-count // CHUNK))]
    if missing := [chunk.name for chunk in chunks if not chunk.is_file()]:
        raise FileNotFoundError(
            f"{folder} has no {missing[0]} ({len(missing)} of {len(chunks)} files are missing): "
            f"draw the pictures with python -m experiments.avatars_teacher.data --count {count}"
        )
    lines = [line for chunk in chunks for line in chunk.with_suffix(".jsonl").read_text("utf-8").splitlines()]
    images = numpy.concatenate([numpy.load(chunk) for chunk in chunks])
    return Pictures(images=images[:count], scenes=[Scene(**json.loads(line)) for line in lines[:count]])


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.avatars_teacher.data", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/avatars/pictures"))
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args(argv)
    make(arguments.out, arguments.count, seed=arguments.seed, processes=arguments.processes)


if __name__ == "__main__":
    main()
