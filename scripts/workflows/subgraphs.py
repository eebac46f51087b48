"""Folds nodes of a workflow into subgraphs, with the front end's own "Convert to Subgraph", and places them inside."""

from __future__ import annotations

import json
import tomllib
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playwright.sync_api import Page

from scripts import ROOT
from scripts.workflows import layout
from scripts.workflows.parts import Node, Subgraph, Workflow
from scripts.workflows.room import room

BESIDE = 80  # between the nodes and the subgraph's ends

# Makes one of its nodes a subgraph and shows its inside; returns the wires in it, and the boxes of its ends.
_FOLD = """
async ({key, title, places, sizes, widgets, names, left, right}) => {
  const keys = Object.keys(places), ids = keys.map(each => byKey[each].id);
  for (const each of keys) {
    byKey[each].flags.collapsed = false;
    byKey[each].setSize(sizes[each]);
    byKey[each].pos = places[each];
  }
  const {node, subgraph} = app.graph.convertToSubgraph(new Set(keys.map(each => byKey[each])));
  const {inputNode, outputNode} = subgraph;
  const within = Object.fromEntries(keys.map((each, index) => [each, subgraph.getNodeById(ids[index])]));
  for (const [name, [each, widget]] of Object.entries(widgets)) {
    const slot = within[each].inputs.find(input => input.name === widget);
    subgraph.addInput(name, slot.type).connect(slot, within[each]);
  }
  for (const [from, to] of Object.entries(names)) {
    const input = subgraph.inputs.find(slot => slot.name === from);
    if (input) subgraph.renameInput(input, to);
    else subgraph.renameOutput(subgraph.outputs.find(slot => slot.name === from), to);
  }
  subgraph.name = node.title = title;
  for (const each of keys) delete byKey[each];
  byKey[key] = node;
  inputNode.arrange();
  outputNode.arrange();
  inputNode.pos = [left - inputNode.boundingRect[2], 0]; // beside the nodes, not on them
  outputNode.pos = [right, 0];
  app.canvas.setGraph(subgraph);
  app.canvas.draw(true, true);
  await new Promise(done => setTimeout(done, 400));
  app.canvas.draw(true, true);
  const name = id => keys[ids.indexOf(id)] ?? (id === inputNode.id ? 'inputs' : 'outputs');
  const box = ({boundingRect: [x, y, width, height]}) => [x, y, x + width, y + height];
  return {
    inputs: box(inputNode), outputs: box(outputNode),
    wires: [...subgraph.links.values()].map(link => ({
      id: link.id, source: name(link.origin_id), target: name(link.target_id),
      start: [...(subgraph.getNodeById(link.origin_id)?.getOutputPos(link.origin_slot)
        ?? subgraph.inputs[link.origin_slot].pos)],
      end: [...(subgraph.getNodeById(link.target_id)?.getInputPos(link.target_slot)
        ?? subgraph.outputs[link.target_slot].pos)],
    })),
  };
}
"""
# Leads wires around, goes back to the graph, and returns the size of the subgraph's node.
_CLOSE = """
({key, dots}) => {
  const graph = byKey[key].subgraph;
  for (const [link, points] of Object.entries(dots))
    for (const point of points) graph.createReroute(point, graph.getLink(Number(link)));
  app.canvas.setGraph(app.graph);
  return [...byKey[key].computeSize()];
}
"""


def fold(page: Page, workflow: Workflow, sizes: dict[str, layout.Point]) -> None:
    """Make the subgraphs of the graph that is open; `sizes` get theirs in place of their nodes'."""
    for key, subgraph in workflow.subgraphs.items():
        sizes[key] = _fold(page, key, subgraph, workflow.nodes, sizes)
        for inner in subgraph.keys:
            del sizes[inner]


def _fold(
    page: Page, key: str, subgraph: Subgraph, nodes: Mapping[str, Node], sizes: Mapping[str, layout.Point]
) -> layout.Point:
    inside = {each: replace(nodes[each], collapsed=False) for each in subgraph.keys}
    within = {each: (max(sizes[each][0], layout.COLLAPSED), sizes[each][1]) for each in inside}
    places, edges = layout.place(subgraph.columns, inside, within, room(inside, {k: h for k, (_, h) in within.items()}))
    ends = {"left": -BESIDE, "right": edges[-1][1] + BESIDE}
    described = {"title": subgraph.title, "widgets": subgraph.widgets, "names": subgraph.names}
    made = page.evaluate(_FOLD, {"key": key, "places": places, "sizes": within, **described, **ends})
    drawn = layout.boxes(inside, places, within)
    drawn |= {end: layout.Box(*made[end]) for end in ("inputs", "outputs")}
    edges = [(drawn["inputs"].left, drawn["inputs"].right), *edges, (drawn["outputs"].left, drawn["outputs"].right)]
    dots = layout.dots(layout.wires(made["wires"]), edges, drawn)
    return page.evaluate(_CLOSE, {"key": key, "dots": {str(link): points for link, points in dots.items()}})


def without_previews(graph: dict[str, Any]) -> None:
    """Let no subgraph show a sampler's preview, which would need room in Nodes 2.0."""
    for node in graph["nodes"]:
        if "previewExposures" in node["properties"]:
            node["properties"]["previewExposures"] = []


def name_pack(graph: dict[str, Any]) -> None:
    """Write the pack's name in the registry into its nodes: without the pack, the front end says which one is missing.

    ComfyUI-Manager writes it, too, with the version, which is not needed and would change with each release.
    """
    pack = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    for part in (graph, *graph.get("definitions", {}).get("subgraphs", [])):
        for node in part["nodes"]:
            if node["type"].startswith("Snoopi"):
                node["properties"]["cnr_id"] = pack


def fixed_ids(graph: dict[str, Any], name: str) -> dict[str, Any]:
    """The same graph with ids of its subgraphs and their slots that are the same each time."""
    content, inner = json.dumps(graph), graph.get("definitions", {}).get("subgraphs", [])
    made = [item["id"] for each in inner for item in (each, *each["inputs"], *each["outputs"])]
    for number, old in enumerate(made):
        content = content.replace(old, str(uuid.uuid5(uuid.NAMESPACE_URL, f"snoopi/{name}/{number}")))
    return json.loads(content)


def flat(sent: dict[str, Any]) -> dict[str, Any]:
    """What the front end sends, with the ids that the nodes have: those in a subgraph carry its node's id before."""

    def own(value: Any) -> Any:
        return [value[0].rpartition(":")[2], *value[1:]] if isinstance(value, list) else value

    return {
        number.rpartition(":")[2]: {
            **node,
            "inputs": {name: own(value) for name, value in node["inputs"].items()},
        }
        for number, node in sent.items()
    }
