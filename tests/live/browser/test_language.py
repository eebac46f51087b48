"""Other languages than English: the texts of locales/ and the translated help pages are those on the screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from live_browser import open_front_end, open_help, place, screenshot
from live_pack import ROOT
from live_server import Server
from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

# Where the first widget of the graph's node is on the page.
WIDGET = """() => {
  const node = app.graph.nodes[0], canvas = app.canvas.canvas.getBoundingClientRect();
  return [canvas.x + node.pos[0] + 100, canvas.y + node.pos[1] + node.widgets[0].last_y + 10];
}"""
PICTURES_ARE_LOADED = """() => {
  const pictures = [...document.querySelectorAll('img[src*="/docs/"]')];
  return pictures.length > 0 && pictures.every(picture => picture.naturalWidth > 0);
}"""


# In the gate, one of them.
LANGUAGES = ["zh", *(pytest.param(language, marks=pytest.mark.full) for language in ("fr", "ja", "ko"))]
NODE = "SnoopiNASAApply"


@pytest.mark.parametrize("language", LANGUAGES)
def test_tooltips_and_help_are_in_the_users_language(
    browser: Browser, server: Server, screenshots: Path, language: str
) -> None:
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    docs = ROOT / "web" / "docs"
    page_file = docs / NODE / f"{language}.md"
    help_page = (page_file if page_file.exists() else docs / f"{NODE}.md").read_text(encoding="utf-8")
    heading = help_page.split("\n## ")[1].splitlines()[0]
    server.client.post("/settings/Comfy.Locale", language)
    try:
        with open_front_end(browser, server.client) as page:
            place(page, NODE)
            x, y = page.evaluate(WIDGET)
            page.mouse.move(x - 5, y)  # it is the movement that is noticed
            page.mouse.move(x, y)
            page.get_by_text(texts[NODE]["inputs"]["alpha"]["tooltip"]).wait_for()
            screenshot(page, screenshots / "languages" / f"{language}_tooltip.png")
            open_help(page, NODE)
            page.get_by_role("heading", name=heading, exact=True).wait_for()
            page.wait_for_function(PICTURES_ARE_LOADED)
            screenshot(page, screenshots / "languages" / f"{language}_help.png")
    finally:
        server.client.post("/settings/Comfy.Locale", "en")
