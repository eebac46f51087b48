"""Parts of the workflows' descriptions: nodes, links, model files, and the blocks that most graphs share.

A node's inputs are widget values, or `Link(node)` for another node's output. Columns are listed from left to right, and
nodes in a column from top to bottom; a number continues the column at that height. "note" is the note; columns side by
side that all have it share it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Link:
    """Output number `slot` of the node with key `node`."""

    node: str
    slot: int = 0


@dataclass(frozen=True)
class File:
    """A file that is not in the pack: its name, its folder in models/, and its URL ("" if it has none).

    The front end's own notice of missing models shows these, from `properties.models` of the node that needs them.
    """

    name: str
    directory: str
    url: str

    @property
    def page(self) -> str:
        """The page of its repository."""
        return self.url.partition("/resolve/")[0]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node: its class, its title ("" keeps the class's own), its inputs, how large it is drawn, and its group.

    The group is an index in `layout.GROUPS`; None is that of its kind.
    """

    type: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    size: tuple[int, int] | None = None
    collapsed: bool = False
    files: tuple[File, ...] = ()
    group: int | None = None


# What every template's name has behind its model, or its number. The template browser searches names alone; it finds a
# word only where it begins within the first 33 letters (Fuse.js with a threshold of 0.33 and a distance of 100), and
# shows names first that have it earlier.
SIGNAL = "SNOOPI NASA negative prompt"
NO_DOWNLOAD = "no download"  # at the end of the name of a template that needs none
REACH = 33
NOTE = "note"
Column = tuple[str | int, ...]


SUBGRAPH = "Subgraph"


@dataclass(frozen=True, kw_only=True)
class Subgraph:
    """Nodes that the graph shows as one; `columns` place them inside.

    `widgets` shows inner nodes' widgets on the subgraph's node: {name there: (inner node's key, its input)}. `names`
    renames inputs and outputs that the front end has named.
    """

    title: str
    columns: tuple[Column, ...]
    widgets: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """Its nodes."""
        return tuple(key for column in self.columns for key in column if isinstance(key, str))


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """One template: `model` and `about` make its name and its card.

    The note says what it shows, what to download to where, and what to turn, each in Markdown. `nodes` has those in
    subgraphs, too: the server's format has no subgraphs. `tight`: groups leave no room for what grows in a
    run, since a small window would have none for them.
    """

    model: str
    about: str
    note: tuple[str, str, str]
    nodes: Mapping[str, Node]
    columns: tuple[Column, ...]
    subgraphs: Mapping[str, Subgraph] = field(default_factory=dict)
    tight: bool = False

    @property
    def drawn(self) -> dict[str, Node]:
        """The nodes that the graph shows."""
        inside = {key for subgraph in self.subgraphs.values() for key in subgraph.keys}
        shown = {key: node for key, node in self.nodes.items() if key not in inside}
        return shown | {key: Node(type=SUBGRAPH, title=made.title) for key, made in self.subgraphs.items()}

    @property
    def needs_files(self) -> bool:
        """Whether a model has to be downloaded, or trained."""
        return any(node.files for node in self.nodes.values())

    @property
    def name(self) -> str:
        """The files' name, which ComfyUI shows as the title: characters that need no escaping in an address.

        Raises:
            ValueError: a search would not find it.
        """
        number, _, title = self.model.partition(" ")
        if number == "1":  # the shortest: newer front ends show shorter names first, if both have all the words
            return f"{number} {SIGNAL} - {title}"
        if number.isdigit():  # those of the bundled models are found first
            return f"{number} {SIGNAL} - {title}, {self.about}"
        found = f"{self.model} - {SIGNAL}"
        if found.rindex("negative") > REACH:
            raise ValueError(f"a template's model has at most {REACH - 15} letters, got {self.model!r}")
        return f"{found}, {self.about}"

    @property
    def prefix(self) -> str:
        """The same for the names of pictures."""
        return re.sub(r"\W+", "_", f"{self.model} {self.about}".lower())


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search for a seed: the best of `seeds` by the results of the workflow `by`, for all of `for_all`."""

    by: Workflow
    for_all: tuple[Workflow, ...]
    negatives: tuple[str, ...]
    seeds: int


MODEL, CLIP, VAE = (Link("loader", slot) for slot in range(3))
ROW = 168  # y of NASA Apply and of what is behind it in the same row
PROMPTS, NEGATIVES, RESULT = 1, 2, 3  # groups
LOADER = (250, 146)
TEXT = (225, 110)
PICTURE = (250, 302)
SHEET = (600, 650)
SIDE, SCALE = 64, 4  # pixels of the bundled models' pictures, and how much the workflows enlarge them


def pgsb_loader(file: str) -> Node:
    inputs = {"ckpt_name": file, "lora_name": "none", "latents": "auto"}
    return Node(type="SnoopiPGSBLoader", inputs=inputs, size=LOADER)


def text(words: str, title: str, clip: Link = CLIP) -> Node:
    return Node(type="CLIPTextEncode", inputs={"clip": clip, "text": words}, title=title, size=TEXT)


def latent(side: int = SIDE, count: int = 4, group: int | None = None) -> Node:
    inputs = {"width": side, "height": side, "batch_size": count}
    return Node(type="EmptyLatentImage", inputs=inputs, group=group)


def nasa(alpha: float, model: Link = MODEL, negative: str = "negative", title: str = "", **more: Any) -> Node:
    neutral = {"start_percent": 0.0, "end_percent": 1.0, "blocks": "all", "alpha_mode": "as set"}
    method = {"method": "NASA", "nag_tau": 2.5, "nag_blend": 0.375, "vsf_beta": 0.0}
    inputs = {**neutral, **method, "model": model, "negative": Link(negative), "alpha": alpha, **more}
    return Node(type="SnoopiNASAApply", inputs=inputs, title=title)


def one_step(
    model: Link,
    seed: int | Link,
    positive: str = "prompt",
    preset: str = "auto",
    *,
    timesteps: str = "auto",
    collapsed: bool = False,
) -> Node:
    links = {"model": model, "positive": Link(positive), "latent_image": Link("latent")}
    inputs = {**links, "seed": seed, "timesteps": timesteps, "preset": preset}
    return Node(type="SnoopiOneStepSampler", inputs=inputs, collapsed=collapsed)


def with_cfg(model: Link, seed: int | Link, *, negative: str, steps: int, cfg: float, scheduler: str) -> Node:
    """The host's own sampler, where the negative acts by classifier-free guidance."""
    inputs = {"model": model, "positive": Link("prompt"), "negative": Link(negative), "latent_image": Link("latent")}
    settings = {"seed": seed, "steps": steps, "cfg": cfg, "sampler_name": "euler", "scheduler": scheduler}
    return Node(type="KSampler", inputs={**inputs, **settings, "denoise": 1.0})


def sweep(alphas: str, seed: int) -> Node:
    links = {"model": MODEL, "positive": Link("prompt"), "negative": Link("negative"), "latent_image": Link("latent")}
    settings = {"alphas": alphas, "seed": seed, "timesteps": "auto", "preset": "auto"}
    return Node(type="SnoopiNASAScaleSweep", inputs={**links, "vae": VAE, **settings}, size=SHEET)


def inspect(seed: int) -> Node:
    inputs = {"model": Link("nasa"), "positive": Link("prompt"), "latent_image": Link("latent")}
    return Node(type="SnoopiNASAInspect", inputs={**inputs, "seed": seed, "preset": "auto"}, size=(510, 620))


def seed_node(seed: int, group: int | None = None) -> Node:
    """One seed for several samplers."""
    return Node(type="PrimitiveInt", inputs={"value": seed}, title="Seed", group=group)


def picture(samples: str, title: str, prefix: str, key: str = "", size: tuple[int, int] = PICTURE) -> dict[str, Node]:
    """Decode, enlarge and save; the first two have nothing to adjust."""
    method = {"upscale_method": "nearest-exact", "width": SIDE * SCALE, "height": SIDE * SCALE, "crop": "disabled"}
    decode = {"samples": Link(samples), "vae": VAE}
    return {
        f"decode{key}": Node(type="VAEDecode", inputs=decode, collapsed=True),
        f"scale{key}": Node(type="ImageScale", inputs={"image": Link(f"decode{key}"), **method}, collapsed=True),
        f"save{key}": save(f"scale{key}", title, prefix, size),
    }


def result(key: str = "") -> tuple[str, str, str]:
    """The part of a column that shows one `picture`."""
    return f"decode{key}", f"scale{key}", f"save{key}"


def branch(title: str, key: str, *before: str, **more: Any) -> Subgraph:
    """A sampler, the nodes before it, and its `picture` without the node that saves it."""
    columns = tuple((each,) for each in (*before, f"sampler{key}", f"decode{key}", f"scale{key}"))
    return Subgraph(title=title, columns=columns, **more)


def save(images: str, title: str, prefix: str, size: tuple[int, int] = PICTURE) -> Node:
    inputs = {"images": Link(images), "filename_prefix": f"snoopi/{prefix}"}
    return Node(type="SaveImage", inputs=inputs, title=title, size=size)


def api_prompt(nodes: Mapping[str, Node]) -> dict[str, dict[str, Any]]:
    """A workflow's nodes in the server's format; node ids are numbers in the order of the description."""
    ids = {key: str(number) for number, key in enumerate(nodes, start=1)}

    def value(given: Any) -> Any:
        return [ids[given.node], given.slot] if isinstance(given, Link) else given

    prompt: dict[str, dict[str, Any]] = {}
    for key, node in nodes.items():
        prompt[ids[key]] = {
            "class_type": node.type,
            "inputs": {name: value(given) for name, given in node.inputs.items()},
        }
        if node.title:
            prompt[ids[key]]["_meta"] = {"title": node.title}
    return prompt
