"""The browser that the tests of this folder share, and where their pictures go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_browser import chromium
from live_pack import ROOT
from playwright.sync_api import Browser


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Closed before files of other folders run: see `chromium`."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Kept after the run, for people to look at."""
    return ROOT / "out" / "screenshots"
