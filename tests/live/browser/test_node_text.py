"""What nodes show after a run: NASA Apply's alpha, warnings and errors, in both renderers and in a newer front end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from effort import some
from live_browser import LOAD, OVERLAPS, RUN, WATCH, graph, open_front_end, place, screenshot, show_all
from live_server import Server
from node_texts import FIND, RENDERERS, SET, SHOWN, TEMPLATE, opened, run_with
from playwright.sync_api import Browser, Page, expect
from templates import FOLDER, SWEEP

from scripts.setup.front_end import oldest_front_end
from scripts.workflows.bundled import ALPHA, STUDENT

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

NOT_THERE = (
    'ckpt_name: "gone.safetensors" is not in the list. Choose another, or copy the file into ComfyUI\'s '
    "models/checkpoints and press R"
)
SHOWN_OUTSIDE = f"() => {{ {FIND} return lines(app.graph.nodes.find(node => node.subgraph)); }}"
# By how many pixels the text reaches out of its node, is wider than it, or is too low to be read.
MISPLACED = f"""() => {{ {FIND}
  const node = find('SnoopiNASAApply'), element = textOf(node), text = element.getBoundingClientRect();
  const view = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect();
  const x = n => canvas.x + (n + view.offset[0]) * view.scale, y = n => canvas.y + (n + view.offset[1]) * view.scale;
  const box = document.querySelector(`[data-node-id="${{node.id}}"]`)?.getBoundingClientRect() ?? {{
    left: x(node.pos[0]), right: x(node.pos[0] + node.size[0]), bottom: y(node.pos[1] + node.size[1]) }};
  return Math.max(box.left - text.left, text.right - box.right, text.bottom - box.bottom, 8 - text.height,
    element.scrollWidth - element.clientWidth);
}}"""
# Loads a graph into the open tab, as undo does.
UNDO = "saved => app.loadGraphData(saved, true, true, app.extensionManager.workflow.activeWorkflow)"
TO_SUBGRAPH = f"() => {{ {FIND} app.graph.convertToSubgraph(new Set([find('SnoopiNASAApply')])); }}"
# Whether NASA Scale Sweep shows a picture and a text; by how many pixels the text's room is higher than the text.
SWEPT = f"() => {{ {FIND} const node = find('SnoopiNASAScaleSweep'); return node.imgs?.length && lines(node).length; }}"
TEXT_ROOM = f"""() => {{ {FIND}
  const text = find('SnoopiNASAScaleSweep').widgets.find(w => w.name === 'snoopi_text');
  return text.computedHeight - text.options.getMinHeight();
}}"""
INPUTS = """async () => Object.values((await app.graphToPrompt()).output)
  .filter(n => n.class_type === 'SnoopiNASAApply').map(n => Object.keys(n.inputs).sort())[0]"""


def too_high(alpha: float) -> list[str]:
    """What NASA Apply shows with the bundled student and an alpha of 3 and more."""
    warning = f"alpha is {alpha:g}, but this model's own is {ALPHA:g}: from about three times that, pictures break. "
    warning += "Lower it, or compare strengths with NASA Scale Sweep"
    return [warning, f"alpha {alpha:g}, as set; its file recommends {ALPHA:g}"]


def look(page: Page, picture: Path) -> None:
    show_all(page)
    screenshot(page, picture)
    assert page.evaluate(MISPLACED) <= 1, f"the text is not inside its node, see {picture}"
    assert page.evaluate(OVERLAPS) == [], f"see {picture}"


def follow(page: Page, pictures: Path) -> None:
    """What a user does who changes alpha and looks at NASA Apply; at the end it is in a subgraph."""
    page.evaluate(WATCH)
    page.evaluate(LOAD, TEMPLATE)
    inputs = page.evaluate(INPUTS)
    run_with(page, ["does nothing: alpha is 0"], alpha=0, seed=1)
    run_with(page, [f"alpha {ALPHA:g}, from the model's file"], alpha_mode="auto")
    look(page, pictures / "auto.png")
    run_with(page, too_high(4), alpha_mode="as set", alpha=4)
    look(page, pictures / "too_high.png")
    run_with(page, too_high(4), seed=2)  # ComfyUI does not run NASA Apply again
    saved = graph(page)
    assert "pictures break" not in str(saved) and page.evaluate(INPUTS) == inputs
    page.evaluate(UNDO, saved)
    page.wait_for_function(SHOWN, arg=too_high(4))

    (number,) = (node["id"] for node in saved["nodes"] if node["type"] == "SnoopiNASAApply")
    message = {"kind": "warning", "node": str(number), "source": "98", "workflow": saved["id"]}
    page.evaluate(RUN, {**message, "text": "long" * 40, "source": "99"})
    page.wait_for_function(SHOWN, arg=[too_high(4)[0], "long" * 40, too_high(4)[1]])
    look(page, pictures / "long_word.png")
    page.evaluate(RUN, {**message, "text": "Said in a workflow that is not open.", "workflow": "another"})
    page.evaluate(RUN, {**message, "text": "Said about a node that is not ours.", "node": "99"})
    for text in ("Said in a workflow that is not open.", "Said about a node that is not ours."):
        page.get_by_text(text).first.wait_for()

    # What a sampler that is gone said about other settings goes too.
    run_with(page, [f"alpha 0.5, as set; its file recommends {ALPHA:g}"], alpha=0.5)
    page.evaluate(TO_SUBGRAPH)
    run_with(page, too_high(3.5), alpha=3.5)
    show_all(page)
    screenshot(page, pictures / "subgraph.png")


@pytest.mark.parametrize("renderer", some([*RENDERERS], 1))
def test_what_nasa_apply_shows(browser: Browser, server: Server, screenshots: Path, renderer: str) -> None:
    with opened(browser, server, renderer) as page:
        follow(page, screenshots / "node_text" / renderer)
        # Subgraph nodes of this front end show no text of ours.
        page.wait_for_function("text => window.toasts.includes(text)", arg=f"NASA Apply: {too_high(3.5)[0]}")


@pytest.mark.full
@pytest.mark.parametrize("renderer", RENDERERS)
def test_what_it_shows_in_the_newest_front_end(
    browser: Browser, newest: Server, screenshots: Path, renderer: str
) -> None:
    with opened(browser, newest, renderer) as page:
        follow(page, screenshots / "node_text" / f"newest_{renderer}")
        warning, text = too_high(3.5)
        assert page.evaluate(SHOWN_OUTSIDE) == [f"NASA Apply: {warning}", text]


@pytest.fixture(scope="module")
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with open_front_end(browser, server.client, size=(1920, 1080)) as opened:
        yield opened


def fail(page: Page, picture: Path, clears: bool = True) -> None:
    """What a user does who types something wrong: an error while the prompt is checked, and one while a node runs.
    Queueing anew takes the toast of the last error away, but not in the oldest front end."""
    page.evaluate(WATCH)
    page.evaluate(LOAD, TEMPLATE)
    mended: list[str] = []
    for node, name, wrong, right, sentence in (
        ("SnoopiOneStepSampler", "timesteps", "ten", "auto", "'ten' is not a whole number"),
        ("SnoopiNASAApply", "blocks", "nowhere", "all", "'nowhere'"),
        ("SnoopiPGSBLoader", "ckpt_name", "gone.safetensors", STUDENT, NOT_THERE),
    ):
        page.evaluate(SET, [node, name, wrong])
        page.get_by_test_id("queue-button").click()
        page.wait_for_function("text => window.toasts.some(toast => toast?.includes(text))", arg=sentence)
        page.get_by_text(sentence).last.wait_for()
        for text in mended if clears else ():
            expect(page.get_by_text(text)).to_have_count(0, timeout=20_000)  # by itself it goes after 30 s
        mended.append(sentence)
        page.keyboard.press("Escape")  # closes the dialog that older front ends show as well
        page.evaluate(SET, [node, name, right])
    screenshot(page, picture)
    assert len([text for text in page.evaluate("() => window.toasts") if text and "'ten'" in text]) == 1


def test_errors_are_shown_in_our_own_words(page: Page, screenshots: Path) -> None:
    fail(page, screenshots / "errors.png")


@pytest.mark.full
def test_errors_are_shown_in_the_oldest_front_end(browser: Browser, server: Server, screenshots: Path) -> None:
    with open_front_end(browser, server.client, size=(1920, 1080), static=oldest_front_end()) as page:
        fail(page, screenshots / "errors_oldest.png", clears=False)


@pytest.mark.full
def test_errors_are_shown_in_the_newest_front_end(browser: Browser, newest: Server, screenshots: Path) -> None:
    with opened(browser, newest, "classic") as page:
        fail(page, screenshots / "errors_newest.png")


@pytest.mark.full
def test_a_text_takes_no_room_from_the_picture_below_it(page: Page, screenshots: Path) -> None:
    page.evaluate(LOAD, (FOLDER / f"{SWEEP}.json").read_text(encoding="utf-8"))
    page.get_by_test_id("queue-button").click()
    page.wait_for_function(SWEPT)
    show_all(page)
    screenshot(page, screenshots / "text_above_a_picture.png")
    assert page.evaluate(TEXT_ROOM) <= 1


@pytest.mark.parametrize("node", ["SnoopiNASAScaleSweep", "SnoopiNASAInspect"])
def test_a_node_with_a_picture_begins_wide_enough_for_it(page: Page, screenshots: Path, node: str) -> None:
    place(page, node)
    screenshot(page, screenshots / f"new_{node}.png")
    assert graph(page)["nodes"][0]["size"][0] >= 500
    # But one that was saved keeps the size that it has in its file.
    template = (FOLDER / f"{SWEEP}.json").read_text(encoding="utf-8")
    page.evaluate(LOAD, template)
    saved, shown = (
        {node["type"]: node["size"] for node in each["nodes"]} for each in (json.loads(template), graph(page))
    )
    assert shown["SnoopiNASAScaleSweep"] == saved["SnoopiNASAScaleSweep"]
