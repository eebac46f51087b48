"""Every template, as a person meets it: found in the template browser, opened, run by Run, its pictures on the nodes.

Those whose models are not at hand say so: the front end's own notice lists the files and their folders. The screenshots
are kept in out/screenshots.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_browser import OVERLAPS, front_end, screenshot, show_all
from live_pack import FOLDER
from live_server import Server
from playwright.sync_api import Page, TimeoutError
from templates import NAMES, NEEDING, RUNNABLE, needed_files

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

MIN_ZOOM = 0.7  # below 0.6 the front end stops drawing the nodes' text, and windows are smaller than this one
CARD = '[data-testid="template-workflow-{}"]'

# A type that the server does not offer is drawn as an empty box.
UNKNOWN_NODES = "() => app.graph.nodes.filter(n => !n.isVirtualNode && !n.constructor.nodeData).map(n => n.type)"
PICTURES = """() => app.graph.nodes.filter(n => ['SaveImage', 'SnoopiNASAScaleSweep'].includes(n.type))
  .map(n => (n.imgs ?? []).filter(i => i.complete && i.naturalWidth > 0).length)"""
ALL_SHOWN = f"() => ({PICTURES})().every(count => count > 0)"
IS_OPEN = """name => app.extensionManager.workflow.activeWorkflow?.filename === name
  && app.graph.nodes.some(node => node.type.startsWith('Snoopi'))"""
HAS_PICTURE = "card => document.querySelector(card + ' img')?.naturalWidth > 0"


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Page]:
    """One window for all templates of this file; each opens in a tab of its own."""
    with front_end(server.client, size=(1920, 1080)) as opened:
        yield opened


def browse_templates(page: Page) -> None:
    """Open the template browser at this pack's section."""
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(FOLDER, exact=True).click()


def open_template(page: Page, name: str) -> None:
    """On a busy machine the front end may miss a click on a picture that it is still loading: a person clicks again."""
    for _ in range(3):
        browse_templates(page)
        page.locator(CARD.format(name)).click()
        try:
            page.wait_for_function(IS_OPEN, arg=name, timeout=20_000)
            return
        except TimeoutError:
            page.keyboard.press("Escape")
    raise AssertionError(f"{name} does not open")


def test_the_template_browser_lists_every_template_with_its_picture(page: Page, screenshots: Path) -> None:
    browse_templates(page)
    for name in NAMES:
        card = CARD.format(name)
        page.locator(card).scroll_into_view_if_needed()  # pictures are loaded when they come into view
        page.wait_for_function(HAS_PICTURE, arg=card)
        assert name in page.locator(card).inner_text()
    cards = page.locator('[data-testid^="template-workflow-"]')
    assert cards.count() == len(NAMES)
    for number, shown in enumerate((cards.first, cards.last), start=1):
        shown.scroll_into_view_if_needed()
        page.wait_for_timeout(1500)  # pictures that went out of view are loaded again
        screenshot(page, screenshots / f"template_browser_{number}.png")
    page.keyboard.press("Escape")


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_template_opens_runs_and_shows_its_pictures(page: Page, screenshots: Path, name: str) -> None:
    open_template(page, name)
    assert page.evaluate(UNKNOWN_NODES) == []
    page.get_by_test_id("queue-button").click()
    page.wait_for_function(ALL_SHOWN)
    zoom = show_all(page)
    assert page.evaluate(OVERLAPS) == []  # now that nodes have grown by their pictures and previews
    page.wait_for_timeout(2000)  # "Job queued" goes away
    picture = screenshot(page, screenshots / f"{name}.png")
    assert zoom >= MIN_ZOOM, f"too small to read, see {picture}"


@pytest.mark.parametrize("name", NEEDING)
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
    assert zoom >= MIN_ZOOM, f"too small to read, see {picture}"
