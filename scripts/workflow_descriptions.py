"""What the shipped workflows hold, in short: scripts/make_workflows.py turns each into its files.

A node's inputs are widget values, or `Link(node)` for another node's output. Columns say where nodes stand, from left
to right, each from top to bottom; a number moves on to that height, and "note" stands for the note.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STUDENT = "snoopi-shapes-student.safetensors"
ALPHA = 1.0
PROMPT = "a blue shape"
NEGATIVE = "square"
SEED = 2
SIDE, SCALE = 64, 4  # the small world's pictures, and how much the workflows enlarge them


@dataclass(frozen=True)
class Link:
    """Output number `slot` of the node with key `node`."""

    node: str
    slot: int = 0


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node: its class, its title ("" keeps the class's own), its inputs, and how large it is drawn."""

    type: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """One template. The note's lines: what it shows, what to look at, what to turn."""

    name: str
    note: str
    nodes: Mapping[str, Node]
    columns: tuple[tuple[str | int, ...], ...]


MODEL, CLIP, VAE = (Link("loader", slot) for slot in range(3))
TEXT = (330, 110)
PICTURE = (400, 460)
LOWER = 520  # where the lower of two branches starts


def _text(text: str, title: str) -> Node:
    return Node(type="CLIPTextEncode", inputs={"clip": CLIP, "text": text}, title=title, size=TEXT)


def _nasa(alpha: float = ALPHA) -> Node:
    inputs = {"model": MODEL, "negative": Link("negative"), "alpha": alpha}
    return Node(type="SnoopiNASAApply", inputs={**inputs, "start_percent": 0.0, "end_percent": 1.0, "blocks": "all"})


def _sampler(model: Link, seed: int | Link) -> Node:
    inputs = {"model": model, "positive": Link("prompt"), "latent_image": Link("latent")}
    return Node(type="SnoopiOneStepSampler", inputs={**inputs, "seed": seed, "timesteps": "auto", "preset": "auto"})


def _picture(latent: str, title: str, prefix: str, key: str = "") -> dict[str, Node]:
    """Decode, enlarge (the small world is tiny) and save."""
    method = {"upscale_method": "nearest-exact", "width": SIDE * SCALE, "height": SIDE * SCALE, "crop": "disabled"}
    saved = {"images": Link(f"scale{key}"), "filename_prefix": prefix}
    return {
        f"decode{key}": Node(type="VAEDecode", inputs={"samples": Link(latent), "vae": VAE}),
        f"scale{key}": Node(type="ImageScale", inputs={"image": Link(f"decode{key}"), **method}),
        f"save{key}": Node(type="SaveImage", inputs=saved, title=title, size=PICTURE),
    }


_COMMON = {
    "loader": Node(
        type="SnoopiPGSBLoader",
        inputs={"ckpt_name": STUDENT, "lora_name": "none", "latents": "auto"},
        size=(400, 146),
    ),
    "prompt": _text(PROMPT, "Prompt"),
    "negative": _text(NEGATIVE, "Negative prompt"),
    "latent": Node(type="EmptyLatentImage", inputs={"width": SIDE, "height": SIDE, "batch_size": 4}),
    "nasa": _nasa(),
}

WORKFLOWS = (
    Workflow(
        name="one_step_with_negative_prompt",
        note="Text to image in ONE step, with a negative prompt (NASA).\n"
        "The pictures follow the prompt and avoid the negative.\n"
        "Turn: both texts, and alpha (0 = the negative is ignored).",
        nodes={
            **_COMMON,
            "sampler": _sampler(Link("nasa"), SEED),
            **_picture("sampler", "Result", "snoopi/one_step"),
        },
        columns=(
            ("note", "loader", "latent"),
            ("prompt", "negative"),
            ("nasa", "sampler"),
            ("decode", "scale"),
            ("save",),
        ),
    ),
    Workflow(
        name="with_and_without_negative",
        note="Same prompt, same noise: with the negative only below.\n"
        "What it names is gone there; the prompt is kept, other details may change.\n"
        "Turn: the negative prompt, alpha, the Seed node.",
        nodes={
            **_COMMON,
            "seed": Node(type="PrimitiveInt", inputs={"value": SEED}, title="Seed"),
            "sampler_without": _sampler(MODEL, Link("seed")),
            "sampler_with": _sampler(Link("nasa"), Link("seed")),
            **_picture("sampler_without", "Without the negative", "snoopi/without", "_without"),
            **_picture("sampler_with", "With the negative", "snoopi/with", "_with"),
        },
        columns=(
            ("note", "loader", "latent", "seed"),
            ("prompt", "negative", "nasa"),
            ("sampler_without", LOWER, "sampler_with"),
            ("decode_without", "scale_without", LOWER, "decode_with", "scale_with"),
            ("save_without", LOWER, "save_with"),
        ),
    ),
)


def api_prompt(workflow: Workflow) -> dict[str, dict[str, Any]]:
    """The workflow in the server's format; node ids are numbers in the order of the description."""
    ids = {key: str(number) for number, key in enumerate(workflow.nodes, start=1)}

    def value(given: Any) -> Any:
        return [ids[given.node], given.slot] if isinstance(given, Link) else given

    prompt: dict[str, dict[str, Any]] = {}
    for key, node in workflow.nodes.items():
        prompt[ids[key]] = {
            "class_type": node.type,
            "inputs": {name: value(given) for name, given in node.inputs.items()},
        }
        if node.title:
            prompt[ids[key]]["_meta"] = {"title": node.title}
    return prompt
