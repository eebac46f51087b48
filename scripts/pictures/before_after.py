"""Write the before / after pictures of the help pages, made by a real ComfyUI with the small models.

NASA Apply: the same noise without and with it.
One-Step Sampler: the student with KSampler's defaults, and with One-Step Sampler.
PG-SB Loader: one step of the teacher, a many-step model, and of the student distilled from it.

The prompts are chosen to show the difference (the help pages say so). docs/RESULTS.md has rates over many.
"""

from __future__ import annotations

import io
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from live_client import Client, Prompt
from live_server import Server
from PIL import Image, ImageDraw, ImageFont

from scripts import ROOT
from scripts.setup.host import find_host

OUT = ROOT / "web" / "docs" / "images"
STUDENT, TEACHER = (f"snoopi-shapes-{name}.safetensors" for name in ("student", "teacher"))
SEED = 7
SIDE, GAP, LINE = 200, 8, 34  # three columns: ComfyUI shows its help in a narrow panel, at half of this size
# KSampler's own defaults.
KSAMPLER = {"steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}


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


OPEN = ("a blue shape", ""), ("a green shape", ""), ("a ring", "")
STATED = ("a red ring", ""), ("a blue square", ""), ("a green plus", "")
AWAY = ("a green shape", "triangle"), ("a ring", "green"), ("a blue shape", "square")
AFTER = Case(caption="")  # the student used as intended
PAGES = {
    "before_after_nasa.jpg": Page(
        prompts=AWAY,
        rows=(replace(AFTER, caption="without"), replace(AFTER, caption="with NASA Apply, alpha 1", alpha=1.0)),
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


def graph(prompt: str, negative: str, case: Case) -> Prompt:
    """Text to image in the server's format."""
    inputs = {"model": ["5", 0], "positive": ["2", 0], "latent_image": ["4", 0], "seed": SEED}
    inputs |= {"timesteps": "auto", "preset": "auto"} if case.one_step else {**KSAMPLER, "negative": ["3", 0]}
    window = {"start_percent": 0.0, "end_percent": 1.0, "blocks": "all"}
    nodes = {
        "1": ("SnoopiPGSBLoader", {"ckpt_name": case.model, "lora_name": "none", "latents": "auto"}),
        "2": ("CLIPTextEncode", {"text": prompt, "clip": ["1", 1]}),
        "3": ("CLIPTextEncode", {"text": negative, "clip": ["1", 1]}),
        "4": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "5": ("SnoopiNASAApply", {"model": ["1", 0], "negative": ["3", 0], "alpha": case.alpha, **window}),
        "6": ("SnoopiOneStepSampler" if case.one_step else "KSampler", inputs),
        "7": ("VAEDecode", {"samples": ["6", 0], "vae": ["1", 2]}),
        "8": ("SaveImage", {"images": ["7", 0], "filename_prefix": "help"}),
    }
    return {number: {"class_type": kind, "inputs": given} for number, (kind, given) in nodes.items()}


def picture(client: Client, prompt: Prompt) -> Image.Image:
    outcome = client.run(prompt)
    if outcome.error:
        raise RuntimeError(f"{outcome.error['node_type']}: {outcome.error['exception_message']}")
    return Image.open(io.BytesIO(client.view(outcome.images[0]))).convert("RGB").resize((SIDE, SIDE))


def draw(client: Client, page: Page) -> Image.Image:
    """Each row under its caption, each column under its prompt and negative."""
    negatives = any(case.alpha for case in page.rows)
    head, step = GAP + LINE * (2 if negatives else 1), SIDE + LINE + GAP
    sheet = Image.new("RGB", (GAP + len(page.prompts) * (SIDE + GAP), head + GAP + len(page.rows) * step), "#ffffff")
    pen, big, small = ImageDraw.Draw(sheet), ImageFont.load_default(26), ImageFont.load_default(22)
    for column, (prompt, negative) in enumerate(page.prompts):
        left = GAP + column * (SIDE + GAP)
        pen.text((left, GAP), prompt, fill="#57606a", font=small)
        if negatives:
            pen.text((left, GAP + LINE), f"negative: {negative}", fill="#d1242f", font=small)
        for row, case in enumerate(page.rows):
            top = head + GAP + row * step
            sheet.paste(picture(client, graph(prompt, negative, case)), (left, top + LINE))
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
    sys.exit(main())
