"""The bar in a terminal, lines in a file."""

import io
import logging
import os
import sys
import time

import pytest

from training.trainer.monitor.progress import Progress, memory_gib

FIGURES = {"vsd": 1.234e-3, "lora": 0.0567, "kappa": 2.5, "gap": 0.04, "other": 1.0}


def run(iterations=1000, **settings):
    stream = io.StringIO()
    progress = Progress(0, iterations, stream=stream, **settings)
    for _ in range(iterations):
        progress.update(FIGURES)
    progress.close()
    return stream.getvalue()


def test_a_log_file_gets_occasional_lines():
    text = run(every=3600.0)
    assert "\r" not in text and text.endswith("\n")
    first, last = text.splitlines()
    assert first.startswith("PG-SB 0/1000") and last.startswith("PG-SB 1000/1000")
    for part in ("it/s", "vsd=1.2e-03", "lora=0.0567", "kappa=2.50", "gap=4.0e-02", "memory=", "GiB"):
        assert part in last


def test_every_line_is_complete_at_a_high_rate():
    lines = run(50, every=0.0).splitlines()
    assert len(lines) >= 50 and all(line.startswith("PG-SB ") and line.endswith("]") for line in lines)


def test_only_the_main_process_writes():
    assert run(show=False) == ""


def test_a_resumed_run_counts_from_where_it_was():
    stream = io.StringIO()
    progress = Progress(990, 1000, stream=stream, every=0.0)
    progress.update(FIGURES)
    progress.close()
    assert "PG-SB 991/1000" in stream.getvalue()


def test_a_pause_changes_neither_speed_nor_the_time_left():
    stream = io.StringIO()
    progress = Progress(0, 10, stream=stream, every=0.0)
    progress.update(FIGURES)
    before = progress.bar.start_t, progress.bar.last_print_t
    start = time.monotonic()
    with progress.paused():
        began = time.monotonic()
        time.sleep(0.01)
        inside = time.monotonic() - began
    outside = time.monotonic() - start
    for earlier, later in zip(before, (progress.bar.start_t, progress.bar.last_print_t), strict=True):
        assert inside - 1e-4 <= later - earlier <= outside + 1e-4  # these clocks have rounded seconds since 1970
    progress.close()
    with Progress(0, 10, show=False).paused():
        pass


def test_missing_metrics_are_left_out():
    """A skipped iteration has no LoRA loss."""
    stream = io.StringIO()
    progress = Progress(0, 1, stream=stream, every=0.0)
    progress.update({"vsd": float("nan")})
    progress.close()
    assert "vsd=nan" in stream.getvalue() and "lora" not in stream.getvalue()


def read_all(parent):
    """The text written to a pseudo-terminal, after its other end was closed."""
    with os.fdopen(parent, "rb", buffering=0) as written:
        parts = []
        try:
            while part := written.read(4096):
                parts.append(part)
        except OSError:  # the end of the text on Linux
            pass
    return b"".join(parts).decode()


def as_seen(text):
    """Lines as a terminal shows them: text after a carriage return overwrites the line."""
    found = []
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        found.append(shown.rstrip())
    return found


def test_a_terminal_gets_one_bar_with_log_lines_above(monkeypatch):
    termios = pytest.importorskip("termios")
    parent, child = os.openpty()
    termios.tcsetwinsize(child, (24, 200))
    log = logging.getLogger()
    with os.fdopen(child, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        handler = logging.StreamHandler(terminal)
        log.addHandler(handler)
        try:
            progress = Progress(0, 3)
            progress.update(FIGURES)
            log.warning("a warning")
            progress.update(FIGURES)
            progress.close()
        finally:
            log.removeHandler(handler)
    above, bar, below = as_seen(read_all(parent))
    assert above == "a warning" and not below
    assert "2/3" in bar and "it/s" in bar and "vsd=1.2e-03" in bar and "memory=" in bar


def test_memory_of_this_process():
    before = memory_gib()
    held = bytearray(b"x" * 2**28)
    assert 0.15 < memory_gib() - before < 0.5
    del held
