"""A real headless Chromium with ComfyUI's real front end in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from live_client import Client
from playwright.sync_api import Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# No sandbox, since CI runs as root; the rest keeps Chromium quiet and off the network.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Off: what covers the graph on a first visit.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Minimap.Visible": False,
}
# A graph of one node alone, near the corner of the view.
PLACE = """type => {
  app.graph.clear();
  const node = LiteGraph.createNode(type), view = app.canvas.ds;
  node.pos = [300, 200];
  app.graph.add(node);
  view.scale = 1;
  view.offset[0] = view.offset[1] = 0;
  app.graph.setDirtyCanvas(true, true);
}"""
# Loads a graph in the UI's file format.
LOAD = "async text => { await app.loadGraphData(JSON.parse(text)); }"
# Pairs of nodes whose boxes, with their title bars, lie over each other. In Nodes 2.0 they are elements of the page.
OVERLAPS = """() => {
  const drawn = n => document.querySelector(`[data-node-id="${n.id}"]`)?.getBoundingClientRect();
  const given = n => ({
    left: n.pos[0], right: n.pos[0] + (n.flags.collapsed ? 0 : n.size[0]),
    top: n.pos[1] - LiteGraph.NODE_TITLE_HEIGHT, bottom: n.pos[1] + (n.flags.collapsed ? 0 : n.size[1]),
  });
  const boxes = app.graph.nodes.map(n => [n.title, drawn(n) ?? given(n)]);
  return boxes.flatMap(([name, a], i) => boxes.slice(i + 1)
    .filter(([, b]) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
    .map(([other]) => [name, other]));
}"""
READY = "() => window.app?.graph && document.querySelector('#graph-canvas, canvas.graph-canvas-container, canvas')"


def find_chromium() -> str:
    """The browser's path; ``make test`` installs one when there is none."""
    given = os.environ.get("SNOOPI_CHROMIUM")
    found = given or next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise RuntimeError("No Chromium found: apt-get install chromium, or set SNOOPI_CHROMIUM to its path.")
    return found


@contextmanager
def front_end(client: Client, path: str = "/", size: tuple[int, int] = (1600, 1000)) -> Iterator[Page]:
    """The front end of ``client``'s server, opened at ``path`` and ready."""
    for name, value in SETTINGS.items():
        client.post(f"/settings/{name}", value)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory(prefix="snoopi-chromium-") as profile:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=find_chromium(),
            headless=True,
            args=FLAGS,
            viewport={"width": size[0], "height": size[1]},
        )
        try:
            page = context.pages[0] if context.pages else context.new_page()
            page.set_default_timeout(60_000)
            page.goto(client.url + path)
            page.wait_for_function(READY)
            yield page
        finally:
            context.close()


def place(page: Page, node: str) -> None:
    """A graph of this node alone, drawn at its own size."""
    for _ in range(10):
        page.evaluate(PLACE, node)
        page.wait_for_timeout(500)
        # The front end may still have been loading the graph that it begins with.
        if [found["type"] for found in graph(page)["nodes"]] == [node]:
            return
    raise RuntimeError(f"{node} does not stay in the graph: {graph(page)['nodes']}")


def show_all(page: Page) -> float:
    """Bring the whole graph into view; gives the zoom that this takes."""
    page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(1500)  # the canvas draws on the next frames
    return page.evaluate("() => app.canvas.ds.scale")


def screenshot(page: Page, path: Path) -> Path:
    """Keep a picture of the whole window."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(path))
    return path


def graph(page: Page) -> dict[str, Any]:
    """The graph on the canvas, in the UI's file format."""
    return page.evaluate("() => window.app.graph.serialize()")
