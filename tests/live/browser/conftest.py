"""A browser for each test file, the newest front end, and where pictures go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_browser import chromium
from live_pack import ROOT
from live_server import Server
from playwright.sync_api import Browser

from scripts.setup.front_end import newest_front_end


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed after each file: while one is open, asyncio.run fails and Playwright cannot be started again."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def running_newest(host_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("newest")
    with Server(host_path, base, "--front-end-root", str(newest_front_end())) as running:
        yield running


@pytest.fixture(scope="module")
def newest(running_newest: Server) -> Server:
    """A server with the newest front end on PyPI, with nothing loaded and nothing cached."""
    running_newest.client.free()
    return running_newest


@pytest.fixture(scope="module", params=["own", pytest.param("newest", marks=pytest.mark.full)])
def front_end_name(request: pytest.FixtureRequest) -> str:
    """ComfyUI's own; in the full run, also the newest."""
    return request.param


@pytest.fixture(scope="module")
def any_front_end(request: pytest.FixtureRequest, front_end_name: str) -> Server:
    """A server with that front end."""
    return request.getfixturevalue({"own": "server", "newest": "newest"}[front_end_name])


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Kept after the run, for people to look at."""
    return ROOT / "out" / "screenshots"
