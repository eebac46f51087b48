"""A browser for each test file, and where its pictures go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_browser import chromium
from live_pack import ROOT
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed after each file: while one is open, asyncio.run fails and Playwright cannot be started again."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Kept after the run, for people to look at."""
    return ROOT / "out" / "screenshots"
