"""The texts of locales/ and the translated help pages are those on the screen.

out/screenshots/languages/index.html shows them side by side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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


# A model that is not there is chosen on a node of ours, and the graph is sent.
REJECT = """async () => {
  const node = LiteGraph.createNode('SnoopiPGSBLoader'), save = LiteGraph.createNode('SaveImage');
  const decode = LiteGraph.createNode('VAEDecode'), empty = LiteGraph.createNode('EmptyLatentImage');
  for (const each of [node, empty, decode, save]) app.graph.add(each);
  node.pos = [300, 700]; empty.pos = [700, 700]; decode.pos = [1000, 700]; save.pos = [1200, 700];
  node.connect(2, decode, 1); empty.connect(0, decode, 0); decode.connect(0, save, 0);
  node.widgets[0].value = 'gone.safetensors';
  await app.queuePrompt(0);
}"""


def not_in_list(language: str) -> str:
    texts = json.loads((ROOT / "locales" / language / "main.json").read_text(encoding="utf-8"))["snoopi"]
    return texts["fileNotInList"].format(input="ckpt_name", given='"gone.safetensors"', folder="models/checkpoints")


# In the gate, one of them.
LANGUAGES = ["zh", *(pytest.param(language, marks=pytest.mark.full) for language in ("en", "fr", "ja", "ko"))]
NODE = "SnoopiNASAApply"


@pytest.fixture(scope="module", autouse=True)
def sheet(screenshots: Path) -> Iterator[None]:
    """One page of all screenshots, a row for each language."""
    yield
    folder = screenshots / "languages"
    languages = sorted(path.name.removesuffix("_help.png") for path in folder.glob("*_help.png"))
    rows = [
        f"<h2>{language}</h2>"
        + "".join(f'<img src="{language}_{part}.png" width="33%">' for part in ("tooltip", "message", "help"))
        for language in languages
    ]
    (folder / "index.html").write_text(f'<meta charset="utf-8"><title>SNOOPI</title>{"".join(rows)}', encoding="utf-8")


@pytest.mark.parametrize("language", LANGUAGES)
def test_tooltips_and_help_are_in_the_users_language(
    browser: Browser, server: Server, screenshots: Path, language: str
) -> None:
    tooltip = server.client.get_json(f"/object_info/{NODE}")[NODE]["input"]["required"]["alpha"][1]["tooltip"]
    if language != "en":
        texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
        tooltip = texts[NODE]["inputs"]["alpha"]["tooltip"]
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
            page.get_by_text(tooltip).wait_for()
            screenshot(page, screenshots / "languages" / f"{language}_tooltip.png")
            page.evaluate(REJECT)
            page.get_by_text(not_in_list(language)).wait_for()
            # It fades in: shown as it is at the end.
            page.screenshot(path=screenshots / "languages" / f"{language}_message.png", animations="disabled")
            open_help(page, NODE)
            page.get_by_role("heading", name=heading, exact=True).wait_for()
            page.wait_for_function(PICTURES_ARE_LOADED)
            screenshot(page, screenshots / "languages" / f"{language}_help.png")
    finally:
        server.client.post("/settings/Comfy.Locale", "en")
