"""PG-SB Loader: every damaged file opens or gives a short error message, quickly and with little memory."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from effort import effort
from figures import measured
from fuzz_files import MiB, Mutant, Template, mutants
from fuzz_goods import good_files, memory_peak, reset_memory_peak

from snoopi_core.formats.tensor_file import CheckpointError
from snoopi_core.host.loading.loader import load_checkpoint

pytestmark = [pytest.mark.host, pytest.mark.slow]

COUNT = 700
EVERY = effort(gate=11, full=1)  # the step through the list of mutants
# CPU time, not a bound on speed: reading one of them in quadratic time would take minutes.
MOST_SECONDS = 30.0
ROW = f"fuzz, {COUNT} files"
MOST_TEXT = 2000


@dataclass(frozen=True)
class Tried:
    """One mutant. `complaint`: why its outcome is not acceptable."""

    name: str
    opened: bool
    seconds: float
    growth: int
    complaint: str | None


@pytest.fixture(scope="module")
def tried(folder: Path, loras: Path) -> list[Tried]:
    goods = good_files(folder, loras)
    templates = [Template.read(goods[kind], kind, zeros=kind == "foreign") for kind in goods]
    load_checkpoint(goods["own"], goods["lora"])  # imports and caches of the first use must not count for the mutants
    load_checkpoint(goods["foreign"])
    log = _OurLog()
    logging.getLogger().addHandler(log)
    try:
        return [_try(mutant, goods["own"], log) for mutant in mutants(templates, COUNT)[::EVERY]]
    finally:
        logging.getLogger().removeHandler(log)


class _OurLog(logging.Handler):
    """Log records of the pack, without the host's."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "snoopi_core" in record.pathname:
            self.messages.append(record.getMessage())


def _try(mutant: Mutant, base: Path, log: _OurLog) -> Tried:
    path = base.with_name("mutant.safetensors")
    mutant.write(path)
    before = reset_memory_peak()
    started = time.process_time()
    complaint, opened = None, False
    log.messages.clear()
    try:
        if mutant.kind == "lora":
            load_checkpoint(base, path)
        else:
            load_checkpoint(path)
        opened = True
        complaint = next(filter(None, (unfit(line) for line in log.messages)), None)
    except CheckpointError as error:
        complaint = wrong_with(str(error), path.name)
    except Exception as error:
        complaint = f"{type(error).__name__}: {str(error)[:300]}"
    seconds, growth = time.process_time() - started, memory_peak() - before
    path.unlink()
    return Tried(mutant.name, opened, seconds, growth, complaint)


def wrong_with(message: str, name: str) -> str | None:
    """What is wrong with an error message; None for a good one."""
    if not message.startswith(name):
        return f"does not begin with the file's name: {message[:300]!r}"
    return unfit(message)


def unfit(message: str) -> str | None:
    """Whether text is too long for a log or has control characters."""
    if len(message) >= MOST_TEXT:
        return f"{len(message)} characters: {message[:300]!r}"
    if not message.isprintable():
        return f"control characters: {message[:300]!r}"
    return None


@pytest.mark.scaled
def test_every_outcome_is_clear(tried: list[Tried]) -> None:
    bad = [f"{one.name}: {one.complaint}" for one in tried if one.complaint]
    print(f"{sum(one.opened for one in tried)} of {len(tried)} could be opened")
    print(*bad, sep="\n")
    measured("robustness", ROW, "other than a clear error", len(bad), 0)


@pytest.mark.scaled
def test_most_are_refused_and_some_open(tried: list[Tried]) -> None:
    """Otherwise the mutants would be too damaged, or too intact, for a useful test."""
    assert len(tried) == len(range(0, COUNT, EVERY))
    assert not [name for name, count in Counter(one.name for one in tried).items() if count > 1]
    assert 0.05 * len(tried) < sum(one.opened for one in tried) < 0.5 * len(tried)


@pytest.mark.scaled
def test_time_is_bounded(tried: list[Tried]) -> None:
    slowest = sorted(tried, key=lambda one: -one.seconds)
    print(*(f"{one.seconds:.2f} s {one.name}" for one in slowest[:5]), sep="\n")
    measured("robustness", ROW, "CPU seconds for the slowest", slowest[0].seconds, MOST_SECONDS)


@pytest.mark.scaled
def test_memory_is_bounded(tried: list[Tried]) -> None:
    largest = sorted(tried, key=lambda one: -one.growth)
    print(*(f"{one.growth / MiB:.0f} MiB {one.name}" for one in largest[:5]), sep="\n")
    measured("robustness", ROW, "MiB more while opening, at most", largest[0].growth / MiB, 500.0)
