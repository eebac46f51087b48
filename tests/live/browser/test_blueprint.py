"""The subgraph blueprints, as users meet them: found in the node library, put on the canvas, connected, run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from live_browser import LOAD, open_front_end, screenshot
from live_pack import ROOT
from live_server import Server
from PIL import Image
from playwright.sync_api import Browser
from templates import FIRST, FOLDER

from scripts.workflows.blueprint import BLUEPRINTS, Blueprint
from scripts.workflows.bundled import NEGATIVE

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

PLACE = (1200, 850)  # an empty spot of the canvas, next to the node library
GHOST = ".fixed.z-10000"  # the picture of a node that hangs on the mouse and is put down by a click
BLUEPRINT = "app.graph.nodes.find(n => n.isSubgraphNode?.())"
WIDGETS = f"() => {BLUEPRINT}.widgets.map(w => [w.label ?? w.name, w.value])"
# In place of NASA Apply and its prompt, with the same negative and alpha.
# `output` is the number of the output that goes on to the sampler.
CONNECT = f"""output => {{
  const node = {BLUEPRINT}, of = type => app.graph.nodes.find(n => n.type === type);
  const loader = of('SnoopiPGSBLoader'), sampler = of('SnoopiOneStepSampler'), steered = of('SnoopiNASAApply');
  node.inputs.forEach((input, number) => {{ if (input.type === 'MODEL') loader.connect(0, node, number); }});
  loader.connect(1, node, node.inputs.findIndex(i => i.name === 'clip'));
  node.connect(output, sampler, 0);
  const [negative, alpha] = node.widgets;
  negative.value = '{NEGATIVE}';
  alpha.value = steered.widgets.find(w => w.name === 'alpha').value;
  app.graph.remove(steered.getInputNode(1));
  app.graph.remove(steered);
}}"""
SENT = "async () => (await app.graphToPrompt()).output"


@pytest.mark.parametrize("blueprint", BLUEPRINTS, ids=lambda each: each.key)
def test_a_blueprint_does_what_its_nodes_do(
    blueprint: Blueprint, browser: Browser, server: Server, screenshots: Path
) -> None:
    """With two models, each output does what one NASA Apply does."""
    graph = (FOLDER / f"{FIRST}.json").read_text(encoding="utf-8")
    for output in range(len(blueprint.models)):
        with open_front_end(browser, server.client, size=(1920, 1080)) as page:
            page.evaluate(LOAD, graph)
            nodes = page.evaluate(SENT)
            page.get_by_role("button", name="Node Library").click()
            page.get_by_placeholder("Search").last.click()
            page.keyboard.type("snoopi negative")
            page.get_by_text(blueprint.name, exact=True).first.click()
            page.mouse.move(*PLACE)
            page.locator(GHOST).wait_for()
            page.mouse.click(*PLACE)
            page.wait_for_function(f"() => Boolean({BLUEPRINT})")
            screenshot(page, screenshots / f"{blueprint.key}.png")
            expected = [["negative", "low quality, blurry"], ["alpha", 0.3], ["alpha_mode", "as set"]]
            assert page.evaluate(WIDGETS) == expected
            page.evaluate(CONNECT, output)
            sent = page.evaluate(SENT)
        assert [node["class_type"] for node in sent.values()].count("SnoopiNASAApply") == len(blueprint.models)
        assert saved(server, sent, "blueprint") == saved(server, nodes, "nodes")


@pytest.mark.parametrize("blueprint", BLUEPRINTS, ids=lambda each: each.key)
def test_its_ends_do_not_cover_its_nodes(blueprint: Blueprint) -> None:
    text = (ROOT / "subgraphs" / f"{blueprint.name}.json").read_text(encoding="utf-8")
    graph = json.loads(text)
    (inner,) = graph["definitions"]["subgraphs"]
    left, _, width, _ = inner["inputNode"]["bounding"]
    assert left + width < min(node["pos"][0] for node in inner["nodes"])
    assert inner["outputNode"]["bounding"][0] > max(node["pos"][0] + node["size"][0] for node in inner["nodes"])
    shown = [slot.get("label", slot["name"]) for slot in inner["inputs"]]
    models = list(blueprint.outputs.values()) or ["model"]
    assert shown[: len(models)] == models
    assert shown[len(models) :] == ["clip", "negative", "alpha", "alpha_mode", "mask"]
    # Both NASA Apply nodes get the same text, alpha and mask.
    reached = {slot["name"]: len(slot["linkIds"]) for slot in inner["inputs"]}
    assert {reached[name] for name in ("alpha", "alpha_mode", "mask")} == {len(blueprint.models)}


def saved(server: Server, prompt: dict[str, Any], prefix: str) -> list[bytes]:
    """The four pictures that a prompt gives, as they were drawn."""
    (number,) = (number for number, node in prompt.items() if node["class_type"] == "SaveImage")
    prompt[number]["inputs"]["filename_prefix"] = prefix
    outcome = server.client.run(prompt)
    assert outcome.status == "success", outcome.error
    images = outcome.outputs[number]["images"]
    assert len(images) == 4
    return [Image.open(io.BytesIO(server.client.view(image))).tobytes() for image in images]
