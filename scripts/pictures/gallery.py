"""Write out/gallery.html: the fixed pairs of prompt and negative, drawn by the bundled student without and with it.

Seeds are the first ones from SEED, the same for every pair; none was chosen. A small network reads what each picture
shows.
"""

from __future__ import annotations

import argparse
import html
import sys
from pathlib import Path

from experiments.avatars.sheet import figures, page
from experiments.avatars.world import AVATARS
from experiments.removal import Generate, Pair, shows
from experiments.sampling import one_step
from scripts import ROOT
from scripts.workflows.bundled import ALPHA, STUDENT
from snoopi_core.formats.atomic import write_atomically
from training.models.loading import load_backbone

OUT = ROOT / "out" / "gallery.html"
SEED = 90_000  # as in `make demo` and `make results`


def part(generate: Generate, pair: Pair, seeds: list[int]) -> str:
    """Two rows of pictures with the same seeds, below how many of them show what the negative names."""
    unwanted = {pair.attribute: pair.values}
    counts, rows = [], []
    for negative in (None, pair.negative):
        pictures = generate([pair.prompt] * len(seeds), seeds, negative)
        seen = AVATARS.read(pictures)
        shown = [shows(row, unwanted) for row in seen.rows]
        # With the negative, no value that it names is right.
        stated = [{**pair.stated, **({pair.attribute: ()} if negative and each else {})} for each in shown]
        caption = f"{pair.prompt}, negative: {negative}" if negative else pair.prompt
        counts.append(sum(shown))
        rows.append(figures(pictures, [caption] * len(seeds), seen, stated))
    without, steered = counts
    text = f"Seen in {without} of {len(seeds)} without the negative, in {steered} with it"
    title = f"{pair.prompt}, negative: {pair.negative}"
    return f"<h2>{html.escape(title)}</h2><p>{html.escape(text)}</p>{''.join(rows)}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.pictures.gallery", description=__doc__)
    parser.add_argument("--count", type=int, default=6, help="pictures of each row (default: 6)")
    parser.add_argument("--out", type=Path, default=OUT, help="the page (default: out/gallery.html)")
    options = parser.parse_args(arguments)
    generate = one_step(load_backbone(str(ROOT / "models" / STUDENT)), scale=ALPHA)
    seeds = list(range(SEED, SEED + options.count))
    about = (
        f"The bundled student in one step, without and with a negative (NASA, alpha {ALPHA:g}), with the same seeds."
    )
    body = "".join(part(generate, pair, seeds) for pair in AVATARS.fixed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, page("Negative prompts in one step", about, body))
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
