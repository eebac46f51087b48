"""Descriptions of the shipped workflows: make.py turns each into its files.

Here are those that run with the small models of the pack; published.py has the others.
"""

from __future__ import annotations

from scripts.workflows.current import PICTURES
from scripts.workflows.parts import (
    MODEL,
    ROW,
    SIDE,
    Link,
    Node,
    Workflow,
    inspect,
    latent,
    nasa,
    one_step,
    pgsb_loader,
    picture,
    result,
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
KNOWS = "colours, shapes, places and backgrounds"
# Two negatives, each in its half of the picture.
MASKED = "a ring, black background"
MASKED_NEGATIVES = ("green", "yellow")
# Of 24 seeds, this one was chosen because most pictures without the negative are squares.
GUIDED, GUIDED_NEGATIVE, GUIDED_SEED, GUIDED_ALPHA = "a blue shape", "square", 4, 0.6
COMPARED, COMPARED_NEGATIVE = "a triangle", "white background"  # Figure 3

LOWER = 480  # y of the lower of two branches
SMALL = (292, 300)  # size of a result if there are several
NO_DOWNLOAD = "no download"
NOTHING = "nothing: the small model comes with this pack. It draws 64 x 64 pixels, enlarged here."
FROM_REPOSITORY = (
    f"the small teacher is in the pack's git repository (models/{TEACHER}). If the pack came from the registry, copy "
    "it from there into ComfyUI's models/checkpoints."
)


def _common(prompt: str = PROMPT, negative: str = NEGATIVE, file: str = STUDENT) -> dict[str, Node]:
    return {
        "loader": pgsb_loader(file),
        "prompt": text(prompt, "Prompt"),
        "negative": text(negative, "Negative prompt"),
        "latent": latent(),
    }


# Masks of the left and the right half, in the host's own nodes.
_PLACED = {"destination": Link("mask_blank"), "source": Link("mask_half"), "x": 0, "y": 0, "operation": "add"}
_HALVES = {
    "mask_blank": Node(type="SolidMask", inputs={"value": 0.0, "width": SIDE, "height": SIDE}, collapsed=True),
    "mask_half": Node(type="SolidMask", inputs={"value": 1.0, "width": SIDE // 2, "height": SIDE}, collapsed=True),
    "mask_left": Node(type="MaskComposite", inputs=_PLACED, title="Mask: left half", collapsed=True),
    "mask_right": Node(type="InvertMask", inputs={"mask": Link("mask_left")}, title="Mask: right half"),
}


FIRST = Workflow(
    model="1 Start here",
    about=f"1 step, {NO_DOWNLOAD}",
    note=(
        "Text to image in ONE step: the pictures follow the prompt and avoid the negative (NASA). An example that "
        "works at nearly every seed; others do not.",
        NOTHING,
        f"alpha in NASA Apply: 0 is off, {ALPHA:g} this model's own. And both texts: it knows {KNOWS}; other words, or "
        "none, steer anywhere.",
    ),
    nodes={
        **_common(),
        "nasa": nasa(ALPHA),
        "sampler": one_step(Link("nasa"), SEED),
        **picture("sampler", "Result", "one_step"),
    },
    columns=(
        ("note", "loader", "latent"),
        ("prompt", ROW + 70, "negative"),
        (ROW, "nasa"),
        (ROW, "sampler"),
        result(),
    ),
)

COMPARE = Workflow(
    model="2 Compare",
    about=f"with and without, 1 step, {NO_DOWNLOAD}",
    note=(
        "Same prompt, same noise: what the negative names is gone below; other details may change.",
        NOTHING,
        "the negative prompt, alpha, the Seed node.",
    ),
    nodes={
        **_common(),
        "nasa": nasa(ALPHA),
        "seed": seed_node(SEED),
        "sampler_without": one_step(MODEL, Link("seed")),
        "sampler_with": one_step(Link("nasa"), Link("seed")),
        **picture("sampler_without", "Without the negative", "without", "_without", size=SMALL),
        **picture("sampler_with", "With the negative", "with", "_with", size=SMALL),
    },
    columns=(
        ("note", "loader", "latent", "seed"),
        ("prompt", LOWER + 70, "negative"),
        (LOWER, "nasa"),
        ("sampler_without", LOWER, "sampler_with"),
        (*result("_without"), LOWER, *result("_with")),
    ),
)

_SWEEP = Workflow(
    model="3 Find alpha",
    about=f"sweep, 1 step, {NO_DOWNLOAD}",
    note=(
        "Which alpha? The same noise at several strengths of the negative, side by side (the paper's Figure 5).",
        NOTHING,
        "alphas, both texts, the seed. Take the smallest alpha that removes it, for NASA Apply.",
    ),
    nodes={
        **_common(),
        "sweep": sweep("0, 0.25, 0.5, 1", SEED),
    },
    columns=(("note", "loader", "latent"), ("prompt", "negative"), ("sweep",)),
)

_INSPECT = Workflow(
    model="4 Inspect",
    about=f"how strong it is, {NO_DOWNLOAD}",
    note=(
        "Is alpha right? NASA Inspect says if the negative is OK, too weak or too strong, and shows what it does in "
        "each layer of the model. No picture is drawn.",
        NOTHING,
        "alpha in NASA Apply, and both texts: the words at the top change.",
    ),
    nodes={**_common(), "nasa": nasa(ALPHA), "inspect": inspect(SEED)},
    columns=(
        ("note", "loader", "latent"),
        ("prompt", ROW + 70, "negative"),
        (ROW, "nasa"),
        ("inspect",),
    ),
)

_MASKS = Workflow(
    model="5 Two masks",
    about=f"two negatives, 1 step, {NO_DOWNLOAD}",
    note=(
        f"Two negatives, each in its half: no {MASKED_NEGATIVES[0]} on the left, no {MASKED_NEGATIVES[1]} on the "
        "right. Above: neither.",
        NOTHING,
        "the negatives, either alpha, the masks (white is where a negative acts; Load Image gives painted ones).",
    ),
    nodes={
        "loader": pgsb_loader(STUDENT),
        "prompt": text(MASKED, "Prompt"),
        "negative_left": text(MASKED_NEGATIVES[0], "Negative, left half"),
        "negative_right": text(MASKED_NEGATIVES[1], "Negative, right half"),
        "latent": latent(),
        "seed": seed_node(SEED),
        **_HALVES,
        "nasa_left": nasa(ALPHA, MODEL, "negative_left", "NASA Apply, left half", mask=Link("mask_left")),
        "nasa_right": nasa(
            ALPHA, Link("nasa_left"), "negative_right", "NASA Apply, right half", mask=Link("mask_right")
        ),
        "sampler_without": one_step(MODEL, Link("seed")),
        "sampler_with": one_step(Link("nasa_right"), Link("seed")),
        **picture("sampler_without", "Without negatives", "without_masks", "_without", size=SMALL),
        **picture("sampler_with", "Two negatives, two masks", "with_masks", "_with", size=SMALL),
    },
    columns=(
        ("note", "loader", "latent", "seed"),
        ("prompt", LOWER + 50, "negative_left", "negative_right", "mask_blank", "mask_half", "mask_left"),
        (LOWER, "nasa_left", "mask_right"),
        (LOWER, "nasa_right"),
        ("sampler_without", LOWER, "sampler_with"),
        (*result("_without"), LOWER, *result("_with")),
    ),
)

_GUIDED = {"steps": 20, "cfg": 3.0, "scheduler": "normal"}
_STEPS = Workflow(
    model="6 Many steps",
    about="with CFG on top, 20 steps",
    note=(
        "A model of many steps, guided by CFG 3, without and with NASA on top: both act in the same run. A chosen "
        f"seed, at which this model draws {GUIDED_NEGATIVE}s; with NASA it draws none.",
        FROM_REPOSITORY,
        "alpha, cfg, the negative prompt; the text for CFG takes a negative of its own.",
    ),
    nodes={
        **_common(GUIDED, GUIDED_NEGATIVE, TEACHER),
        "empty": text("", "Negative for CFG (empty)"),
        "nasa": nasa(GUIDED_ALPHA),
        "seed": seed_node(GUIDED_SEED),
        "sampler_without": with_cfg(MODEL, Link("seed"), negative="empty", **_GUIDED),
        "sampler_with": with_cfg(Link("nasa"), Link("seed"), negative="empty", **_GUIDED),
        **picture("sampler_without", "CFG alone", "cfg", "_without", size=SMALL),
        **picture("sampler_with", "CFG and NASA", "cfg_and_nasa", "_with", size=SMALL),
    },
    columns=(
        ("note", "loader", "latent", "seed"),
        ("prompt", "empty", LOWER + 70, "negative"),
        (LOWER, "nasa"),
        ("sampler_without", LOWER, "sampler_with"),
        (*result("_without"), LOWER, *result("_with")),
    ),
)

# w e+ + (1 - w) e-, with the node for averages. Its widget ends at 1, but a linked number may be larger.
_SUBTRACTED = {
    "weight": Node(type="PrimitiveFloat", inputs={"value": 1.5}, title="w, of the embeddings", size=(250, 60)),
    "embeddings": Node(
        type="ConditioningAverage",
        inputs={
            "conditioning_to": Link("prompt"),
            "conditioning_from": Link("negative"),
            "conditioning_to_strength": Link("weight"),
        },
        title="w prompt + (1 - w) negative",
        size=(250, 100),
    ),
}


def _figure(way: str, title: str) -> dict[str, Node]:
    return picture(f"sampler_{way}", title, f"figure_{way}", f"_{way}", size=SMALL)


_FIGURE = Workflow(
    model="7 Figure 3",
    about=f"beside CFG and embeddings, 1 step, {NO_DOWNLOAD}",
    note=(
        "The paper's Figure 3 at one step: CFG blends, subtracted embeddings change little, NASA removes. One pair, "
        "chosen to show it; docs/RESULTS.md in the pack's repository has many, and embeddings do better there than in "
        "the paper.",
        NOTHING,
        "cfg, w (1.5 is 1.5 prompt - 0.5 negative), alpha, both texts, the Seed node.",
    ),
    nodes={
        **_common(COMPARED, COMPARED_NEGATIVE),
        "seed": seed_node(SEED),
        **_SUBTRACTED,
        "nasa": nasa(ALPHA),
        # Collapsed, since they have nothing to adjust.
        "sampler_none": one_step(MODEL, Link("seed"), collapsed=True),
        "sampler_cfg": with_cfg(MODEL, Link("seed"), negative="negative", steps=1, cfg=2.0, scheduler="sgm_uniform"),
        "sampler_embeddings": one_step(MODEL, Link("seed"), "embeddings", collapsed=True),
        "sampler_nasa": one_step(Link("nasa"), Link("seed"), collapsed=True),
        **_figure("none", "No negative"),
        **_figure("cfg", "CFG"),
        **_figure("embeddings", "Embedding subtraction"),
        **_figure("nasa", "NASA"),
    },
    columns=(
        ("note", "loader", "latent", "seed"),
        ("prompt", "weight", LOWER + 70, "negative"),
        (ROW, "embeddings", LOWER, "nasa"),
        ("sampler_none", ROW, "sampler_cfg", LOWER, "sampler_nasa", "sampler_embeddings"),
        (*result("_none"), LOWER, *result("_nasa")),
        (*result("_cfg"), LOWER, *result("_embeddings")),
    ),
)

WORKFLOWS = (FIRST, COMPARE, _SWEEP, _INSPECT, _MASKS, _STEPS, _FIGURE, *PUBLISHED, *PICTURES, *VIDEOS)
