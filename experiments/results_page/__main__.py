"""`python -m experiments.results_page`: docs/RESULTS.md, and the same with STUDY.md as one HTML file.

It only lays out what the measuring commands wrote (see `make study`), so that no figure on a page is typed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from experiments.guidance_study import page as study_page
from experiments.negatives.results import Negatives
from experiments.negatives.settings import arms
from experiments.results_page import alphas, methods, removals, teacher_scale, verdicts
from experiments.results_page.html import html
from experiments.results_page.plots import draw
from experiments.results_page.quality import quality
from experiments.teacher_scale import SCALES, name_of
from snoopi_core.formats.atomic import write_atomically

_INTRO = """\
# Measured in the small world

Written by `make study`, from the numbers in docs/data and docs/study.json; do not edit. The world is made by this
project (64x64 images of one object, captions, and pixel rules that read every attribute back), so these figures say
what the method does there. They do not compare with the paper's, which need its models; RESULTS.html is this page and
[STUDY.md](STUDY.md) in one file.

*Stated right*: every attribute that the caption names is in the image. *Valid*: one clean object on a plain background.
*Absent*: the unwanted value is not drawn. *Kept*: what the prompt states is. *Clean*: absent, kept and valid at once.
"""
TITLE = "SNOOPI in the small world"
NAMES = ("teacher", "student", "teacher_scale", "negatives")
Data = dict[str, dict[str, Any]]


def load(data: Path, study: Path) -> Data:
    """What the measuring commands wrote, by name, and "study".

    Raises:
        ValueError: something is missing, or was measured of another model.
    """
    paths = {name: data / f"{name}.json" for name in NAMES} | {"study": study}
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        raise ValueError(f"not measured yet: {', '.join(missing)}; `make study` measures what is missing")
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()}
    for one, other in (("student", "negatives"), ("teacher", "teacher_scale")):
        if found[one]["fingerprint"] != found[other]["fingerprint"]:
            raise ValueError(f"{paths[one]} and {paths[other]} are of different models; delete them and `make results`")
    measured = found["negatives"]["arms"].keys()
    if missing := [str(arm) for arm in arms() if str(arm) not in measured]:
        raise ValueError(f"{paths['negatives']} lacks {', '.join(missing)}; `make results` goes on with it")
    if missing := [name_of(scale) for scale in SCALES if name_of(scale) not in found["teacher_scale"]["scales"]]:
        raise ValueError(f"{paths['teacher_scale']} lacks kappa {', '.join(missing)}; `make results` goes on with it")
    return found


def page(data: Data, alpha: float) -> str:
    """Markdown.

    Raises:
        ValueError: NASA was not measured at `alpha`.
    """
    removed = Negatives(data["negatives"])
    known = sorted(removed.strengths("nasa").keys() & removed.strengths("nasa", 4).keys())
    if alpha not in known:
        raise ValueError(f"alpha {alpha:g} was not measured in one step and in four; available: {known}")
    sections = [
        _INTRO,
        verdicts.section(data["teacher_scale"], data["study"], removed, (data["teacher"], data["student"])),
        quality(data["teacher"], data["student"]),
        teacher_scale.section(data["teacher_scale"]),
        removals.section(removed, alpha),
        methods.figure_3(removed),
        methods.section(removed),
        alphas.section(removed),
    ]
    return "\n".join(sections)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.results_page", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("docs/data"), help="JSON files (default: %(default)s)")
    parser.add_argument("--study", type=Path, default=Path("docs/study.json"), help="default: %(default)s")
    parser.add_argument("--alpha", type=float, default=1.0, help="the recommended alpha; one that was measured")
    parser.add_argument("--out", type=Path, default=Path("docs/RESULTS.md"), help="its pictures: images/ beside it")
    args = parser.parse_args(arguments)
    folder = args.out.parent
    try:
        data = load(args.data, args.study)
        text = page(data, args.alpha)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    draw(Negatives(data["negatives"]), folder / "images")
    pages = {args.out.name: text, "STUDY.md": study_page.page(data["study"])}
    write_atomically(args.out.with_suffix(".html"), html(pages, folder, TITLE))
    write_atomically(args.out, text)
    print(f"wrote {args.out}, {args.out.with_suffix('.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
