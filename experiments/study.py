"""What studies have in common that train several students: the settings of a run, and the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, TypeVar

from experiments.run_trainer import run_trainer

T = TypeVar("T")
_MEASURING = Lock()  # loading a model patches torch's modules for a moment, so one run is measured at a time


@dataclass(frozen=True, kw_only=True)
class Study:
    """The runs of one call. protocol: numbers of images, a dataclass. overrides: of the recipe, for every run."""

    out: Path
    recipe: str = "shapes"
    iterations: int
    save_every: int
    threads: int
    overrides: Sequence[str]
    protocol: Any

    own: ClassVar[tuple[str, ...]] = ()
    """Settings of all runs of this kind of study."""

    def settings(self, folder: Path, seed: int, iterations: int, varied: Sequence[str]) -> list[str]:
        """All overrides of one run. For a longer run, only the length differs."""
        return [
            *varied,
            f"seed={seed}",
            f"loop.iterations={iterations}",
            f"loop.threads={self.threads}",
            f"output.folder={folder}",
            f"output.save_every={self.save_every}",
            "output.sample_every=0",
            "output.trackers=[]",
            *self.own,
        ]

    def train_and_measure(
        self, folder: Path, seed: int, iterations: int, varied: Sequence[str], measure: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Train, or continue to train, a student; see `run_trainer`. Then measure it.

        Returns:
            The figures, and the "problem", which is "" if there was none.
        """
        settings = self.settings(folder, seed, iterations, varied)
        problem = run_trainer(folder, self.recipe, varied, settings, iterations=iterations, threads=self.threads)
        measured: dict[str, Any] = {}
        if not problem:
            try:
                with _MEASURING:
                    measured = measure()
            except (OSError, ValueError) as error:
                problem = str(error)
        print(f"{folder.name}: {problem or 'done'}", flush=True)
        return {"problem": problem, **measured}


def run_all(run: Callable[..., T], jobs: Sequence[tuple[Any, ...]], at_once: int) -> list[T]:
    """`run(*job)` of all jobs. Ctrl-C ends the program without those that have not begun."""
    with ThreadPoolExecutor(at_once) as pool:
        try:
            return list(pool.map(lambda job: run(*job), jobs))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise SystemExit(130) from None


def add_study_arguments(parser: argparse.ArgumentParser, protocol: type, *, out: str, json: str, page: str) -> None:
    """Add the arguments that all studies have, and one for each field of the protocol."""
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(out), help="the runs (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=Path(json), help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=Path(page), help="its pictures go into images/ beside it")
    for field in fields(protocol):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every run, as training.pgsb takes them")


def from_arguments(kind: type[T], args: argparse.Namespace, **others: Any) -> T:
    """A dataclass whose fields are arguments, but for `others`."""
    found = {field.name: getattr(args, field.name) for field in fields(kind) if hasattr(args, field.name)}
    return kind(**found | others)
