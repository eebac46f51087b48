"""Hours of use in a minute: 30 workflows, ten times each, in one server; nothing may
pile up or drift, and no warning may repeat."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from effort import effort
from figures import measured
from live_client import Outcome
from live_server import Server
from live_warnings import Logged, install_recorder, recorded
from PIL import Image
from soak_cases import CASES as ALL_CASES
from soak_cases import Case, failing, graph, slow

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.scaled]

ROUNDS, WARM_UP = effort(gate=(2, 1), full=(10, 3))
CASES = ALL_CASES[:: effort(gate=5, full=1)]
ROW = "soak, 300 prompts"


@dataclass
class Soak:
    """What was recorded during the run."""

    pixels: dict[Case, list[str]] = field(default_factory=lambda: {case: [] for case in CASES})
    memory: list[int] = field(default_factory=list)
    logged: list[list[Logged]] = field(default_factory=list)
    computed: Counter[str] = field(default_factory=Counter)
    between: list[Outcome] = field(default_factory=list)


@pytest.fixture(scope="module")
def soak(host_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soak]:
    base = tmp_path_factory.mktemp("soak")
    log = install_recorder(base)
    # Models stay loaded from one prompt to the next; the newest host's default keeps all, until memory runs short.
    with Server(host_path, base, "--cache-lru", "100") as server:
        yield _run(server, log)


def _run(server: Server, log: Path) -> Soak:
    soak = Soak()
    for number in range(ROUNDS):
        for position, case in enumerate(CASES):
            if number >= WARM_UP and position == (7 + number) % len(CASES):
                soak.between += _disturb(server)
            _compute(server, soak, case, number)
        soak.memory.append(_settled(server))
        soak.logged.append(recorded(log)[sum(map(len, soak.logged)) :])
    print("memory, MiB:", *(f"{size / 2**20:.1f}" for size in soak.memory))
    return soak


def _settled(server: Server) -> int:
    """Memory without the host's intended caches: models, outputs, and its history of prompts.

    The next round loads everything again. safetensors 0.8 loses 57 bytes for each tensor that it reads, whoever reads
    it: 28 KB for one of our models, which the bar leaves room for.
    """
    server.client.post("/history", {"clear": True})
    server.client.free()
    return server.memory


def _compute(server: Server, soak: Soak, case: Case, number: int) -> None:
    # Blanks at the end change no token, but to the host it is another text, so it computes everything again.
    prompt = graph(case, blanks=number)
    outcome = server.client.run(prompt)
    assert outcome.status == "success", (case, outcome.error)
    soak.computed.update(kind for node, kind in _kinds(prompt).items() if node not in outcome.cached)
    image = Image.open(io.BytesIO(server.client.view(outcome.images[0])))
    soak.pixels[case].append(hashlib.sha256(image.tobytes()).hexdigest())


def _kinds(prompt: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {node: entry["class_type"] for node, entry in prompt.items()}


def _disturb(server: Server) -> Iterator[Outcome]:
    """A run that is interrupted while it samples, and runs that fail before and while they sample."""
    prompt = server.client.queue_until(slow(), "progress")
    server.client.post("/interrupt", {})
    yield server.client.wait(prompt)
    yield from map(server.client.run, failing())


def test_every_repeat_is_equal_to_the_last_bit(soak: Soak) -> None:
    assert len(set(soak.pixels)) == len(CASES)
    assert len({first for first, *_ in soak.pixels.values()}) == len(CASES), "two workflows give the same picture"
    assert soak.computed["KSampler"] + soak.computed["SnoopiOneStepSampler"] == ROUNDS * len(CASES), "some were cached"
    assert soak.computed["SnoopiPGSBLoader"] > ROUNDS, "models were kept from round to round"
    changed = sum(pixel != first for first, *others in soak.pixels.values() for pixel in others)
    measured("robustness", ROW, "prompts whose pixels changed", changed, 0)


def test_the_interruptions_and_failures_in_between_happened(soak: Soak) -> None:
    expected = [
        ("execution_interrupted", None),
        ("execution_error", "ValueError"),
        ("execution_error", "ValueError"),
    ]
    found = []
    for outcome in soak.between:
        last = next(name for name, _ in reversed(outcome.events) if name != "execution_cached")
        found.append((last, outcome.error and outcome.error["exception_type"].rpartition(".")[2]))
    assert found == expected * (ROUNDS - WARM_UP)


@pytest.mark.full
def test_memory_stays_flat(soak: Soak) -> None:
    """Growth from the end of the warm-up to the end, by the median slope between any two rounds in between.

    A straight line would take for growth what malloc keeps or gives back once: about 14 MiB, at any round.
    """
    sizes = soak.memory[WARM_UP - 1 :]
    slope = float(scipy.stats.theilslopes(sizes).slope)
    growth = slope * (len(sizes) - 1) / sizes[0]
    print(f"{slope / 2**10:.0f} KiB a round, {slope / len(CASES) / 2**10:.1f} KiB a prompt")
    measured("robustness", ROW, "memory growth after warm-up", max(growth, 0.0), 0.02)


def test_no_warning_is_repeated(soak: Soak) -> None:
    """No warning of ours, or of the host because of our nodes; the intended failures are errors, logged once."""
    counts = Counter(entry for entries in soak.logged[WARM_UP:] for entry in entries if entry.level == "WARNING")
    for entry, count in counts.most_common(10):
        print(count, entry)
    ours = [entry for entries in soak.logged for entry in entries if "ComfyUI-SNOOPI" in entry.path]
    measured("robustness", ROW, "warnings of ours", len(ours), 0)
    measured("robustness", ROW, "warnings of the host, repeated", sum(counts.values()), 0)
