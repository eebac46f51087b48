"""Every template, as users meet it: found in the template browser, opened, run, its pictures shown on the nodes.

For those that need other models, the front end's own notice lists the files and their folders. The screenshots are kept
in out/screenshots.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from effort import some
from live_browser import DRAW, GROW, LOAD, OVERLAPS, open_front_end, screenshot, show_all
from live_server import Server
from live_templates import CARD, choose_pack, choose_template, search, show_card
from playwright.sync_api import Browser, Page
from templates import FIGURE_FIRST, FOLDER, NAMES, NEEDING, RUNNABLE, needed_files

from scripts.setup.front_end import oldest_front_end

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

MIN_ZOOM = 0.7  # below 0.6 the front end stops drawing the nodes' text, and windows are smaller than this one

# A type that the server does not offer is drawn as an empty box.
UNKNOWN_NODES = """() => [app.graph, ...app.graph.subgraphs.values()].flatMap(graph => graph.nodes)
  .filter(n => !n.isVirtualNode && !n.constructor.nodeData).map(n => n.type)"""
PICTURES = """() => app.graph.nodes
  .filter(n => ['SaveImage', 'SnoopiNASAScaleSweep', 'SnoopiNASAInspect'].includes(n.type))
  .map(n => (n.imgs ?? []).filter(i => i.complete && i.naturalWidth > 0).length)"""
ALL_SHOWN = f"() => ({PICTURES})().every(count => count > 0)"
IS_OPEN = """name => app.extensionManager.workflow.activeWorkflow?.filename === name
  && app.graph.nodes.some(node => node.type.startsWith('Snoopi'))"""


@pytest.fixture(scope="module")
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """One window for all templates of this file; each opens in its own tab."""
    with open_front_end(browser, server.client, size=(1920, 1080)) as opened:
        yield opened


def browse_templates(page: Page) -> None:
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")


def open_template(page: Page, name: str) -> None:
    browse_templates(page)
    choose_template(page, name)
    page.wait_for_function(IS_OPEN, arg=name)


def test_the_template_browser_lists_every_template_with_its_picture(
    browser: Browser, any_front_end: Server, front_end_name: str, screenshots: Path
) -> None:
    with open_front_end(browser, any_front_end.client, size=(1920, 1080)) as page:
        browse_templates(page)
        choose_pack(page)
        for name in NAMES:
            show_card(page, name)
            assert name in page.locator(CARD.format(name)).inner_text()
        for number, name in enumerate((NAMES[0], NAMES[-1]), start=1):
            show_card(page, name)
            screenshot(page, screenshots / f"template_browser_{number}_{front_end_name}.png")
        # Words that people type find all of them, the one to begin with first: models' names stand before these words.
        for words in ("negative prompt", "NASA", "snoopi"):
            assert search(page, words) == NAMES[0]


@pytest.mark.parametrize("name", some([name for name in FIGURE_FIRST if name in RUNNABLE], 2))
def test_a_template_opens_runs_and_shows_its_pictures(page: Page, screenshots: Path, name: str) -> None:
    open_template(page, name)
    assert page.evaluate(UNKNOWN_NODES) == []
    page.get_by_test_id("queue-button").click()
    page.wait_for_function(ALL_SHOWN)
    assert page.evaluate(OVERLAPS) == []  # now that nodes have grown by their pictures and previews
    zoom = show_all(page)
    picture = screenshot(page, screenshots / f"{name}.png")
    assert zoom >= MIN_ZOOM, f"too small to read, see {picture}"


@pytest.mark.parametrize("name", some(NEEDING, 2))
def test_a_template_opens_and_lists_the_files_it_needs(page: Page, screenshots: Path, name: str) -> None:
    open_template(page, name)
    assert page.evaluate(UNKNOWN_NODES) == []
    page.evaluate(GROW)
    page.evaluate(DRAW)
    assert page.evaluate(OVERLAPS) == []
    page.get_by_role("button", name="View details").click()
    notice = page.get_by_test_id("error-group-missing-model")
    for file in needed_files(name):
        notice.get_by_text(file.name).wait_for()
        notice.get_by_text(file.directory, exact=True).first.wait_for()
    zoom = show_all(page)
    picture = screenshot(page, screenshots / f"{name}.png")
    assert zoom >= MIN_ZOOM, f"too small to read, see {picture}"


@pytest.mark.full
def test_nothing_overlaps_in_the_oldest_front_end(browser: Browser, server: Server, screenshots: Path) -> None:
    """There, a subgraph's node shows the previews of the samplers in it."""
    with open_front_end(browser, server.client, size=(1280, 720), static=oldest_front_end()) as page:
        for name in FIGURE_FIRST:
            page.evaluate(LOAD, (FOLDER / f"{name}.json").read_text(encoding="utf-8"))
            page.evaluate(GROW)
            page.evaluate(DRAW)
            picture = screenshot(page, screenshots / "oldest" / f"{name}.png")
            assert page.evaluate(OVERLAPS) == [], f"see {picture}"
