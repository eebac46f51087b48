"""`python -m training.evaluate` in this process and in others, and the images it writes."""

from __future__ import annotations

import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from PIL import Image
from processes import rank_environments, set_up, start

from training.evaluate.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
STUDENT = str(ROOT / "models" / "snoopi-shapes-student.safetensors")
PAIRS = """[
  {"positive": "a shape in the center", "negative": "red"},
  {"positive": "a green shape", "negative": "triangle"},
  {"positive": "a red shape", "negative": "left"}
]"""


def evaluate(*words: object) -> None:
    """Run a command that must succeed."""
    assert main([str(word) for word in words]) == 0


def error_of(capsys, *words: object) -> str:
    """Run a command that must fail; returns its error message."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    message = capsys.readouterr().err
    assert "error: " in message, message
    return message[message.index("error: ") :]


def started(
    log: Path, *words: object, processes: int = 1, signalled: tuple[int, int] | None = None
) -> list[BaseProcess]:
    """Start a command as one process, or as several of one run; see processes.py. Their output goes to `log`.

    signalled: (signal, number of images): the process sends itself this signal after writing so many images.
    """
    environments = rank_environments(processes) if processes > 1 else [{"ACCELERATE_USE_CPU": "true"}]
    return [start(_run, log, list(map(str, words)), environment, signalled) for environment in environments]


def _run(log: Path, words: list[str], environment: dict[str, str], signalled: tuple[int, int] | None) -> None:
    set_up(log, environment)
    if signalled is not None:
        _signal_after_images(*signalled)
    sys.exit(main(words))


def _signal_after_images(number: int, count: int) -> None:
    from training.evaluate.generate import maker

    original, written = maker.write_image, []

    def write_image(*args: object) -> None:
        original(*args)
        written.append(1)
        if len(written) == count:
            os.kill(os.getpid(), number)

    maker.write_image = write_image


def pictures(folder: Path) -> dict[str, bytes]:
    """The bytes of every image file in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)
