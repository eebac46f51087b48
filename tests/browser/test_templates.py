"""Every template, as a person meets it: opened in the real front end, run by its Run button, its pictures looked at.

The screenshots are kept in out/screenshots.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_browser import front_end, screenshot
from live_pack import FOLDER, ROOT
from live_server import Server
from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
SCREENSHOTS = ROOT / "out" / "screenshots"
MIN_ZOOM = 0.6  # below this the front end stops drawing the nodes' text

NODES_WITH_PICTURES = """
() => app.graph.nodes.filter(n => ['SaveImage', 'PreviewImage'].includes(n.type)).map(n => ({
  title: n.title,
  pictures: (n.imgs ?? []).filter(i => i.complete && i.naturalWidth > 0).length,
}))
"""
# A type that the server does not offer is drawn as an empty box.
UNKNOWN_NODES = "() => app.graph.nodes.filter(n => !n.isVirtualNode && !n.constructor.nodeData).map(n => n.type)"
ALL_SHOWN = f"() => ({NODES_WITH_PICTURES})().every(node => node.pictures > 0)"


@pytest.fixture(scope="module")
def server(host_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(host_path, tmp_path_factory.mktemp("browser")) as running:
        yield running


def open_template(page: Page, name: str) -> None:
    """Wait until the template named in the page's address is the graph on the canvas."""
    page.wait_for_function("name => app.extensionManager.workflow.activeWorkflow?.filename === name", arg=name)
    page.wait_for_function("() => app.graph.nodes.some(node => node.type.startsWith('Snoopi'))")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_opens_runs_and_shows_its_pictures(server: Server, template: Path) -> None:
    with front_end(server.client, f"/?template={template.stem}&source={FOLDER}", size=(1920, 1080)) as page:
        open_template(page, template.stem)
        assert page.evaluate(UNKNOWN_NODES) == []
        page.get_by_test_id("queue-button").click()
        page.wait_for_function(ALL_SHOWN)
        page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        page.wait_for_timeout(1000)  # the canvas draws on the next frames
        picture = screenshot(page, SCREENSHOTS / f"{template.stem}.png")
        assert page.evaluate("() => app.canvas.ds.scale") >= MIN_ZOOM, f"too small to read, see {picture}"
