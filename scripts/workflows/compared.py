"""Workflows that run with the small models of the pack, and show more than one way: masks, CFG, the paper's figure."""

from __future__ import annotations

from dataclasses import replace

from scripts.workflows.bundled import (
    ALPHA,
    NOTHING,
    RESULTS,
    SEED,
    SEEDS,
    SMALL,
    STUDENT,
    common,
)
from scripts.workflows.parts import (
    LOADER,
    MODEL,
    NO_DOWNLOAD,
    NOTE,
    RESULT,
    SIDE,
    TEXT,
    Link,
    Node,
    Subgraph,
    Workflow,
    branch,
    latent,
    nasa,
    one_step,
    pgsb_loader,
    picture,
    result,
    seed_node,
    text,
    with_cfg,
)

TEACHER = "snoopi-avatars-teacher.safetensors"
MASKED, MASKED_NEGATIVES = "a king", ("a crown", "a beard")  # upper half, lower half
GUIDED, GUIDED_NEGATIVE, GUIDED_ALPHA = "a lumberjack", "a beard", 0.5
GUIDED_SEEDS = 8  # how many are tried
COMPARED, COMPARED_NEGATIVE = "a plant", "glasses"  # Figure 3

SAMPLERS = 150  # y of two samplers side by side, below a text
LOWEST = 430  # y of the lower of two ways, each with room for a preview
FROM_REPOSITORY = (
    f"the small teacher is in the pack's git repository (models/{TEACHER}). If the pack came from the registry, copy "
    "it from there into ComfyUI's models/checkpoints."
)

# Masks of the upper and the lower half, in the host's own nodes.
_PLACED = {"destination": Link("mask_blank"), "source": Link("mask_half"), "x": 0, "y": 0, "operation": "add"}
_HALVES = {
    "mask_blank": Node(type="SolidMask", inputs={"value": 0.0, "width": SIDE, "height": SIDE}, collapsed=True),
    "mask_half": Node(type="SolidMask", inputs={"value": 1.0, "width": SIDE, "height": SIDE // 2}, collapsed=True),
    "mask_upper": Node(type="MaskComposite", inputs=_PLACED, title="Mask: upper half", collapsed=True),
    "mask_lower": Node(type="InvertMask", inputs={"mask": Link("mask_upper")}, title="Mask: lower half"),
}

MASKS = Workflow(
    model="5 Two masks",
    about=f"one for each word, 1 step, {NO_DOWNLOAD}",
    note=(
        f'Two negatives, each in its half: "{MASKED_NEGATIVES[0]}" above, "{MASKED_NEGATIVES[1]}" below. The first '
        f"pictures are without both. One seed of {SEEDS}, chosen to show it.",
        NOTHING,
        "the negatives, either alpha, the masks (white is where one acts; double-click *Masks of both halves*).",
    ),
    nodes={
        "loader": pgsb_loader(STUDENT),
        "prompt": text(MASKED, "Prompt"),
        "negative_upper": text(MASKED_NEGATIVES[0], "Negative, upper half"),
        "negative_lower": text(MASKED_NEGATIVES[1], "Negative, lower half"),
        "latent": latent(group=RESULT),
        "seed": seed_node(SEED, RESULT),
        **_HALVES,
        "nasa_upper": nasa(ALPHA, MODEL, "negative_upper", "NASA Apply, upper half", mask=Link("mask_upper")),
        "nasa_lower": nasa(
            ALPHA, Link("nasa_upper"), "negative_lower", "NASA Apply, lower half", mask=Link("mask_lower")
        ),
        "sampler_without": one_step(MODEL, Link("seed"), collapsed=True),
        "sampler_with": one_step(Link("nasa_lower"), Link("seed"), collapsed=True),
        **picture("sampler_without", "Without negatives", "without_masks", "_without", size=SMALL),
        **picture("sampler_with", "Two negatives, two masks", "with_masks", "_with", size=SMALL),
    },
    subgraphs={
        "mask_halves": Subgraph(
            title="Masks of both halves",
            columns=(("mask_blank", "mask_half"), ("mask_upper",), ("mask_lower",)),
            names={"MASK": "upper", "MASK_1": "lower"},
        )
    },
    columns=(
        (NOTE, "loader", "prompt"),
        ("negative_upper", "negative_lower", "mask_halves"),
        ("nasa_upper", 416, "nasa_lower"),
        ("latent", "seed", "sampler_without", *result("_without")[:2], "sampler_with", *result("_with")[:2]),
        RESULTS,
    ),
)

_GUIDED = {"steps": 20, "cfg": 3.0, "scheduler": "normal"}
STEPS = Workflow(
    model="6 Many steps",
    about="with CFG on top, 20 steps",
    note=(
        "A model of many steps, guided by CFG 3, without and with NASA on top. Both steer each of 20 steps, so "
        f"begin with a low alpha, {GUIDED_ALPHA:g}. One seed of {GUIDED_SEEDS}, chosen to show it.",
        FROM_REPOSITORY,
        "alpha, cfg, the negative prompt; the text for CFG takes a negative of its own.",
    ),
    nodes={
        **common(GUIDED, GUIDED_NEGATIVE, TEACHER),
        "latent": replace(latent(), collapsed=True),
        "empty": replace(text("", "Negative for CFG (empty)"), size=(TEXT[0], 70), group=RESULT),
        "nasa": nasa(GUIDED_ALPHA),
        "seed": seed_node(SEED),
        "sampler_without": with_cfg(MODEL, Link("seed"), negative="empty", **_GUIDED),
        "sampler_with": with_cfg(Link("nasa"), Link("seed"), negative="empty", **_GUIDED),
        **picture("sampler_without", "CFG alone", "cfg", "_without", size=SMALL),
        **picture("sampler_with", "CFG and NASA", "cfg_and_nasa", "_with", size=SMALL),
    },
    columns=(
        ("loader", "latent", "seed", NOTE),
        ("prompt", "negative", "nasa"),
        ("empty", SAMPLERS, "sampler_with", *result("_with")[:2]),
        (SAMPLERS, "sampler_without", *result("_without")[:2]),
        RESULTS,
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
_AVERAGED = {"conditioning_to": "positive", "conditioning_from": "negative"}  # what a subgraph calls its inputs


def _figure(way: str, title: str) -> dict[str, Node]:
    return picture(f"sampler_{way}", title, f"figure_{way}", f"_{way}", size=(195, SMALL[1]))


FIGURE = Workflow(
    model="7 Figure 3",
    about=f"beside CFG and embeddings, 1 step, {NO_DOWNLOAD}",
    note=(
        "The paper's Figure 3 at one step. Over many pairs (docs/RESULTS.md in the repository) CFG breaks pictures "
        "before it removes much; subtracted embeddings remove less than NASA, in the paper almost nothing. Pair and "
        "seed were chosen to show NASA.",
        NOTHING,
        "cfg, w (1.5 is 1.5 prompt - 0.5 negative), alpha, both texts, the Seed node. Double-click one of "
        "the four ways to look inside.",
    ),
    nodes={
        **common(COMPARED, COMPARED_NEGATIVE),
        "loader": replace(pgsb_loader(STUDENT), size=(TEXT[0], LOADER[1])),
        "seed": seed_node(SEED),
        **_SUBTRACTED,
        "nasa": nasa(ALPHA),
        "sampler_none": one_step(MODEL, Link("seed")),
        "sampler_cfg": with_cfg(MODEL, Link("seed"), negative="negative", steps=1, cfg=2.0, scheduler="sgm_uniform"),
        "sampler_embeddings": one_step(MODEL, Link("seed"), "embeddings"),
        "sampler_nasa": one_step(Link("nasa"), Link("seed")),
        **_figure("none", "No negative"),
        **_figure("cfg", "CFG"),
        **_figure("embeddings", "Embedding subtraction"),
        **_figure("nasa", "NASA"),
    },
    subgraphs={
        "branch_none": branch("No negative", "_none"),
        "branch_cfg": branch("CFG", "_cfg", widgets={"cfg": ("sampler_cfg", "cfg")}),
        "branch_embeddings": branch(
            "Embeddings", "_embeddings", "weight", "embeddings", widgets={"w": ("weight", "value")}, names=_AVERAGED
        ),
        "branch_nasa": branch("NASA", "_nasa", "nasa", widgets={"alpha": ("nasa", "alpha")}),
    },
    columns=(
        (NOTE, "loader", "latent", "seed"),
        (NOTE, "prompt", "negative"),
        ("branch_none", LOWEST, "branch_cfg"),
        ("branch_embeddings", LOWEST, "branch_nasa"),
        ("save_none", LOWEST, "save_cfg"),
        ("save_embeddings", LOWEST, "save_nasa"),
    ),
)
