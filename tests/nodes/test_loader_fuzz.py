"""PG-SB Loader: whatever a file holds, it opens or a short message says why not, soon and in little memory."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from figures import measured
from fuzz_files import MiB, Mutant, Template, mutants
from fuzz_goods import good_files, memory_peak, reset_memory_peak

from snoopi_core.formats.tensor_file import CheckpointError
from snoopi_core.host.loading.loader import load_checkpoint

pytestmark = [pytest.mark.host, pytest.mark.slow]

COUNT = 700
ROW = f"fuzz, {COUNT} files"
MOST_TEXT = 2000


@dataclass(frozen=True)
class Tried:
    """One mutant. `complaint` says in which way its outcome was not acceptable."""

    name: str
    opened: bool
    seconds: float
    growth: int
    complaint: str | None


@pytest.fixture(scope="module")
def tried(folder: Path, loras: Path) -> list[Tried]:
    goods = good_files(folder, loras)
    templates = [Template.read(goods[kind], kind, zeros=kind == "foreign") for kind in goods]
    load_checkpoint(goods["own"], goods["lora"])  # what is imported and cached on first use is not the mutants'
    load_checkpoint(goods["foreign"])
    log = _OurLog()
    logging.getLogger().addHandler(log)
    try:
        return [_try(mutant, goods["own"], log) for mutant in mutants(templates, COUNT)]
    finally:
        logging.getLogger().removeHandler(log)


class _OurLog(logging.Handler):
    """What the pack, not the host, has logged."""

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
    """What is not as it should be about an error message; None for a good one."""
    if not message.startswith(name):
        return f"does not begin with the file's name: {message[:300]!r}"
    return unfit(message)


def unfit(message: str) -> str | None:
    """Whether text is too long or too odd for a log."""
    if len(message) >= MOST_TEXT:
        return f"{len(message)} characters: {message[:300]!r}"
    if not message.isprintable():
        return f"control characters: {message[:300]!r}"
    return None


def test_every_outcome_is_clear(tried: list[Tried]) -> None:
    bad = [f"{one.name}: {one.complaint}" for one in tried if one.complaint]
    print(f"{sum(one.opened for one in tried)} of {len(tried)} could be opened")
    print(*bad, sep="\n")
    measured("robustness", ROW, "other than a clear error", len(bad), 0)


def test_most_are_refused_and_some_open(tried: list[Tried]) -> None:
    """Or the mutants would be too wild, or too tame, to say much."""
    assert len(tried) == COUNT
    assert not [name for name, count in Counter(one.name for one in tried).items() if count > 1]
    assert 0.05 * COUNT < sum(one.opened for one in tried) < 0.5 * COUNT


def test_time_is_bounded(tried: list[Tried]) -> None:
    slowest = sorted(tried, key=lambda one: -one.seconds)
    print(*(f"{one.seconds:.2f} s {one.name}" for one in slowest[:5]), sep="\n")
    measured("robustness", ROW, "CPU seconds for the slowest", slowest[0].seconds, 5.0)


def test_memory_is_bounded(tried: list[Tried]) -> None:
    largest = sorted(tried, key=lambda one: -one.growth)
    print(*(f"{one.growth / MiB:.0f} MiB {one.name}" for one in largest[:5]), sep="\n")
    measured("robustness", ROW, "MiB more while opening, at most", largest[0].growth / MiB, 500.0)


class TestNames:
    """Only names on the list lead to files, whatever the operating system would make of them."""

    TRICKS = (
        "", ".", "..", "../secret.safetensors", "../../../../etc/passwd", "/etc/passwd", "sub/../../secret.safetensors",
        "..\\secret.safetensors", "\\\\server\\share\\x.safetensors", "C:\\x.safetensors", "a\0.safetensors",
        "good.safetensors\0", "good.safetensors/", "./good.safetensors", "GOOD.SAFETENSORS", " good.safetensors",
        "x" * 100_000 + ".safetensors", "\n\x1b[31m.safetensors", "file:///etc/passwd", "~/x.safetensors", "$HOME",
        "pipe.safetensors", "folder.safetensors", "nowhere.safetensors", "％2e％2e/secret.safetensors",
    )  # fmt: skip

    @pytest.fixture
    def planted(self, folder: Path, loras: Path) -> None:
        """Beside the good files: a pipe, a folder and a link to nowhere, under names of models."""
        good_files(folder, loras)
        for place in (folder, loras):
            (place.parent / "secret.safetensors").write_bytes(b"")
            if not (place / "pipe.safetensors").exists():
                os.mkfifo(place / "pipe.safetensors")
                (place / "folder.safetensors").mkdir()
                (place / "nowhere.safetensors").symlink_to(place / "gone")

    @pytest.mark.parametrize("name", TRICKS, ids=[repr(name)[:30] for name in TRICKS])
    @pytest.mark.parametrize("what", ["ckpt_name", "lora_name"])
    @pytest.mark.timeout(20)
    def test_tricks(self, loader: type, planted: None, what: str, name: str) -> None:
        inputs = {"ckpt_name": "good.safetensors", what: name}
        for call in (loader.execute, loader.fingerprint_inputs):
            with pytest.raises(ValueError, match="was not found; available: ") as caught:
                call(**inputs)
            assert len(str(caught.value)) < MOST_TEXT
            assert str(caught.value).isprintable()

    @pytest.mark.timeout(20)
    def test_odd_names_of_files_keep_messages_short(self, loader: type, folder: Path) -> None:
        odd = folder / "odd"
        odd.mkdir()
        for number in range(50):
            (odd / f"\n\x1b[31m{number}{'x' * 200}.safetensors").write_bytes(b"")
        try:
            with pytest.raises(ValueError, match="was not found") as caught:
                loader.execute("none.safetensors")
            assert len(str(caught.value)) < MOST_TEXT
            assert str(caught.value).isprintable()
            with pytest.raises(ValueError, match="is empty") as caught:
                loader.execute(next(name for name in loader.define_schema().inputs[0].options if "\n" in name))
            assert str(caught.value).isprintable()
        finally:
            for file in odd.iterdir():
                file.unlink()
            odd.rmdir()
