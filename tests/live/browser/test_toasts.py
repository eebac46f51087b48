"""Toasts of warnings and errors are not repeated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_browser import LOAD, RUN, STILL, WATCH, graph, open_front_end
from live_server import Server
from playwright.sync_api import Browser, Page
from templates import FIRST, FOLDER

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

TEMPLATE = (FOLDER / f"{FIRST}.json").read_text(encoding="utf-8")
SHOWN = """text => app.graph.nodes.some(
  node => node.widgets?.some(widget => widget.name === 'snoopi_text' && widget.element.textContent === text))"""
# Opens ComfyUI's own graph in a new tab, beside a pack that holds the front end up while it does.
OPEN_SLOWLY = """async () => {
  let frames = 20;
  const afterConfigureGraph = async () => {
    while (frames-- > 0) await new Promise(requestAnimationFrame);
  };
  app.registerExtension({name: 'test.slow', afterConfigureGraph});
  await app.loadGraphData();
}"""
# Queues two prompts that are accepted in part; the second is answered when the first one's error is shown.
QUEUE_TWO = """async () => {
  const api = comfyAPI.api.api, {queuePrompt} = api, ids = [];
  api.queuePrompt = async () => {
    if (ids.length) while (!window.toasts.includes('Said once.')) await new Promise(requestAnimationFrame);
    const errors = [{type: 'custom_validation_failed', message: '', details: 'alpha - Said once.'}];
    return {prompt_id: ids.push('of a test') + '', node_errors: {1: {class_type: 'SnoopiNASAApply', errors}}};
  };
  await app.queuePrompt(0, 2).finally(() => { api.queuePrompt = queuePrompt; });
  return ids.length;
}"""


@pytest.fixture(scope="module")
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with open_front_end(browser, server.client, size=(1920, 1080)) as opened:
        yield opened


def test_an_error_of_several_prompts_is_shown_once(page: Page) -> None:
    page.evaluate(WATCH)
    page.evaluate(LOAD, TEMPLATE)
    assert page.evaluate(QUEUE_TWO) == 2
    page.evaluate(STILL)
    assert page.evaluate("() => window.toasts").count("Said once.") == 1


def test_opening_another_workflow_repeats_nothing(page: Page) -> None:
    page.evaluate(WATCH)
    page.evaluate(LOAD, TEMPLATE)
    here = graph(page)
    (number,) = (str(node["id"]) for node in here["nodes"] if node["type"] == "SnoopiNASAApply")
    message = {"kind": "warning", "node": number, "source": number, "workflow": here["id"], "text": "Said on its node."}
    page.evaluate(RUN, message)
    page.wait_for_function(SHOWN, arg="Said on its node.")
    page.evaluate(STILL)
    assert "Said on its node." not in page.evaluate("() => window.toasts")
    page.evaluate(OPEN_SLOWLY)
    page.evaluate(STILL)
    assert "Said on its node." not in page.evaluate("() => window.toasts")
