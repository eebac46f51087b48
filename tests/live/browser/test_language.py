"""Another language than English: the texts of locales/ are those on the screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from live_browser import open_front_end, place, screenshot
from live_pack import ROOT
from live_server import Server
from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

# Where the first widget of the graph's node is on the page.
WIDGET = """() => {
  const node = app.graph.nodes[0], canvas = app.canvas.canvas.getBoundingClientRect();
  return [canvas.x + node.pos[0] + 100, canvas.y + node.pos[1] + node.widgets[0].last_y + 10];
}"""


@pytest.mark.full
def test_a_tooltip_in_french(browser: Browser, server: Server, screenshots: Path) -> None:
    texts = json.loads((ROOT / "locales" / "fr" / "nodeDefs.json").read_text(encoding="utf-8"))
    expected = texts["SnoopiNASAApply"]["inputs"]["alpha"]["tooltip"]
    server.client.post("/settings/Comfy.Locale", "fr")
    try:
        with open_front_end(browser, server.client) as page:
            place(page, "SnoopiNASAApply")
            x, y = page.evaluate(WIDGET)
            page.mouse.move(x - 5, y)  # it is the movement that is noticed
            page.mouse.move(x, y)
            page.get_by_text(expected).wait_for()
            screenshot(page, screenshots / "french.png")
    finally:
        server.client.post("/settings/Comfy.Locale", "en")
