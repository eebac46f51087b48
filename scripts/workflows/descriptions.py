"""Descriptions of the shipped workflows: make.py turns each into its files.

Here are those that run with the small models of the pack; published.py has the others.
"""

from __future__ import annotations

from scripts.workflows.current import PICTURES
from scripts.workflows.parts import (
    MODEL,
    SIDE,
    Link,
    Node,
    Workflow,
    latent,
    nasa,
    one_step,
    pgsb_loader,
    picture,
    seed_node,
    sweep,
    text,
    with_cfg,
)
from scripts.workflows.published import PUBLISHED
from scripts.workflows.video import VIDEOS

STUDENT = "snoopi-shapes-student.safetensors"
TEACHER = "snoopi-shapes-teacher.safetensors"
ALPHA = 1.0
# A pair of docs/RESULTS.md that shows the effect at nearly every seed: of 160 pictures (seeds 0 to 39, 4 each), all are
# valid with the negative and 99 % without. Not every pair is like that.
PROMPT = "a magenta shape"
NEGATIVE = "triangle"
SEED = 1
LOWER = 540  # y of the lower of two branches
SMALL = (300, 360)  # size of a result if there are several
NO_DOWNLOAD = "Nothing to download: the small model comes with this pack. It draws 64 x 64 pixels, enlarged here."
FROM_REPOSITORY = (
    "The small teacher is in the pack's git repository (models/snoopi-shapes-teacher.safetensors). If the pack came "
    "from the registry, copy it from there into ComfyUI's models/checkpoints."
)


def _common(prompt: str = PROMPT, negative: str = NEGATIVE, file: str = STUDENT) -> dict[str, Node]:
    return {
        "loader": pgsb_loader(file),
        "prompt": text(prompt, "Prompt"),
        "negative": text(negative, "Negative prompt"),
        "latent": latent(),
    }


def _half(key: str, x: int) -> dict[str, Node]:
    """A mask of the left (x = 0) or the right half, in the host's own nodes."""
    blank, half = f"blank_{key}", f"half_{key}"
    placed = {"destination": Link(blank), "source": Link(half), "x": x, "y": 0, "operation": "add"}
    return {
        blank: Node(type="SolidMask", inputs={"value": 0.0, "width": SIDE, "height": SIDE}, collapsed=True),
        half: Node(type="SolidMask", inputs={"value": 1.0, "width": SIDE // 2, "height": SIDE}, collapsed=True),
        f"mask_{key}": Node(type="MaskComposite", inputs=placed, title=f"Mask: {key} half"),
    }


_ONE = Workflow(
    name="one_step_with_negative_prompt",
    note=(
        "Text to image in ONE step: the pictures follow the prompt and avoid the negative (NASA). An example that "
        "works at nearly every seed; others do not.",
        NO_DOWNLOAD,
        "Turn alpha in NASA Apply: 0 is off, 1 this model's own. And both texts: it knows colours, shapes, places and "
        "backgrounds; other words, or none, steer anywhere.",
    ),
    nodes={
        **_common(),
        "nasa": nasa(ALPHA),
        "sampler": one_step(Link("nasa"), SEED),
        **picture("sampler", "Result", "one_step"),
    },
    columns=(
        ("note", "loader", "latent"),
        ("prompt", "negative"),
        ("nasa", "sampler"),
        ("decode", "scale"),
        ("save",),
    ),
)

_BOTH = Workflow(
    name="with_and_without_negative",
    note=(
        "Same prompt, same noise: what the negative names is gone below; other details may change.",
        NO_DOWNLOAD,
        "Turn: the negative prompt, alpha, the Seed node.",
    ),
    nodes={
        **_common(),
        "nasa": nasa(ALPHA),
        "seed": seed_node(SEED),
        "sampler_without": one_step(MODEL, Link("seed")),
        "sampler_with": one_step(Link("nasa"), Link("seed")),
        **picture("sampler_without", "Without the negative", "without", "_without"),
        **picture("sampler_with", "With the negative", "with", "_with"),
    },
    columns=(
        ("note", "loader", "latent", "seed"),
        ("prompt", "negative", "nasa"),
        ("sampler_without", LOWER, "sampler_with"),
        ("decode_without", "scale_without", LOWER, "decode_with", "scale_with"),
        ("save_without", LOWER, "save_with"),
    ),
)

_SWEEP = Workflow(
    name="alpha_sweep",
    note=(
        "Which alpha? The same noise at several strengths of the negative, side by side (the paper's Figure 5).",
        NO_DOWNLOAD,
        "Turn: alphas, both texts, the seed. Take the smallest alpha that removes it, for NASA Apply.",
    ),
    nodes={
        **_common(),
        "sweep": sweep("0, 0.25, 0.5, 1", SEED),
    },
    columns=(("note", "loader", "latent"), ("prompt", "negative"), ("sweep",)),
)

_MASKS = Workflow(
    name="two_negatives_with_masks",
    note=(
        "Two negatives, each in its half: no green on the left, no yellow on the right. Above: neither.",
        NO_DOWNLOAD,
        "Turn: the negatives, either alpha, the masks (white is where a negative acts; Load Image gives painted ones).",
    ),
    nodes={
        "loader": pgsb_loader(STUDENT),
        "prompt": text("a ring, black background", "Prompt"),
        "negative_left": text("green", "Negative, left half"),
        "negative_right": text("yellow", "Negative, right half"),
        "latent": latent(),
        "seed": seed_node(SEED),
        **_half("left", 0),
        **_half("right", SIDE // 2),
        "nasa_left": nasa(ALPHA, MODEL, "negative_left", "NASA Apply, left half", mask=Link("mask_left")),
        "nasa_right": nasa(
            ALPHA, Link("nasa_left"), "negative_right", "NASA Apply, right half", mask=Link("mask_right")
        ),
        "sampler_without": one_step(MODEL, Link("seed")),
        "sampler_with": one_step(Link("nasa_right"), Link("seed")),
        **picture("sampler_without", "Without negatives", "without_masks", "_without", collapsed=True, size=SMALL),
        **picture("sampler_with", "Two negatives, two masks", "with_masks", "_with", collapsed=True, size=SMALL),
    },
    columns=(
        ("note", "loader", "latent", "seed"),
        ("prompt", "negative_left", "negative_right", 570, "blank_left", "half_left", "blank_right", "half_right"),
        ("mask_left", 216, "mask_right"),
        ("nasa_left", LOWER, "nasa_right"),
        ("sampler_without", LOWER, "sampler_with"),
        ("save_without", "decode_without", "scale_without", LOWER, "save_with", "decode_with", "scale_with"),
    ),
)

_GUIDED = {"steps": 20, "cfg": 3.0, "scheduler": "normal"}
_STEPS = Workflow(
    name="many_steps_cfg_and_nasa",
    note=(
        "A model of many steps, guided by CFG 3, without and with NASA on top: both act in the same run. "
        "A chosen seed, at which this model draws squares; with NASA it draws none.",
        FROM_REPOSITORY,
        "Turn: alpha, cfg, the negative prompt; the text for CFG takes a negative of its own.",
    ),
    nodes={
        # Of 24 seeds, the one below was chosen because most pictures without the negative are squares.
        **_common("a blue shape", "square", TEACHER),
        "empty": text("", "Negative for CFG (empty)"),
        "nasa": nasa(0.6),
        "seed": seed_node(4),
        "sampler_without": with_cfg(MODEL, Link("seed"), negative="empty", **_GUIDED),
        "sampler_with": with_cfg(Link("nasa"), Link("seed"), negative="empty", **_GUIDED),
        **picture("sampler_without", "CFG alone", "cfg", "_without"),
        **picture("sampler_with", "CFG and NASA", "cfg_and_nasa", "_with"),
    },
    columns=(
        ("note", "loader", "latent", "seed"),
        ("prompt", "negative", "empty", "nasa"),
        ("sampler_without", LOWER, "sampler_with"),
        ("decode_without", "scale_without", LOWER, "decode_with", "scale_with"),
        ("save_without", LOWER, "save_with"),
    ),
)

# w e+ + (1 - w) e-, with the node for averages. Its widget ends at 1, but a linked number may be larger.
_SUBTRACTED = {
    "weight": Node(type="PrimitiveFloat", inputs={"value": 1.5}, title="w, of the embeddings", size=(330, 60)),
    "embeddings": Node(
        type="ConditioningAverage",
        inputs={
            "conditioning_to": Link("prompt"),
            "conditioning_from": Link("negative"),
            "conditioning_to_strength": Link("weight"),
        },
        title="w prompt + (1 - w) negative",
        size=(330, 100),
    ),
}


def _result(way: str, title: str) -> dict[str, Node]:
    return picture(f"sampler_{way}", title, f"figure_{way}", f"_{way}", collapsed=True, size=SMALL)


def _chain(way: str) -> tuple[str, ...]:
    return f"save_{way}", f"decode_{way}", f"scale_{way}"


_FIGURE = Workflow(
    name="figure_3_cfg_embeddings_nasa",
    note=(
        "The paper's Figure 3 at one step: CFG blends, subtracted embeddings change little, NASA removes. One pair, "
        "chosen to show it; docs/RESULTS.md in the pack's repository has many, and embeddings do better there than in "
        "the paper.",
        NO_DOWNLOAD,
        "Turn: cfg, w (1.5 is 1.5 prompt - 0.5 negative), alpha, both texts, the Seed node.",
    ),
    nodes={
        **_common("a triangle", "white background"),
        "seed": seed_node(SEED),
        **_SUBTRACTED,
        "nasa": nasa(ALPHA),
        # Collapsed, since they have nothing to adjust.
        "sampler_none": one_step(MODEL, Link("seed"), collapsed=True),
        "sampler_cfg": with_cfg(MODEL, Link("seed"), negative="negative", steps=1, cfg=2.0, scheduler="sgm_uniform"),
        "sampler_embeddings": one_step(MODEL, Link("seed"), "embeddings", collapsed=True),
        "sampler_nasa": one_step(Link("nasa"), Link("seed"), collapsed=True),
        **_result("none", "No negative"),
        **_result("cfg", "CFG"),
        **_result("embeddings", "Embedding subtraction"),
        **_result("nasa", "NASA"),
    },
    columns=(
        ("note", "loader", "latent", "seed"),
        ("prompt", "negative", "weight", "embeddings"),
        ("sampler_cfg", 560, "nasa", 920, "sampler_none", "sampler_embeddings", "sampler_nasa"),
        (*_chain("none"), LOWER, *_chain("cfg")),
        (*_chain("embeddings"), LOWER, *_chain("nasa")),
    ),
)

WORKFLOWS = (_ONE, _BOTH, _SWEEP, _MASKS, _STEPS, _FIGURE, *PUBLISHED, *PICTURES, *VIDEOS)
