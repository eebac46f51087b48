"""Every template, as a person meets it: found in the template browser, opened, run by Run, its pictures on the nodes.

The screenshots are kept in out/screenshots.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from live_browser import front_end, screenshot
from live_pack import FOLDER, ROOT
from live_server import Server
from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

TEMPLATES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
MIN_ZOOM = 0.6  # below this the front end stops drawing the nodes' text

# A type that the server does not offer is drawn as an empty box.
UNKNOWN_NODES = "() => app.graph.nodes.filter(n => !n.isVirtualNode && !n.constructor.nodeData).map(n => n.type)"
PICTURES = """() => app.graph.nodes.filter(n => n.type === 'SaveImage')
  .map(n => (n.imgs ?? []).filter(i => i.complete && i.naturalWidth > 0).length)"""
ALL_SHOWN = f"() => ({PICTURES})().every(count => count > 0)"
IS_OPEN = """name => app.extensionManager.workflow.activeWorkflow?.filename === name
  && app.graph.nodes.some(node => node.type.startsWith('Snoopi'))"""


def browse_templates(page: Page) -> None:
    """Open the template browser at this pack's section and wait for its thumbnails."""
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(FOLDER, exact=True).click()
    for name in TEMPLATES:
        card = f'[data-testid="template-workflow-{name}"] img'
        page.wait_for_function("card => document.querySelector(card)?.naturalWidth > 0", arg=card)


def test_there_are_templates() -> None:
    assert len(TEMPLATES) >= 2


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_opens_runs_and_shows_its_pictures(server: Server, screenshots: Path, name: str) -> None:
    with front_end(server.client, size=(1920, 1080)) as page:
        browse_templates(page)
        screenshot(page, screenshots / "template_browser.png")
        page.get_by_test_id(f"template-workflow-{name}").click()
        page.wait_for_function(IS_OPEN, arg=name)
        assert page.evaluate(UNKNOWN_NODES) == []

        page.get_by_test_id("queue-button").click()
        page.wait_for_function(ALL_SHOWN)
        page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        page.wait_for_timeout(3000)  # the canvas draws on the next frames, and "Job queued" goes away
        picture = screenshot(page, screenshots / f"{name}.png")
        assert page.evaluate("() => app.canvas.ds.scale") >= MIN_ZOOM, f"too small to read, see {picture}"
