"""The subgraph blueprint: a negative prompt for a one-step model as a single node of the front end's node library.

The front end makes it with "Convert to Subgraph" from two nodes of a graph, as a user would.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from playwright.sync_api import Page

from scripts.workflows.parts import Link, Node, api_prompt, nasa, text
from scripts.workflows.subgraphs import fixed_ids, name_pack, without_previews

# The file's name. ComfyUI's searches show only the name of a pack's blueprint, not its description and aliases.
NAME = "Negative prompt at CFG 1 (SNOOPI NASA)"
DESCRIPTION = (
    "A negative prompt for turbo, distilled and one-step models, at cfg 1: write what should not appear, and raise "
    "alpha until it is gone. Goes between the loader and the sampler. Contains NASA Apply and its text."
)
CATEGORY = "SNOOPI"
NEGATIVE, ALPHA, ALPHA_MODE = "low quality, blurry", 0.3, "as set"

# With the loader and the sampler outside, the front end sees which links cross the border of the subgraph.
_SAMPLER = {"model": Link("nasa"), "seed": 0, "timesteps": "auto"}
_AROUND = {
    "loader": Node(type="CheckpointLoaderSimple", inputs={"ckpt_name": ""}),
    "nasa": nasa(ALPHA),  # before its text, so that the inputs are in the loaders' order: model, clip
    "negative": text(NEGATIVE, "Negative prompt"),
    "sampler": Node(type="SnoopiOneStepSampler", inputs=_SAMPLER),
}
_BUILD = """
async ({prompt, name}) => {
  await app.loadApiJson(prompt, name);
  const [loader, nasa, text, sampler] = [1, 2, 3, 4].map(id => app.graph.getNodeById(id));
  text.setSize([330, 110]); text.pos = [0, 0];
  nasa.setSize([270, 200]); nasa.pos = [380, 0];
  const {node, subgraph} = app.graph.convertToSubgraph(new Set([nasa, text]));
  const within = subgraph.nodes.find(made => made.type === nasa.type);
  for (const name of ['alpha', 'alpha_mode', 'mask']) {
    const slot = within.inputs.find(input => input.name === name);
    subgraph.addInput(name, slot.type).connect(slot, within);
  }
  subgraph.renameInput(subgraph.inputs.find(slot => slot.name === 'text'), 'negative');
  subgraph.name = node.title = name;
  subgraph.inputNode.pos = [-220, 0]; subgraph.outputNode.pos = [720, 0]; // beside the nodes, not on them
  app.graph.remove(loader);
  app.graph.remove(sampler);
  node.pos = [0, 0];
  node.setSize([330, 200]);
  return JSON.stringify(app.graph.serialize());
}
"""


def blueprint(page: Page) -> dict[str, Any]:
    """The file's content; always the same.

    Raises:
        RuntimeError: the front end changed the widgets' values.
    """
    graph = json.loads(page.evaluate(_BUILD, {"prompt": api_prompt(_AROUND), "name": NAME}))
    without_previews(graph)
    name_pack(graph)
    graph = fixed_ids(graph, "blueprint")
    expected = [NEGATIVE, ALPHA, ALPHA_MODE]
    if (values := graph["nodes"][0]["widgets_values"]) != expected:
        raise RuntimeError(f"the blueprint's widgets came back as {values}, expected {expected}")
    (inner,) = graph["definitions"]["subgraphs"]
    inner["category"], inner["description"] = CATEGORY, DESCRIPTION
    graph["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, "snoopi/blueprint"))
    graph["extra"] = {"BlueprintDescription": DESCRIPTION}
    return graph
