"""Every template in the front end's Nodes 2.0, which draws nodes as elements of the page, and larger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from effort import some
from live_browser import DRAW, GROW, LOAD, OVERLAPS, open_front_end, screenshot, show_all
from live_server import Server
from playwright.sync_api import Browser, Page
from templates import FIGURE_FIRST, FOLDER, RUNNABLE

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

SETTING = "/settings/Comfy.VueNodes.Enabled"
DRAWN = '() => app.graph.nodes.every(n => document.querySelector(`[data-node-id="${n.id}"]`))'
SAVED = """() => app.graph.nodes
  .filter(n => ['SaveImage', 'SnoopiNASAScaleSweep', 'SnoopiNASAInspect'].includes(n.type))
  .every(n => app.nodeOutputs[n.id]?.images?.length)"""


@pytest.fixture(scope="module")
def page(browser: Browser, server: Server) -> Iterator[Page]:
    server.client.post(SETTING, True)
    with open_front_end(browser, server.client, size=(1920, 1080)) as opened:
        yield opened
    server.client.post(SETTING, False)


@pytest.mark.parametrize("name", some(FIGURE_FIRST, 3))
def test_nothing_overlaps(page: Page, screenshots: Path, name: str) -> None:
    page.evaluate(LOAD, (FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    page.wait_for_function(DRAWN)
    if name in RUNNABLE:
        page.get_by_test_id("queue-button").click()
        page.wait_for_function(SAVED)
    page.evaluate(GROW)
    page.evaluate(DRAW)
    show_all(page)
    picture = screenshot(page, screenshots / "nodes_2" / f"{name}.png")
    assert page.evaluate(OVERLAPS) == [], f"see {picture}"
