"""Reads ComfyUI's own templates, and compares what they would compute with a prompt of ours."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simpleeval import simple_eval

WIDGETS = {
    "CFGGuider": ("cfg",),
    "CLIPLoader": ("clip_name", "type", "device"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "CreateVideo": ("fps",),
    "EmptyFlux2LatentImage": ("width", "height", "batch_size"),
    "EmptyHunyuanLatentVideo": ("width", "height", "length", "batch_size"),
    "EmptyLTXVLatentVideo": ("width", "height", "length", "batch_size"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "Flux2Scheduler": ("steps", "width", "height"),
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        "add_noise", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler", "start_at_step", "end_at_step",
        "return_with_leftover_noise",
    ),
    "KSamplerSelect": ("sampler_name",),
    "LTXAVTextEncoderLoader": ("text_encoder", "ckpt_name", "device"),
    "LTXVAudioVAELoader": ("ckpt_name",),
    "LTXVConditioning": ("frame_rate",),
    "LTXVEmptyLatentAudio": ("frames_number", "frame_rate", "batch_size"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "ManualSigmas": ("sigmas",),
    "ModelSamplingAuraFlow": ("shift",),
    "ModelSamplingSD3": ("shift",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "VAEDecodeTiled": ("tile_size", "overlap", "temporal_size", "temporal_overlap"),
    "VAELoader": ("vae_name",),
}  # fmt: skip
"""The widgets of the nodes that settle what is computed, in the order of `widgets_values` ("": the seed's control)."""
_FREE = {"", "seed", "noise_seed"}
_VALUES = {"PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean"}
_OUTSIDE = -20  # what the links to a subgraph's outputs go to
Graph = dict[str, Any]
Settings = Counter[tuple[str, str, Any]]


class Official:
    """One of ComfyUI's templates, or a subgraph of it, with all switches turned `on` or as they are.

    `runs` are the nodes that its results need, in the form of the API as far as WIDGETS knows their inputs.
    """

    def __init__(self, file: Path, subgraph: str = "", *, switches_on: bool = False) -> None:
        whole: Graph = json.loads(file.read_text(encoding="utf-8"))
        within = {each["name"]: each for each in whole.get("definitions", {}).get("subgraphs", [])}
        graph = within[subgraph] if subgraph else whole
        links = [_link(each) for each in graph["links"]]
        self._on, self._nodes = switches_on, {node["id"]: node for node in graph["nodes"]}
        self._from = {number: origin for number, origin, _ in links}
        ends = [origin for _, origin, target in links if target == _OUTSIDE]
        self.runs: dict[str, Graph] = {}
        for end in ends or [number for number, node in self._nodes.items() if node["type"].startswith("Save")]:
            self._reach(self._nodes[end])

    def files(self) -> set[tuple[str, str, str]]:
        return files_of(self._nodes[int(number)] for number in self.runs)

    def _reach(self, node: Graph) -> None:
        if str(node["id"]) in self.runs:
            return
        shown = zip(WIDGETS.get(node["type"], ()), node.get("widgets_values", ()), strict=False)
        inputs = {name: self._value(node, name, value) for name, value in shown}
        self.runs[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
        for each in node.get("inputs", []):
            if origin := self._origin(node, each["name"]):
                inputs.setdefault(each["name"], [str(origin["id"]), 0])
                self._reach(origin)

    def _origin(self, node: Graph, name: str) -> Graph | None:
        """The node that an input is linked to, past switches and reroutes; none for one outside the subgraph."""
        link = next((each.get("link") for each in node.get("inputs", []) if each["name"] == name), None)
        origin = self._nodes.get(self._from.get(link))
        if origin is not None and origin["type"] == "Reroute":
            return self._origin(origin, origin["inputs"][0]["name"])
        if origin is None or origin["type"] != "ComfySwitchNode":
            return origin
        on = self._on or self._value(origin, "switch", origin["widgets_values"][0])
        return self._origin(origin, "on_true" if on else "on_false")

    def _value(self, node: Graph, name: str, shown: Any) -> Any:
        """What an input gets: the value that is `shown`, unless a number or an expression is linked to it."""
        origin = self._origin(node, name)
        if origin is not None and origin["type"] in _VALUES:
            return self._value(origin, "value", origin["widgets_values"][0])
        if origin is not None and origin["type"] == "ComfyMathExpression":
            inputs = [each["name"] for each in origin["inputs"] if each.get("link") is not None]
            values = {each.removeprefix("values."): self._value(origin, each, None) for each in inputs}
            # By what ComfyUI computes such expressions with.
            return simple_eval(origin["widgets_values"][0], functions={"floor": math.floor}, names=values)
        return shown


def settings(prompt: dict[str, Graph]) -> Settings:
    """(class, input, value) of all nodes in WIDGETS; and for each sampler, what its model comes through."""
    found: Settings = Counter()
    for node in prompt.values():
        kind, inputs = node["class_type"], node["inputs"]
        for name in WIDGETS.get(kind, ()):
            if name in inputs and name not in _FREE and not isinstance(inputs[name], list):
                found[kind, name, _plain(inputs[name])] += 1
        if "Sampler" in kind or "Guider" in kind:
            through = [node["inputs"].get("start_at_step")]
            while "model" in node["inputs"]:
                node = prompt[node["inputs"]["model"][0]]
                through += [_plain(node["inputs"][name]) for name in WIDGETS.get(node["class_type"], ())[:1]]
            found[kind, "model", tuple(through)] += len(through) > 1
    return +found


def files_of(nodes: Iterable[Graph]) -> set[tuple[str, str, str]]:
    """Folder, name and address of each file that the nodes of a graph offer for download."""
    offered = [each for node in nodes for each in node.get("properties", {}).get("models", [])]
    return {(each["directory"], each["name"], each["url"].removesuffix("?download=true")) for each in offered}


def _plain(value: Any) -> Any:
    """Without what the front end's rounding leaves (3.1000000000000005); sigmas as numbers."""
    if isinstance(value, str) and "," in value:
        return tuple(float(each) for each in value.split(","))
    return round(value, 6) if isinstance(value, float) else value


def _link(link: Any) -> tuple[int, int, int]:
    """Its number, and the nodes that it comes from and goes to."""
    return (link["id"], link["origin_id"], link["target_id"]) if isinstance(link, dict) else (link[0], link[1], link[3])
