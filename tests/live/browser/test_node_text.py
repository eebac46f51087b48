"""What nodes show after a run: NASA Apply's alpha, warnings and errors, in both renderers and in a newer front end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from effort import some
from live_browser import DRAW, LOAD, OVERLAPS, RUN, STILL, WATCH, graph, open_front_end, place, screenshot, show_all
from live_server import Server
from playwright.sync_api import Browser, Page, expect
from soak_cases import slow
from templates import FIRST, FOLDER, SWEEP

from scripts.setup.front_end import oldest_front_end
from scripts.workflows.bundled import ALPHA, STUDENT

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

TEMPLATE = (FOLDER / f"{FIRST}.json").read_text(encoding="utf-8")
RENDERERS = {"classic": False, "nodes_2": True}
NOT_THERE = (
    'ckpt_name: "gone.safetensors" is not in the list. Choose another, or copy the file into ComfyUI\'s '
    "models/checkpoints and press R"
)
# Nodes may be in subgraphs.
FIND = """const find = (type, graph = app.graph) => graph.nodes.map(
  node => node.type === type ? node : node.subgraph && find(type, node.subgraph)).find(Boolean);
const textOf = node => node?.widgets?.find(w => w.name === 'snoopi_text')?.element;
const lines = node => [...(textOf(node)?.children ?? [])].map(line => line.textContent);"""
SET = f"([type, name, value]) => {{ {FIND} find(type).widgets.find(w => w.name === name).value = value; }}"
SHOWN = f"expected => {{ {FIND} return JSON.stringify(lines(find('SnoopiNASAApply'))) === JSON.stringify(expected); }}"
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
# Saves the open tab as a file, closes it, and opens the file again; returns its path.
REOPEN = """async () => {
  const {workflow, command} = app.extensionManager, tab = workflow.activeWorkflow;
  await workflow.saveWorkflow(tab);
  await command.execute('Workspace.CloseWorkflow');
  await tab.load();
  await app.loadGraphData(tab.activeState, true, true, tab);
  return tab.path;
}"""
OPEN = "path => app.extensionManager.workflow.activeWorkflow?.path === path"
FORMER_TAB = "() => app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')"
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
            expect(page.get_by_text(text)).to_have_count(0)
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


def test_a_run_of_another_workflow_takes_nothing_away(page: Page) -> None:
    """Two workflows have nodes of the same numbers, and the event that a node runs names no workflow."""
    page.evaluate(LOAD, TEMPLATE)
    here = graph(page)
    (number,) = (str(node["id"]) for node in here["nodes"] if node["type"] == "SnoopiNASAApply")
    text = {"kind": "text", "node": number, "source": number}
    page.evaluate(RUN, {**text, "text": "Said here.", "workflow": here["id"]})
    page.wait_for_function(SHOWN, arg=["Said here."])
    page.evaluate(RUN, {**text, "text": "Said there.", "workflow": "another"})
    page.evaluate(DRAW)
    assert page.evaluate(SHOWN, ["Said here."])
    page.evaluate(RUN, {**text, "text": "Said anew.", "workflow": here["id"]})
    page.wait_for_function(SHOWN, arg=["Said anew."])


def queue_in_two_tabs(page: Page, server: Server, answered: bool = False) -> None:
    """They have the same id; both are queued before the first runs. The second tab is opened while the first one's
    prompt is sent, or after the front end has said that it is queued (`answered`)."""
    page.evaluate(WATCH)
    busy = server.client.queue_until(slow(), "progress")
    for mode in ("as set", "auto"):
        page.evaluate(LOAD, TEMPLATE)
        page.wait_for_function(SHOWN, arg=[])
        for name, value in (("alpha", 0), ("alpha_mode", mode)):
            page.evaluate(SET, ["SnoopiNASAApply", name, value])
        queued = len(server.client.get_json("/queue")["queue_pending"])
        page.evaluate("() => { window.queued = 0; }")
        page.get_by_test_id("queue-button").click()
        while len(server.client.get_json("/queue")["queue_pending"]) == queued:
            page.evaluate(DRAW)
        if answered:
            page.wait_for_function("() => window.queued === 1")
    server.client.post("/interrupt", {"prompt_id": busy})
    page.wait_for_function("() => window.ended === 2")
    page.wait_for_function(SHOWN, arg=[f"alpha {ALPHA:g}, from the model's file"])
    page.evaluate(FORMER_TAB)
    page.wait_for_function(SHOWN, arg=["does nothing: alpha is 0"])


def test_two_tabs_of_a_template_have_texts_of_their_own(page: Page, server: Server) -> None:
    queue_in_two_tabs(page, server)


@pytest.mark.full
def test_the_same_in_the_oldest_front_end(browser: Browser, server: Server) -> None:
    """It does not say when it begins to send a prompt."""
    with open_front_end(browser, server.client, static=oldest_front_end()) as page:
        queue_in_two_tabs(page, server, answered=True)


@pytest.mark.full
def test_the_same_in_the_newest_front_end(browser: Browser, newest: Server) -> None:
    with opened(browser, newest, "classic") as page:
        queue_in_two_tabs(page, newest)


def test_closing_a_tab_forgets_its_texts(page: Page) -> None:
    page.evaluate(WATCH)
    page.evaluate(LOAD, TEMPLATE)
    run_with(page, ["does nothing: alpha is 0"], alpha=0)
    path = page.evaluate(REOPEN)
    try:
        page.wait_for_function(OPEN, arg=path)
        page.evaluate(STILL)
        assert page.evaluate(SHOWN, [])
    finally:
        page.evaluate("path => comfyAPI.api.api.deleteUserData(path)", path)


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
