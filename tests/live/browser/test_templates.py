"""Every template, as users meet it: found in the template browser, opened, run, its pictures shown on the nodes.

For those that need other models, the front end's own notice lists the files and their folders. The screenshots are kept
in out/screenshots.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from effort import some
from live_browser import OVERLAPS, open_front_end, screenshot, show_all
from live_server import Server
from live_templates import CARD, choose_pack, choose_template, search, show_card
from playwright.sync_api import Browser, Page
from templates import NAMES, NEEDING, RUNNABLE, needed_files

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

MIN_ZOOM = 0.7  # below 0.6 the front end stops drawing the nodes' text, and windows are smaller than this one
WIDE = ("LTX-2.3", "Wan 2.2"), 0.65  # two models and samplers each: with notes and groups they measure 0.67 and 0.69

# A type that the server does not offer is drawn as an empty box.
UNKNOWN_NODES = "() => app.graph.nodes.filter(n => !n.isVirtualNode && !n.constructor.nodeData).map(n => n.type)"
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


def test_the_template_browser_lists_every_template_with_its_picture(page: Page, screenshots: Path) -> None:
    browse_templates(page)
    choose_pack(page)
    for name in NAMES:
        show_card(page, name)
        assert name in page.locator(CARD.format(name)).inner_text()
    for number, name in enumerate((NAMES[0], NAMES[-1]), start=1):
        show_card(page, name)
        screenshot(page, screenshots / f"template_browser_{number}.png")
    # Words that people type find all of them; each model's own name stands before these words.
    for words in ("negative prompt", "NASA", "snoopi"):
        search(page, words)
    page.keyboard.press("Escape")


@pytest.mark.parametrize("name", some(RUNNABLE, 2))
def test_a_template_opens_runs_and_shows_its_pictures(page: Page, screenshots: Path, name: str) -> None:
    open_template(page, name)
    assert page.evaluate(UNKNOWN_NODES) == []
    page.get_by_test_id("queue-button").click()
    page.wait_for_function(ALL_SHOWN)
    assert page.evaluate(OVERLAPS) == []  # now that nodes have grown by their pictures and previews
    zoom = show_all(page)
    picture = screenshot(page, screenshots / f"{name}.png")
    assert zoom >= (WIDE[1] if name.startswith(WIDE[0]) else MIN_ZOOM), f"too small to read, see {picture}"


@pytest.mark.parametrize("name", some(NEEDING, 2))
def test_a_template_opens_and_lists_the_files_it_needs(page: Page, screenshots: Path, name: str) -> None:
    open_template(page, name)
    assert page.evaluate(UNKNOWN_NODES) == []
    assert page.evaluate(OVERLAPS) == []
    page.get_by_role("button", name="View details").click()
    notice = page.get_by_test_id("error-group-missing-model")
    for file in needed_files(name):
        notice.get_by_text(file.name).wait_for()
        notice.get_by_text(file.directory, exact=True).first.wait_for()
    zoom = show_all(page)
    picture = screenshot(page, screenshots / f"{name}.png")
    assert zoom >= (WIDE[1] if name.startswith(WIDE[0]) else MIN_ZOOM), f"too small to read, see {picture}"
