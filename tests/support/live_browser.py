"""A real headless Chromium with ComfyUI's real front end in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from live_client import Client
from playwright.sync_api import Browser, Page, Route, sync_playwright

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
# Disables what covers the graph on a first visit.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Minimap.Visible": False,
}
# Shows a graph of one node, near the corner of the view.
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
# Returns pairs of nodes that overlap, with title bars. In Nodes 2.0, nodes are elements of the page.
OVERLAPS = """() => {
  const drawn = n => document.querySelector(`[data-node-id="${n.id}"]`)?.getBoundingClientRect();
  const given = n => ({
    left: n.pos[0], right: n.pos[0] + (n.flags.collapsed ? 0 : n.size[0]),
    top: n.pos[1] - LiteGraph.NODE_TITLE_HEIGHT, bottom: n.pos[1] + (n.flags.collapsed ? 0 : n.size[1]),
  });
  return [app.graph, ...app.graph.subgraphs.values()].flatMap(graph => {
    const boxes = graph.nodes.map(n => [n.title, drawn(n) ?? given(n)]);
    return boxes.flatMap(([name, a], i) => boxes.slice(i + 1)
      .filter(([, b]) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
      .map(([other]) => [name, other]));
  });
}"""
# What a run adds to nodes, in subgraphs too: a preview on each sampler, and NASA Apply's text.
GROW = """async () => {
  const api = comfyAPI.api.api, picture = new OffscreenCanvas(512, 512);
  picture.getContext('2d').fillRect(0, 0, 512, 512);
  const blob = await picture.convertToBlob();
  const all = (graph, before) => graph.nodes.flatMap(
    node => node.subgraph ? all(node.subgraph, `${before}${node.id}:`) : [[node, `${before}${node.id}`]]);
  for (const [node, id] of all(app.graph, '')) {
    if (!/Sampler(Advanced|CustomAdvanced)?$|SnoopiNASAApply/.test(node.type)) continue;
    api.dispatchCustomEvent('executing', id);
    if (node.type === 'SnoopiNASAApply')
      api.dispatchCustomEvent('snoopi.node_text',
        {kind: 'text', text: 'a text of two lines '.repeat(3), node: id, source: id});
    else api.dispatchCustomEvent('b_preview_with_metadata', {blob, nodeId: id, displayNodeId: id, parentNodeId: id,
      realNodeId: id, promptId: 'x', jobId: 'x'});
    for (let frame = 0; frame < 10; frame++) await new Promise(requestAnimationFrame);
  }
  api.dispatchCustomEvent('executing', null);
}"""
# True once workflows are restored and the default graph is loaded; until then the front end shows a spinner.
READY = "() => window.app?.extensionManager?.spinner === false && app.graph.nodes.length > 0"
# Redraws the canvas now, and waits until the browser has shown it.
DRAW = """() => {
  app.canvas.draw(true, true);
  return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""
# The view moves briefly after a command: waits until it is unchanged for ten frames; returns the zoom.
STILL = """() => new Promise(done => {
  let last = null, frames = 0;
  const look = () => {
    const view = app.canvas.ds, now = [view.scale, ...view.offset].join();
    frames = now === last ? frames + 1 : 0;
    last = now;
    frames < 10 ? requestAnimationFrame(look) : done(view.scale);
  };
  requestAnimationFrame(look);
})"""
# Where the title bar of the first node of a type is on the page.
TITLE_BAR = """type => {
  const node = app.graph.nodes.find(node => node.type === type), view = app.canvas.ds;
  const canvas = app.canvas.canvas.getBoundingClientRect();
  return [canvas.x + (node.pos[0] + 60 + view.offset[0]) * view.scale,
          canvas.y + (node.pos[1] - 15 + view.offset[1]) * view.scale];
}"""
# Counts runs, and collects toasts, which are only shown for some seconds.
WATCH = """() => {
  const toast = app.extensionManager.toast, add = toast.add, isWatched = 'toasts' in window;
  window.ended = 0;
  window.toasts = [];
  if (isWatched) return;
  comfyAPI.api.api.addEventListener('execution_success', () => window.ended++);
  comfyAPI.api.api.addEventListener('promptQueued', () => window.queued++);
  toast.add = message => { window.toasts.push(message.detail); add(message); };
  const {error} = toast; // in newer front ends
  if (error) toast.error = (...given) => { window.toasts.push(given[1]?.description); return error(...given); };
}"""
# A run of one node that says something; this page did not queue it.
RUN = """message => {
  for (const [event, detail] of [['execution_start', {prompt_id: 'of another page'}], ['executing', message.source],
      ['snoopi.node_text', message], ['executing', null]])
    comfyAPI.api.api.dispatchCustomEvent(event, detail);
}"""
HANG = 300_000  # ms; longer than any wait on a busy machine


def find_chromium() -> str:
    """The browser's path; ``make test`` installs one when there is none."""
    given = os.environ.get("SNOOPI_CHROMIUM")
    found = given or next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise RuntimeError("No Chromium found: apt-get install chromium, or set SNOOPI_CHROMIUM to its path.")
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser. While it is open, asyncio.run fails in this thread: Playwright's event loop counts as running."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def new_page(browser: Browser, width: int = 1280, height: int = 720) -> Page:
    """A page without a server, whose waits end for a hanging browser only."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(HANG)
    return page


@contextmanager
def open_front_end(
    browser: Browser, client: Client, size: tuple[int, int] = (1600, 1000), static: Path | None = None
) -> Iterator[Page]:
    """Open the front end of ``client``'s server in a separate browser context, and wait until it is ready.

    ``static`` is the folder of another front end, which then takes the place of the server's.
    """
    for name, value in SETTINGS.items():
        client.post(f"/settings/{name}", value)
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    if static:
        # Else Chromium keeps the server's websocket from it: a page that is answered here is not of this machine.
        context.grant_permissions(["local-network-access"], origin=client.url)

        def answer(route: Route) -> None:
            file = static / (urlsplit(route.request.url).path.lstrip("/") or "index.html")
            route.fulfill(path=file) if file.is_file() else route.continue_()

        context.route(f"{client.url}/**", answer)
    try:
        page = context.new_page()
        page.set_default_timeout(HANG)
        page.goto(client.url)
        page.wait_for_function(READY)
        page.evaluate(STILL)
        yield page
    finally:
        context.close()


@contextmanager
def front_end(client: Client, size: tuple[int, int] = (1600, 1000)) -> Iterator[Page]:
    """Like ``open_front_end``, with its own browser."""
    with chromium() as browser, open_front_end(browser, client, size) as page:
        yield page


def place(page: Page, node: str) -> None:
    """Replace the graph by only this node, drawn at its default size."""
    page.evaluate(PLACE, node)
    page.evaluate(DRAW)
    # The canvas finds only nodes that are already drawn.
    page.wait_for_function("type => app.canvas.visible_nodes?.some(node => node.type === type)", arg=node)


def open_help(page: Page, node: str) -> None:
    """Open a placed node's help as users do: click its title bar, then the Node Info button over it.

    A click that comes while the front end is still busy with its start is rarely lost; then, as users do, click again.

    Raises:
        RuntimeError: five clicks, each on a view that had come to rest, showed no button.
    """
    button = page.get_by_test_id("info-button")
    for attempt in range(5):
        page.evaluate(STILL)
        x, y = page.evaluate(TITLE_BAR, node)
        page.mouse.click(x + 20 * attempt, y)  # a second click on the same spot could be a double click
        page.evaluate(STILL)
        if button.is_visible():
            return button.click()
    raise RuntimeError(f"no Node Info button after five clicks on {node}; graph: {graph(page)}")


def show_all(page: Page) -> float:
    """Fit the whole graph into view; returns the zoom."""
    page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    zoom = page.evaluate(STILL)
    page.evaluate(DRAW)
    return zoom


def screenshot(page: Page, path: Path) -> Path:
    """Save a screenshot of the whole window."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(path))
    return path


def graph(page: Page) -> dict[str, Any]:
    """The graph on the canvas, in the UI's file format."""
    return page.evaluate("() => window.app.graph.serialize()")
