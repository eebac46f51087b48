"""A user's path by mouse and keyboard: open a template, press Run, change the negative, Run again, see the change."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from live_browser import DRAW, STILL, graph, open_front_end, screenshot
from live_server import Server
from live_templates import choose_template
from PIL import Image
from playwright.sync_api import Browser, Page
from templates import FIRST

from scripts.workflows.bundled import NEGATIVE, PROMPT

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

RESULT = """() => {
  const node = app.graph.nodes.find(n => n.type === 'SaveImage');
  const images = (node?.imgs ?? []).filter(i => i.complete && i.naturalWidth > 0);
  return images.length === 4 ? images[0].src : null;
}"""
# Where the node's body is on the page, below its title bar.
BOX = """() => {
  const node = app.graph.nodes.find(n => n.type === 'SaveImage'), view = app.canvas.ds;
  const canvas = app.canvas.canvas.getBoundingClientRect();
  const at = (x, y) => [canvas.x + (x + view.offset[0]) * view.scale, canvas.y + (y + view.offset[1]) * view.scale];
  const [x, y] = at(...node.pos), [right, bottom] = at(node.pos[0] + node.size[0], node.pos[1] + node.size[1]);
  return {x, y, width: right - x, height: bottom - y};
}"""


# The middle of the box that has this text.
TEXT_BOX = """text => {
  const box = [...document.querySelectorAll('textarea')].find(b => b.value === text)?.getBoundingClientRect();
  return box && [box.x + box.width / 2, box.y + box.height / 2];
}"""
ANOTHER = "a hat"  # another negative
CLEARLY = 40  # of 255, in any colour


def press_run(page: Page, before: str | None) -> str:
    """Click Run and wait until the node shows another result than before; gives its address."""
    page.get_by_test_id("queue-button").click()
    another = f"before => {{ const now = ({RESULT})(); return now !== before && now; }}"
    return page.wait_for_function(another, arg=before).json_value()


def seen(page: Page) -> np.ndarray:
    """What the node looks like on the screen: (H, W, 3)."""
    page.evaluate(DRAW)
    picture = Image.open(io.BytesIO(page.screenshot(clip=page.evaluate(BOX)))).convert("RGB")
    return np.asarray(picture, dtype=int)


def test_a_user_changes_the_negative_and_sees_the_picture_change(
    browser: Browser, any_front_end: Server, front_end_name: str, screenshots: Path
) -> None:
    with open_front_end(browser, any_front_end.client, size=(1920, 1080)) as page:
        page.get_by_role("button", name="Templates").click()
        choose_template(page, FIRST)
        page.wait_for_function(TEXT_BOX, arg=NEGATIVE)

        first = press_run(page, None)
        page.evaluate(STILL)
        before = seen(page)
        screenshot(page, screenshots / f"path_1_first_run_{front_end_name}.png")

        page.mouse.click(*page.evaluate(TEXT_BOX, NEGATIVE))
        page.wait_for_function("text => document.activeElement.value === text", arg=NEGATIVE)
        page.keyboard.press("Control+A")
        page.keyboard.type(ANOTHER)
        press_run(page, first)
        after = seen(page)
        screenshot(page, screenshots / f"path_2_another_negative_{front_end_name}.png")

        written = [n["widgets_values"] for n in graph(page)["nodes"] if n["type"] == "CLIPTextEncode"]
    assert written == [[PROMPT], [ANOTHER]], "nothing else was changed"
    changed = (np.abs(after - before).max(axis=-1) > CLEARLY).mean()
    print(f"{changed:.1%} of the node's points changed with the negative")
    assert changed > 0.02
