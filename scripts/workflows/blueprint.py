"""The subgraph blueprints: a negative prompt for few-step models as a single node of the front end's node library.

The front end makes each with "Convert to Subgraph" from some nodes of a graph, as a user would.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Page

from scripts.workflows.parts import Link, Node, api_prompt, nasa, text
from scripts.workflows.subgraphs import fixed_ids, name_pack, without_previews

CATEGORY = "SNOOPI"
NEGATIVE, ALPHA, ALPHA_MODE = "low quality, blurry", 0.3, "as set"
_DOES = "at cfg 1: write what should not appear, and raise alpha until it is gone."


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """One blueprint.

    name: of its file. ComfyUI's searches show only the name of a pack's blueprint, not its description and aliases.
    around: what stands outside, so that the front end sees which links cross the border of the subgraph.
    models: titles of its NASA Apply nodes, by their names; each has a model of its own from outside.
    inputs, outputs: new names of its ends, by the old ones.
    """

    name: str
    description: str
    key: str
    around: dict[str, Node]
    models: dict[str, str]
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def graph(self) -> dict[str, Node]:
        """NASA Apply comes before its text, so that the inputs are in the loaders' order: model, clip."""
        steered = {name: nasa(ALPHA, Link(f"{name}_model"), title=title) for name, title in self.models.items()}
        return {**self.around, **steered, "negative": text(NEGATIVE, "Negative prompt", Link("clip", 1))}


def _sampler(model: str) -> Node:
    return Node(type="SnoopiOneStepSampler", inputs={"model": Link(model), "seed": 0, "timesteps": "auto"})


def _loader() -> Node:
    return Node(type="CheckpointLoaderSimple", inputs={"ckpt_name": ""})


ONE = Blueprint(
    name="Negative prompt at CFG 1 (SNOOPI NASA)",
    description=(
        f"A negative prompt for turbo, distilled and one-step models, {_DOES} Goes between the loader and the sampler. "
        "Contains NASA Apply and its text."
    ),
    key="blueprint",
    around={"clip": _loader(), "nasa_model": _loader(), "sampler": _sampler("nasa")},
    models={"nasa": ""},
)
TWO = Blueprint(
    name="Negative prompt at CFG 1 (SNOOPI NASA, two models)",
    description=(
        f"A negative prompt for two chained models, such as Wan 2.2 14B with acceleration LoRAs, {_DOES} Goes between "
        "the two loaders and the two samplers. Contains a NASA Apply for each, and one text."
    ),
    key="blueprint two",
    around={
        "clip": _loader(),
        "high_model": _loader(),
        "low_model": _loader(),
        "sampler_high": _sampler("high"),
        "sampler_low": _sampler("low"),
    },
    models={"high": "NASA Apply, high noise", "low": "NASA Apply, low noise"},
    inputs={"model": "high noise model", "model_1": "low noise model"},
    outputs={"MODEL": "high noise model", "MODEL_1": "low noise model"},
)
BLUEPRINTS = (ONE, TWO)
_BUILD = """
async ({prompt, name, outside, steered, inputs, outputs}) => {
  await app.loadApiJson(prompt, name);
  const of = id => app.graph.getNodeById(id), text = app.graph.nodes.find(node => node.type === 'CLIPTextEncode');
  const nasas = steered.map(of);
  text.setSize([330, 110]); text.pos = [0, 0];
  nasas.forEach((nasa, row) => { nasa.setSize([270, 200]); nasa.pos = [380, 260 * row]; });
  const {node, subgraph} = app.graph.convertToSubgraph(new Set([...nasas, text]));
  const within = subgraph.nodes.filter(made => made.type === nasas[0].type);
  for (const name of ['alpha', 'alpha_mode', 'mask']) {
    const slots = within.map(made => made.inputs.find(input => input.name === name));
    const input = subgraph.addInput(name, slots[0].type);
    slots.forEach((slot, number) => input.connect(slot, within[number]));
  }
  for (const [from, to] of Object.entries({text: 'negative', ...inputs}))
    subgraph.renameInput(subgraph.inputs.find(slot => slot.name === from), to);
  for (const [from, to] of Object.entries(outputs))
    subgraph.renameOutput(subgraph.outputs.find(slot => slot.name === from), to);
  subgraph.name = node.title = name;
  subgraph.inputNode.pos = [-220, 0]; subgraph.outputNode.pos = [720, 0]; // beside the nodes, not on them
  for (const id of outside) app.graph.remove(of(id));
  node.pos = [0, 0];
  node.setSize([330, 200]);
  return JSON.stringify(app.graph.serialize());
}
"""


def content(page: Page, blueprint: Blueprint) -> dict[str, Any]:
    """The content of a blueprint's file; always the same.

    Raises:
        RuntimeError: the front end changed the widgets' values.
    """
    graph = blueprint.graph
    ids = {name: number for number, name in enumerate(graph, 1)}
    given = {
        "prompt": api_prompt(graph),
        "name": blueprint.name,
        "outside": [ids[name] for name in blueprint.around],
        "steered": [ids[name] for name in blueprint.models],
        "inputs": blueprint.inputs,
        "outputs": blueprint.outputs,
    }
    made = json.loads(page.evaluate(_BUILD, given))
    without_previews(made)
    name_pack(made)
    made = fixed_ids(made, blueprint.key)
    expected = [NEGATIVE, ALPHA, ALPHA_MODE]
    if (values := made["nodes"][0]["widgets_values"]) != expected:
        raise RuntimeError(f"the blueprint's widgets came back as {values}, expected {expected}")
    (inner,) = made["definitions"]["subgraphs"]
    inner["category"], inner["description"] = CATEGORY, blueprint.description
    made["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"snoopi/{blueprint.key}"))
    made["extra"] = {"BlueprintDescription": blueprint.description}
    return made
