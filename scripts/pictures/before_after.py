"""Write the before / after pictures of the help pages, made by a real ComfyUI with the small models.

NASA Apply: the same noise without and with it.
One-Step Sampler: the student with KSampler's defaults, and with One-Step Sampler.
PG-SB Loader: one step of the teacher, a many-step model, and of the student distilled from it.

The prompts are chosen to show the difference (the help pages say so). docs/RESULTS.md has rates over many.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from live_client import Client, Prompt
from live_server import Server
from PIL import Image, ImageDraw, ImageFont

from scripts import ROOT
from scripts.pictures.run import run
from scripts.setup.host import find_host
from scripts.workflows import parts
from scripts.workflows.bundled import ALPHA, STUDENT
from scripts.workflows.compared import TEACHER
from scripts.workflows.seeds import LEAST, read, score
from training.prompts.avatars.parse import parse

OUT = ROOT / "web" / "docs" / "images"
SEED, SEEDS = 7, 12
SIDE, GAP, LINE = 200, 8, 34  # three columns: ComfyUI shows its help in a narrow panel, at half of this size


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row: how the page's prompts are sampled."""

    caption: str
    model: str = STUDENT
    one_step: bool = True
    alpha: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Page:
    """(prompt, negative) pairs, and the rows before and after; the negative is used in rows with an alpha."""

    prompts: tuple[tuple[str, str], ...]
    rows: tuple[Case, Case]


OPEN = ("a person", ""), ("a monster", ""), ("a planet", "")
STATED = ("a red monster", ""), ("a cactus", ""), ("a blue planet", "")
AWAY = ("a person", "glasses"), ("a monster", "horns"), ("a planet", "a beard")
AFTER = Case(caption="")  # the student used as intended
PAGES = {
    "before_after_nasa.jpg": Page(
        prompts=AWAY,
        rows=(
            replace(AFTER, caption="without"),
            replace(AFTER, caption=f"with NASA Apply, alpha {ALPHA:g}", alpha=ALPHA),
        ),
    ),
    "before_after_sampler.jpg": Page(
        prompts=STATED,
        rows=(
            Case(caption="KSampler with its defaults: 20 steps, cfg 8", one_step=False),
            replace(AFTER, caption="One-Step Sampler: 1 step"),
        ),
    ),
    "before_after_loader.jpg": Page(
        prompts=OPEN,
        rows=(
            Case(caption="one step of a model of many steps", model=TEACHER),
            replace(AFTER, caption="one step of the student that PG-SB made of it"),
        ),
    ),
}


def graph(prompt: str, negative: str, case: Case, seed: int) -> Prompt:
    """Text to image in the server's format."""
    model = parts.Link("nasa")
    # KSampler has its own defaults.
    defaults = parts.with_cfg(model, seed, negative="negative", steps=20, cfg=8.0, scheduler="normal")
    return parts.api_prompt(
        {
            "loader": parts.pgsb_loader(case.model),
            "prompt": parts.text(prompt, "Prompt"),
            "negative": parts.text(negative, "Negative prompt"),
            "latent": parts.latent(count=1),
            "nasa": parts.nasa(case.alpha),
            "sampler": parts.one_step(model, seed) if case.one_step else defaults,
            "decode": parts.Node(type="VAEDecode", inputs={"samples": parts.Link("sampler"), "vae": parts.VAE}),
            "save": parts.save("decode", "Result", "help"),
        }
    )


def column(client: Client, prompt: str, negative: str, rows: tuple[Case, Case]) -> list[Image.Image]:
    """A picture for each row. With a negative: of `SEEDS` seeds the one that shows its effect best.

    Raises:
        RuntimeError: no seed shows the negative's effect.
    """

    def drawn(seed: int) -> list[Image.Image]:
        return [run(client, graph(prompt, negative, case, seed))[0][0][0] for case in rows]

    if not negative:
        return drawn(SEED)
    found = [drawn(seed) for seed in range(SEEDS)]
    scores = [score(read(pair[:1], 1), read(pair[1:], 1), [parse(negative)]) for pair in found]
    if max(scores) < LEAST:
        raise RuntimeError(
            f"none of {SEEDS} seeds shows what {negative!r} takes away from {prompt!r}: choose other words"
        )
    return found[scores.index(max(scores))]


def draw(client: Client, page: Page) -> Image.Image:
    """Each row under its caption, each column under its prompt and negative."""
    negatives = any(case.alpha for case in page.rows)
    head, step = GAP + LINE * (2 if negatives else 1), SIDE + LINE + GAP
    sheet = Image.new("RGB", (GAP + len(page.prompts) * (SIDE + GAP), head + GAP + len(page.rows) * step), "#ffffff")
    pen, big, small = ImageDraw.Draw(sheet), ImageFont.load_default(26), ImageFont.load_default(22)
    for number, (prompt, negative) in enumerate(page.prompts):
        left = GAP + number * (SIDE + GAP)
        pen.text((left, GAP), prompt, fill="#57606a", font=small)
        if negatives:
            pen.text((left, GAP + LINE), f"negative: {negative}", fill="#d1242f", font=small)
        for row, image in enumerate(column(client, prompt, negative, page.rows)):
            top = head + GAP + row * step
            sheet.paste(image.resize((SIDE, SIDE)), (left, top + LINE))
    for row, case in enumerate(page.rows):
        pen.text((GAP, head + GAP + row * step), case.caption, fill="#1b1f24", font=big)
    return sheet


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="snoopi-help-") as base, Server(find_host(), Path(base)) as server:
        for name, page in PAGES.items():
            draw(server.client, page).save(OUT / name, quality=90)
            print((OUT / name).relative_to(ROOT))
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m scripts.pictures.before_after",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    ).parse_args()
    sys.exit(main())
