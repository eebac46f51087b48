"""Workflows that run with the small student of the pack: the first four templates."""

from __future__ import annotations

from scripts import ROOT
from scripts.workflows.parts import (
    MODEL,
    NO_DOWNLOAD,
    NOTE,
    RESULT,
    ROW,
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
)
from snoopi_core.formats.checkpoint import read_metadata

# Everything that depends on the bundled student. ALPHA is its own, from its file.
STUDENT = "snoopi-avatars-student.safetensors"
ALPHA = read_metadata(ROOT / "models" / STUDENT).recommended_alpha
PROMPT, NEGATIVE = "a professor", "glasses"
SEEDS = 64  # how many are tried for a template; see seeds.py
SEED = 0  # only until make.py has found a better one
KNOWS = "people, monsters, potted plants and planets, and how they look"
LOWER = 352  # y of the lower of two results
SMALL = (230, 290)  # size of a result if there are several
RESULTS = ("save_without", LOWER, "save_with")
IN_PACK = "nothing: the small model comes with this pack."
NOTHING = f"{IN_PACK} It draws 64 x 64 pixels, enlarged here."


def common(prompt: str = PROMPT, negative: str = NEGATIVE, file: str = STUDENT) -> dict[str, Node]:
    return {
        "loader": pgsb_loader(file),
        "prompt": text(prompt, "Prompt"),
        "negative": text(negative, "Negative prompt"),
        "latent": latent(),
    }


FIRST = Workflow(
    model="1 Start here",
    about=f"1 step, {NO_DOWNLOAD}",
    note=(
        "Text to image in ONE step: the pictures follow the prompt and avoid the negative (NASA). One seed of "
        f"{SEEDS}, chosen to show it; docs/RESULTS.md in the pack's repository has shares of other pairs over many "
        "seeds.",
        NOTHING,
        f"alpha in NASA Apply: 0 is off, {ALPHA:g} this model's own. Set alpha to 0 and run again to see the same "
        "pictures without it; template 2 shows both. And both texts: it knows "
        f"{KNOWS}; other words, or none, steer anywhere.",
    ),
    nodes={
        **common(),
        "latent": latent(group=RESULT),
        "nasa": nasa(ALPHA),
        "sampler": one_step(Link("nasa"), SEED),
        **picture("sampler", "Result", "one_step"),
    },
    # In a small window the front end's minimap covers the lower right: the pictures lie above it.
    columns=(
        (NOTE, "loader"),
        (NOTE, "prompt"),
        ("negative", ROW, "nasa"),
        ("latent", ROW, "sampler"),
        ("save", "decode", "scale"),
    ),
)

COMPARE = Workflow(
    model="2 Compare",
    about=f"with and without, 1 step, {NO_DOWNLOAD}",
    note=(
        "Same prompt, same noise: what the negative names is gone below; other details may change. One seed of "
        f"{SEEDS}, chosen to show it.",
        NOTHING,
        "the negative prompt, alpha, the Seed node.",
    ),
    nodes={
        **common(),
        "nasa": nasa(ALPHA),
        "seed": seed_node(SEED, RESULT),
        "sampler_without": one_step(MODEL, Link("seed"), collapsed=True),
        "sampler_with": one_step(Link("nasa"), Link("seed"), collapsed=True),
        **picture("sampler_without", "Without the negative", "without", "_without", size=SMALL),
        **picture("sampler_with", "With the negative", "with", "_with", size=SMALL),
    },
    columns=(
        (NOTE, "loader", "latent"),
        (NOTE, "prompt"),
        (LOWER - ROW - 22, "negative", LOWER - 22, "nasa"),  # 22: for a small window
        ("seed", "sampler_without", *result("_without")[:2], LOWER, "sampler_with", *result("_with")[:2]),
        RESULTS,
    ),
)

SWEEP = Workflow(
    model="3 Find alpha",
    about=f"sweep, 1 step, {NO_DOWNLOAD}",
    note=(
        "Which alpha? The same noise at several strengths of the negative, side by side (the paper's Figure 5). One "
        f"seed of {SEEDS}, chosen to show it.",
        NOTHING,
        "alphas, both texts, the seed. Take the smallest alpha that removes it, for NASA Apply.",
    ),
    nodes={
        **common(),
        "sweep": sweep("0, 0.5, 0.75, 1", SEED),
    },
    columns=((NOTE, "loader", "latent"), (NOTE, "prompt", "negative"), ("sweep",)),
)

INSPECT = Workflow(
    model="4 Inspect",
    about=f"how strong it is, {NO_DOWNLOAD}",
    note=(
        "Is alpha right? NASA Inspect says if the negative is OK, too weak or too strong, and shows what it does in "
        "each layer of the model. No picture is drawn.",
        IN_PACK,
        "alpha in NASA Apply, and both texts, and run it again: the words at the top of NASA Inspect change.",
    ),
    nodes={**common(), "nasa": nasa(ALPHA), "inspect": inspect(SEED)},
    columns=((NOTE, "loader", "latent"), (NOTE, "prompt"), ("negative", ROW, "nasa"), ("inspect",)),
)
