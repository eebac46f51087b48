"""`python -m scripts.pictures.readme`: write the README's pictures, made by a real ComfyUI with the bundled student.

docs/images/strip.png: three pairs of prompt and negative, the same noise without and with it. docs/images/alpha.webp:
pictures of one pair while alpha rises and falls. A negative shows something only where the unwanted is drawn without
it: so both have the first valid pictures of a batch that show it. The strip, which is to show what the nodes are for,
has those of them where the negative worked, by two judges. How often it does, over all pictures: docs/RESULTS.md.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import starmap
from pathlib import Path

from live_client import Client, load_prompt
from live_server import Server
from PIL import Image, ImageDraw, ImageFont, ImageOps

from experiments.avatars.judges import nearest_values
from experiments.avatars.world import AVATARS
from experiments.avatars.world import pair as pair_of
from experiments.removal import Pair, verdicts
from scripts import ROOT
from scripts.demo import BOTH, ONE, SAMPLE, SEED, fill, pixels
from scripts.pictures.run import run
from scripts.setup.host import find_host
from training.prompts.avatars.rules import read

OUT = ROOT / "docs" / "images"
PAIRS = tuple(starmap(pair_of, (("a person", "glasses"), ("a monster", "horns"), ("a plant", "glasses"))))
COLUMNS, SIDE, GAP, LINE = 4, 90, 6, 26
MARGIN, LABELS = 10, 54  # around a picture; width of the labels at the left of the rows
ALPHAS = tuple(step / 10 for step in range(11))
FRAME_MS, HELD_MS = 160, 900
INK, GREY, RED = "#1b1f24", "#656d76", "#d1242f"


def row(pictures: list[Image.Image]) -> Image.Image:
    """Pictures side by side."""
    made = Image.new("RGB", (COLUMNS * (SIDE + GAP) - GAP, SIDE), "white")
    for number, picture in enumerate(pictures[:COLUMNS]):
        made.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (number * (SIDE + GAP), 0))
    return made


def captioned(rows: list[Image.Image], prompt: str, negative: str) -> Image.Image:
    """Rows under the prompt and, in red, the negative."""
    made = Image.new("RGB", (rows[0].width, LINE + len(rows) * (SIDE + GAP) - GAP), "white")
    pen, font = ImageDraw.Draw(made), ImageFont.load_default(17)
    pen.text((0, 0), prompt, fill=INK, font=font)
    pen.text((pen.textlength(prompt + "  ", font=font), 0), negative, fill=RED, font=font)
    for number, each in enumerate(rows):
        made.paste(each, (0, LINE + number * (SIDE + GAP)))
    return made


def showing(pictures: list[Image.Image], pair: Pair) -> list[int]:
    """Which pictures, drawn without the negative, are valid and show what it names."""
    seen = AVATARS.read(pixels(pictures))
    absent = verdicts(seen, pair)["absent"]
    return [number for number in range(len(pictures)) if seen.valid[number] and not absent[number]]


def removed(pictures: list[Image.Image], pair: Pair) -> list[int]:
    """Which pictures, drawn with the negative, are clean by the classifier, and free of what it names by the nearest
    drawing, too."""
    images = pixels(pictures)
    clean = verdicts(AVATARS.read(images), pair)["clean"]
    nearest = nearest_values(images, read(images).scenes, pair.attribute)
    return [number for number, value in enumerate(nearest) if clean[number] and value not in pair.values]


def pair_rows(client: Client, pair: Pair) -> Image.Image:
    """The same noise without and with the negative."""
    prompt = fill(load_prompt(BOTH), text=pair.prompt, negative=pair.negative, seed=SEED, count=SAMPLE)
    without, steered = run(client, prompt)[0]
    worked = set(removed(steered, pair))
    chosen = [number for number in showing(without, pair) if number in worked]
    rows = [row([pictures[number] for number in chosen]) for pictures in (without, steered)]
    return captioned(rows, pair.prompt, f"negative: {pair.negative}")


def with_margin(picture: Image.Image) -> Image.Image:
    return ImageOps.expand(picture, MARGIN, "white")


def strip(client: Client) -> Image.Image:
    """The pairs beside each other, less than 300 pixels high, and what the rows are at the left."""
    parts = [pair_rows(client, pair) for pair in PAIRS]
    width, between = sum(part.width for part in parts), 5 * GAP
    made = Image.new("RGB", (LABELS + width + between * (len(parts) - 1), parts[0].height), "white")
    pen, font = ImageDraw.Draw(made), ImageFont.load_default(13)
    for number, label in enumerate(("without", "with")):
        pen.text((0, LINE + number * (SIDE + GAP) + SIDE // 2), label, fill=GREY, font=font, anchor="lm")
    left = LABELS
    for part in parts:
        made.paste(part, (left, 0))
        left += part.width + between
    return with_margin(made)


def frames(client: Client, pair: Pair) -> list[Image.Image]:
    """The same noise at each alpha."""
    drawn = []
    for alpha in ALPHAS:
        prompt = fill(load_prompt(ONE), text=pair.prompt, negative=pair.negative, seed=SEED, count=SAMPLE, alpha=alpha)
        drawn.append(run(client, prompt)[0][0])
    chosen = showing(drawn[0], pair)[:COLUMNS]
    return [
        with_margin(
            captioned(
                [row([pictures[number] for number in chosen])],
                pair.prompt,
                f"negative: {pair.negative}, alpha {alpha:.1f}",
            )
        )
        for alpha, pictures in zip(ALPHAS, drawn, strict=True)
    ]


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="snoopi-readme-") as base, Server(find_host(), Path(base)) as server:
        strip(server.client).save(OUT / "strip.png", optimize=True)
        up = frames(server.client, PAIRS[0])
    shown = [*up, *up[-2:0:-1]]  # to the last alpha and back
    times = [HELD_MS if number in (0, len(up) - 1) else FRAME_MS for number in range(len(shown))]
    shown[0].save(OUT / "alpha.webp", save_all=True, append_images=shown[1:], duration=times, loop=0, quality=85)
    print(f"written to {OUT}: strip.png, alpha.webp")
    return 0


if __name__ == "__main__":
    sys.exit(main())
