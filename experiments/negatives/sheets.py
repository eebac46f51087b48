"""Contact sheets like the paper's Figures 3 and 5, of the pairs that were measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from experiments.negatives.results import Negatives
from experiments.negatives.settings import STRENGTHS, TITLES
from experiments.removal import Generate, Pair, World, verdicts
from experiments.sampling import one_step
from snoopi_core.pictures.drawing import load_font, wrap_text
from training.evaluate.generate.student import recommended_alpha
from training.models.backbone import Backbone
from training.models.guidance.methods import Method

SCALE = 2  # enlargement of the images
LABEL, LINE = 20, 16  # heights of a row's label and of a line of a column's title, pixels
GAP = 2
SEEDS = 8  # pictures in a row of the sheet of pairs
TRIED = range(98_000, 98_100)  # seeds from which a row's is chosen; nothing is tuned, chosen or measured on them


def draw_sheets(world: World, model: Backbone, found: Negatives, pairs: list[Pair], folder: Path) -> None:
    """Write the sheets.

    results-pairs.png: of the fixed pairs, some seeds of each prompt, and with NASA at the alpha of the file and each of
    its negatives.
    results-alpha-sheet.png and results-methods.png: a pair in each row, a column for each alpha, or for each method at
    its best strength, and NASA at the alpha of the file. The noise of a row is that of `first_shown`; neither
    sheet is written if no pair is shown.
    """
    seed = found.protocol["seeds"][0]
    best = {name: Method.parse(found.best(name).partition(" ")[2]) for name in STRENGTHS}
    chosen = [pair for pair in pairs if pair.fixed] or pairs[::2]
    of_file = recommended_alpha(model.source)
    shipped = best["nasa"] if of_file is None else Method("nasa", of_file)
    plain, steered = (_generate(model, method) for method in (Method("none"), shipped))
    seeds, shown = list(range(seed, seed + SEEDS)), {}
    for pair in chosen:
        if pair.prompt not in shown:
            shown[pair.prompt] = plain([pair.prompt] * SEEDS, seeds)
        label = f"{pair.prompt}, negative: {pair.negative}"
        shown[label] = steered([pair.prompt] * SEEDS, seeds, pair.negative)
    contact_sheet([*shown.items()], folder / "results-pairs.png")
    first = first_shown(world, plain, chosen)
    if not first:
        return  # each pair was named on stderr
    alphas = [Method("nasa", alpha) for alpha in found.strengths("nasa")]
    both = [best["nasa"]] if shipped == best["nasa"] else [best["nasa"], shipped]
    compared = [*both, *(method for name, method in best.items() if name != "nasa")]
    titles = [f"{TITLES[method.name]} {method.strength:g}" for method in compared]
    for name, methods, columns in (
        ("results-alpha-sheet", alphas, ["alpha 0", *(f"alpha {method.strength:g}" for method in alphas)]),
        ("results-methods", compared, ["no negative", *titles]),
    ):
        several = [_generate(model, method) for method in (Method("none"), *methods)]
        rows = [
            (
                f"{pair.prompt}, negative: {pair.negative} (seed {seed})",
                torch.cat([generate([pair.prompt], [seed], pair.negative) for generate in several]),
            )
            for pair, seed in first
        ]
        contact_sheet(rows, folder / f"{name}.png", columns)


def first_shown(world: World, plain: Generate, pairs: list[Pair]) -> list[tuple[Pair, int]]:
    """Each pair with the first of the seeds `TRIED` whose picture without a negative is valid and shows the unwanted.

    In other pictures a negative has nothing to remove. A pair that no seed shows is left out, and named on stderr.
    """
    drawn = {prompt: world.read(plain([prompt] * len(TRIED), [*TRIED])) for prompt in {pair.prompt for pair in pairs}}
    found = []
    for pair in pairs:
        seen = drawn[pair.prompt]
        several = zip(TRIED, seen.valid, verdicts(seen, pair)["absent"], strict=True)
        seed = next((seed for seed, valid, absent in several if valid and not absent), None)
        if seed is None:
            print(
                f"{pair.prompt!r} minus {pair.negative!r} is not in the sheets: without the negative, no valid picture "
                f"of seeds {TRIED.start} to {TRIED.stop - 1} shows it",
                file=sys.stderr,
            )
        else:
            found.append((pair, seed))
    return found


def _generate(model: Backbone, method: Method) -> Generate:
    return one_step(model, method.name, method.strength)


def contact_sheet(rows: list[tuple[str, torch.Tensor]], path: Path, titles: Sequence[str] = ()) -> None:
    """Write a PNG with one row for each label and its images (B, 3, H, W) in [0, 1], all of the same size.

    titles: of the columns, written above them.
    """
    height, width = (side * SCALE for side in rows[0][1].shape[2:])
    columns, font = max(len(images) for _, images in rows), load_font(13)
    heads = [wrap_text(title, font, width) for title in titles]
    above = max((LINE * len(lines) + 3 * GAP for lines in heads), default=0)
    sheet = Image.new("RGB", (columns * (width + GAP), above + len(rows) * (height + LABEL)), "#ffffff")
    draw = ImageDraw.Draw(sheet)
    for column, lines in enumerate(heads):
        left, top = column * (width + GAP) + 2, above - LINE * len(lines) - 3 * GAP
        draw.multiline_text((left, top), "\n".join(lines), fill="#000000", font=font, spacing=1)
    for n, (label, images) in enumerate(rows):
        top = above + n * (height + LABEL)
        draw.text((2, top + 2), label, fill="#000000", font=font)
        pixels = (images.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for column, image in enumerate(pixels):
            tile = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (column * (width + GAP), top + LABEL))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
