"""`python -m experiments.avatars_teacher.short_captions`: captions for the end of the student's training.

Negative prompts are used with prompts that leave much open ("a person"). So half of these captions say the subject with
at most one thing more; the other half are as the world has them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from snoopi_core.formats.atomic import write_atomically
from training.prompts.avatars.captions import SUBJECT, caption
from training.prompts.avatars.scene import sample_scene

COUNT = 4000  # of each half


def captions(count: int, seed: int = 0) -> list[str]:
    """`count` captions of any length, then `count` short ones."""
    rng = torch.Generator().manual_seed(seed)
    usual: list[str] = []
    short: list[str] = []
    while len(short) < count:
        text, stated = caption(sample_scene(rng), rng)
        if len(usual) < count:
            usual.append(text)
        if SUBJECT in stated and len(stated) <= 2:
            short.append(text)
    return usual + short


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.avatars_teacher.short_captions", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="text file, a caption a line")
    arguments = parser.parse_args(argv)
    write_atomically(arguments.out, "\n".join(captions(COUNT)) + "\n")


if __name__ == "__main__":
    main()
