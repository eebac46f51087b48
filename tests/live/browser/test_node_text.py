"""What NASA Apply shows on itself: it changes with each run, and covers no other node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_browser import LOAD, OVERLAPS, graph, open_front_end, place, screenshot, show_all
from live_server import Server
from playwright.sync_api import Browser, Page
from templates import FOLDER

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

SET = """([name, value]) => {
  app.graph.nodes.find(n => n.type === 'SnoopiNASAApply').widgets.find(w => w.name === name).value = value;
}"""
SHOWN = """text => app.graph.nodes.find(n => n.type === 'SnoopiNASAApply').widgets.some(w => w.value === text)"""


@pytest.fixture(scope="module")
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with open_front_end(browser, server.client, size=(1920, 1080)) as opened:
        yield opened


def run_with(page: Page, name: str, value: object, text: str) -> None:
    page.evaluate(SET, [name, value])
    page.get_by_test_id("queue-button").click()
    page.wait_for_function(SHOWN, arg=text)


def test_the_text_is_that_of_the_last_run(page: Page, screenshots: Path) -> None:
    page.evaluate(LOAD, (FOLDER / "one_step_with_negative_prompt.json").read_text(encoding="utf-8"))
    run_with(page, "alpha", 0, "does nothing: alpha is 0")
    run_with(page, "alpha_mode", "auto", "alpha 1, measured for this file")
    show_all(page)
    assert page.evaluate(OVERLAPS) == []
    screenshot(page, screenshots / "alpha_auto.png")
    page.evaluate(SET, ["alpha", 0.5])
    run_with(page, "alpha_mode", "as set", "alpha 0.5, as set; its file recommends 1")


@pytest.mark.parametrize("node", ["SnoopiNASAScaleSweep", "SnoopiNASAInspect"])
def test_a_node_with_a_picture_begins_wide_enough_for_it(page: Page, screenshots: Path, node: str) -> None:
    place(page, node)
    screenshot(page, screenshots / f"new_{node}.png")
    assert graph(page)["nodes"][0]["size"][0] >= 500
    # But one that was saved keeps the size that it has in its file.
    page.evaluate(LOAD, (FOLDER / "alpha_sweep.json").read_text(encoding="utf-8"))
    sizes = {saved["type"]: saved["size"] for saved in graph(page)["nodes"]}
    assert sizes["SnoopiNASAScaleSweep"] == [620, 900]
