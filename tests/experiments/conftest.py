"""Trainings of the studies in processes that have imported everything; see support/processes.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import IO

import pytest
from trainer import TIMEOUT, Trainer

from experiments import run_trainer

_STARTING = Lock()


def forked(command: list[str], *, stdout: IO[str], **settings: object) -> subprocess.CompletedProcess:
    """subprocess.run of a training, with its output in the file."""
    assert command[:3] == [sys.executable, "-m", "training.pgsb"]
    with _STARTING:  # it changes the environment for a moment
        trainer = Trainer(Path(stdout.name), *command[3:])
    trainer.process.join(TIMEOUT)
    return subprocess.CompletedProcess(command, trainer.process.exitcode)


@pytest.fixture(autouse=True, scope="module")
def trainings_are_forked() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_trainer, "subprocess", SimpleNamespace(run=forked, STDOUT=subprocess.STDOUT))
        yield
