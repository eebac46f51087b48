"""The help page of every node, opened as users do: click the node, then the Node Info button."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from effort import some
from live_browser import open_front_end, open_help, place, screenshot
from live_pack import ROOT
from live_server import Server
from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

NODES = sorted(path.stem for path in (ROOT / "web" / "docs").glob("*.md"))
NARROW = (1440, 1080)  # here the panel is 272 pixels wide
# Pictures of the help page, by where they come from; the width is 0 until one is loaded.
PICTURES = "() => [...document.querySelectorAll('img[src*=\"/docs/\"]')].map(image => image.naturalWidth)"
# What is wider than the page: the side panel is narrow, and what it cuts off is not read.
TOO_WIDE = """() => {
  const page = document.querySelector('img[src*="/docs/"]').closest('p').parentElement;
  const edge = page.getBoundingClientRect().right + 1;
  return [...page.querySelectorAll('*')]
    .filter(part => part.getBoundingClientRect().right > edge || part.scrollWidth > part.clientWidth + 1)
    .map(part => `${part.tagName} ${part.textContent.slice(0, 60)}`);
}"""


@pytest.fixture(scope="module")
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with open_front_end(browser, server.client, size=NARROW) as opened:
        yield opened


@pytest.mark.parametrize("node", some(NODES, 3))
def test_a_help_page_opens_with_its_pictures(page: Page, screenshots: Path, node: str) -> None:
    heading = (ROOT / "web" / "docs" / f"{node}.md").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    place(page, node)
    open_help(page, node)
    page.get_by_role("heading", name=heading, exact=True).wait_for()
    page.wait_for_function(f"() => ({PICTURES})().length > 0 && ({PICTURES})().every(width => width > 0)")
    picture = screenshot(page, screenshots / f"help_{node}.png")
    assert not (cut := page.evaluate(TOO_WIDE)), f"cut off at the right: {cut}, see {picture}"


# The words that a newcomer types, and one of our nodes that is among the first found.
WORDS = {"sd turbo": "One-Step Sampler", "alpha": "NASA Apply", "negative prompt": "NASA Apply"}


def test_the_words_that_people_type_find_our_nodes(page: Page, screenshots: Path) -> None:
    page.get_by_role("button", name="Node Library").click()
    for words, node in WORDS.items():
        page.get_by_placeholder("Search").last.fill(words)
        page.get_by_text(node, exact=True).first.wait_for()
        screenshot(page, screenshots / f"search_{words.replace(' ', '_')}.png")
