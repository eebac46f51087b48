"""A running server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import Server


@pytest.fixture(scope="module")
def server(host_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for each test file, with the pack as it is shipped."""
    with Server(host_path, tmp_path_factory.mktemp("server")) as running:
        yield running
