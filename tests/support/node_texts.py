"""What nodes of the first template show in a front end: to set their inputs, run it, and see their texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from live_browser import open_front_end
from live_server import Server
from playwright.sync_api import Browser, Page
from templates import FIRST, FOLDER

TEMPLATE = (FOLDER / f"{FIRST}.json").read_text(encoding="utf-8")
RENDERERS = {"classic": False, "nodes_2": True}
# Nodes may be in subgraphs.
FIND = """const find = (type, graph = app.graph) => graph.nodes.map(
  node => node.type === type ? node : node.subgraph && find(type, node.subgraph)).find(Boolean);
const textOf = node => node?.widgets?.find(w => w.name === 'snoopi_text')?.element;
const lines = node => [...(textOf(node)?.children ?? [])].map(line => line.textContent);"""
SET = f"([type, name, value]) => {{ {FIND} find(type).widgets.find(w => w.name === name).value = value; }}"
SHOWN = f"expected => {{ {FIND} return JSON.stringify(lines(find('SnoopiNASAApply'))) === JSON.stringify(expected); }}"


@contextmanager
def opened(browser: Browser, server: Server, renderer: str) -> Iterator[Page]:
    server.client.post("/settings/Comfy.VueNodes.Enabled", RENDERERS[renderer])
    try:
        with open_front_end(browser, server.client, size=(1920, 1080)) as page:
            yield page
    finally:
        server.client.post("/settings/Comfy.VueNodes.Enabled", False)


def run_with(page: Page, shown: list[str], seed: int | None = None, **values: object) -> None:
    """Set NASA Apply's inputs and the sampler's seed, run, and expect NASA Apply to show these lines afterwards."""
    for name, value in values.items():
        page.evaluate(SET, ["SnoopiNASAApply", name, value])
    if seed is not None:
        page.evaluate(SET, ["SnoopiOneStepSampler", "seed", seed])
    ended = page.evaluate("() => window.ended")
    page.get_by_test_id("queue-button").click()
    page.wait_for_function("ended => window.ended > ended", arg=ended)
    page.wait_for_function(SHOWN, arg=shown)
