"""A running server for the tests of this folder, and where their pictures go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_pack import ROOT
from live_server import Server


@pytest.fixture(scope="module")
def server(host_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(host_path, tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Kept after the run, to be looked at."""
    return ROOT / "out" / "screenshots"
