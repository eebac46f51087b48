"""Each tab of ComfyUI's front end shows the texts of its own runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest
from live_browser import DRAW, LOAD, READY, RUN, STILL, WATCH, graph, open_front_end
from live_server import Server
from node_texts import FIND, SET, SHOWN, TEMPLATE, opened, run_with
from playwright.sync_api import Browser, Page
from soak_cases import slow

from scripts.setup.front_end import oldest_front_end
from scripts.workflows.bundled import ALPHA

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

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
BYPASS = f"() => {{ {FIND} find('SnoopiNASAApply').mode = 4; }}"
UNPLUG = f"""() => {{ {FIND}
  const sampler = find('SnoopiOneStepSampler');
  find('SnoopiPGSBLoader').connect(0, sampler, sampler.inputs.findIndex(input => input.name === 'model'));
}}"""
# What a sampler is known to say of files a, b and c: it warned of a and b, and later no more of a.
RECALLED = """async () => {
  const {api} = comfyAPI.api;
  const [path] = (await api.getExtensions()).filter(path => path.endsWith('/cached_texts.js'));
  const {recall, remember} = await import(api.fileURL(path));
  const prompt = name => ({1: {class_type: 'Loader', inputs: {name}}, 2: {class_type: 'X', inputs: {model: ['1', 0]}}});
  for (const name of ['a', 'b']) remember(prompt(name), '2', [name]);
  remember(prompt('a'), '2', []);
  return ['a', 'b', 'c'].map(name => recall(prompt(name), '2'));
}"""
# A run of one node that says nothing.
QUICK = """node => {
  for (const [event, detail] of [['execution_start', {prompt_id: 'quick'}], ['executing', node], ['executing', null]])
    comfyAPI.api.api.dispatchCustomEvent(event, detail);
}"""


@pytest.fixture(scope="module")
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with open_front_end(browser, server.client) as opened:
        yield opened


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


def test_a_run_that_is_over_at_once_takes_its_warnings_away(page: Page) -> None:
    """Before the queue was asked whose it is; and it says nothing."""
    page.evaluate(LOAD, TEMPLATE)
    here = graph(page)
    (number,) = (str(node["id"]) for node in here["nodes"] if node["type"] == "SnoopiNASAApply")
    warning = {"kind": "warning", "text": "Mended soon.", "node": number, "source": "98", "workflow": here["id"]}
    page.evaluate(RUN, warning)
    page.wait_for_function(SHOWN, arg=["Mended soon."])
    page.evaluate(QUICK, "98")
    page.wait_for_function(SHOWN, arg=[])


@pytest.mark.full
def test_prompts_from_before_a_reload_go_to_their_own_tab(browser: Browser, server: Server) -> None:
    """They are still in the queue when the page queues another from another tab."""
    with open_front_end(browser, server.client) as page:
        item = [0, "of another page", {}, {"client_id": page.evaluate("() => comfyAPI.api.api.clientId")}, []]
        queue = {"queue_running": [], "queue_pending": [item]}
        page.route("**/api/queue", lambda route: route.fulfill(json=queue))
        page.reload()
        page.wait_for_function(READY)
        page.evaluate(LOAD, TEMPLATE)
        here = graph(page)
        page.evaluate(LOAD, json.dumps({**here, "id": str(uuid4())}))
        page.evaluate(STILL)
        with page.expect_response("**/api/queue"):
            page.evaluate("() => comfyAPI.api.api.dispatchCustomEvent('promptQueued', {})")
        page.evaluate(STILL)
        (number,) = (str(node["id"]) for node in here["nodes"] if node["type"] == "SnoopiNASAApply")
        page.evaluate(RUN, {"kind": "text", "text": "Said.", "node": number, "source": number, "workflow": here["id"]})
        page.evaluate(STILL)
        assert page.evaluate(SHOWN, [])
        page.evaluate(FORMER_TAB)
        page.wait_for_function(SHOWN, arg=["Said."])


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


def test_results_from_the_cache_have_the_texts_of_their_own_run(page: Page) -> None:
    """Nothing runs, and nothing is said, when another tab has run the same before."""
    page.evaluate(WATCH)
    shown = {alpha: [f"alpha {alpha}, as set; its file recommends {ALPHA:g}"] for alpha in (0.3, 0.6)}
    page.evaluate(LOAD, TEMPLATE)
    run_with(page, shown[0.6], alpha_mode="as set", alpha=0.6, seed=11)
    page.evaluate(LOAD, TEMPLATE)
    run_with(page, shown[0.3], alpha_mode="as set", alpha=0.3, seed=11)
    page.evaluate(FORMER_TAB)
    page.wait_for_function(SHOWN, arg=shown[0.6])
    run_with(page, shown[0.3], alpha=0.3)


def test_what_was_said_last_with_the_same_inputs_is_known(page: Page) -> None:
    """A file may be another one under its old name."""
    assert page.evaluate(RECALLED) == [[], ["b"], []]


@pytest.mark.parametrize("change", [BYPASS, UNPLUG], ids=["bypass", "unplug"])
def test_a_node_that_does_not_run_says_nothing(page: Page, change: str) -> None:
    page.evaluate(WATCH)
    page.evaluate(LOAD, TEMPLATE)
    run_with(page, ["does nothing: alpha is 0"], alpha_mode="as set", alpha=0)
    page.evaluate(change)
    run_with(page, [])
