"""The shipped workflows: which run without more files, and which files the others need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from live_pack import ROOT

FOLDER = ROOT / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def named(begins: str) -> str:
    """The full name of the only template whose name begins so: the model's name, or more."""
    (name,) = (name for name in NAMES if name.startswith(begins))
    return name


_BUNDLED = {path.name for path in (ROOT / "models").glob("*.safetensors")}
# Inputs that name a file, with the folder below models/ in which it is searched.
_FILE_INPUTS = {
    ("CheckpointLoaderSimple", "ckpt_name"): "checkpoints",
    ("UNETLoader", "unet_name"): "diffusion_models",
    ("LoraLoaderModelOnly", "lora_name"): "loras",
    ("CLIPLoader", "clip_name"): "text_encoders",
    ("LTXAVTextEncoderLoader", "text_encoder"): "text_encoders",
    ("LTXAVTextEncoderLoader", "ckpt_name"): "checkpoints",
    ("LTXVAudioVAELoader", "ckpt_name"): "checkpoints",
    ("VAELoader", "vae_name"): "vae",
    ("SnoopiPGSBLoader", "ckpt_name"): "checkpoints",
}


class Needed(NamedTuple):
    """A file that is not in the pack, and the node and input that name it."""

    node: str
    input: str
    directory: str
    name: str


def api_file(name: str) -> Path:
    return FOLDER / "api" / f"{name}.json"


def graph_of(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def note_of(graph: dict[str, Any]) -> str:
    """The text of its only note: three paragraphs, What, Download and Turn."""
    (note,) = (node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote")
    return note


def needed_files(name: str) -> list[Needed]:
    """What has to be downloaded or trained before this workflow runs."""
    prompt = json.loads(api_file(name).read_text(encoding="utf-8"))
    found = []
    for number, node in prompt.items():
        for key, value in node["inputs"].items():
            if (directory := _FILE_INPUTS.get((node["class_type"], key))) and value not in _BUNDLED:
                found.append(Needed(number, key, directory, value))
    return found


FIRST, COMPARE, SWEEP = (named(begins) for begins in ("1 ", "2 ", "3 "))
FIGURE = named("7 ")  # its ways are subgraphs
RUNNABLE = [name for name in NAMES if not needed_files(name)]
FIGURE_FIRST = [FIGURE, *(name for name in NAMES if name != FIGURE)]  # so that the gate opens it, too
NEEDING = [name for name in NAMES if needed_files(name)]
