"""`python -m training.shapes.report`: docs/RESULTS.md, and the same with STUDY.md as one HTML file.

It only lays out what the measuring commands wrote (see `make study`), so that no figure on a page is typed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training.run_folder import write_atomically
from training.shapes.negatives.results import Negatives
from training.shapes.report import alphas, methods, removals, teacher_scale, verdicts
from training.shapes.report.html import html
from training.shapes.report.plots import draw
from training.shapes.report.quality import quality
from training.shapes.study import page as study_page

_INTRO = """\
# Measured in the small world

Written by `make study`, from the numbers in docs/data and docs/study.json; do not edit. The world is made by this
project (64x64 images of one object, captions, and pixel rules that read every attribute back), so these figures say
what the method does there. They do not compare with the paper's, which need its models; RESULTS.html is this page and
[STUDY.md](STUDY.md) in one file.

*Stated right*: every attribute that the caption names is in the image. *Valid*: one clean object on a plain background.
*Absent*: the unwanted value is not drawn. *Kept*: what the prompt states is. *Clean*: absent, kept and valid at once.
"""
NAMES = ("teacher", "student", "teacher_scale", "negatives")


def page(data: Path, study: Path, alpha: float) -> str:
    """Markdown, from the JSON files in `data` and the study's."""
    teacher, student, scale, found = (json.loads((data / f"{name}.json").read_text("utf-8")) for name in NAMES)
    removed = Negatives(found)
    sections = [
        _INTRO,
        verdicts.section(scale, json.loads(study.read_text("utf-8")), removed, (teacher, student)),
        quality(teacher, student),
        teacher_scale.section(scale),
        removals.section(removed, alpha),
        methods.figure_3(),
        methods.section(removed),
        alphas.section(removed),
    ]
    return "\n".join(sections)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.shapes.report", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("docs/data"), help="JSON files (default: %(default)s)")
    parser.add_argument("--study", type=Path, default=Path("docs/study.json"), help="default: %(default)s")
    parser.add_argument("--alpha", type=float, default=1.0, help="the recommended alpha; one that was measured")
    parser.add_argument("--out", type=Path, default=Path("docs/RESULTS.md"), help="its pictures: images/ beside it")
    args = parser.parse_args(arguments)
    folder = args.out.parent
    draw(Negatives(json.loads((args.data / "negatives.json").read_text("utf-8"))), folder / "images")
    text = page(args.data, args.study, args.alpha)
    study = study_page.page(json.loads(args.study.read_text("utf-8")))
    write_atomically(args.out, text)
    write_atomically(args.out.with_suffix(".html"), html(f"{text}\n\n{study}", folder, "SNOOPI in the small world"))
    print(f"wrote {args.out}, {args.out.with_suffix('.html')}")


if __name__ == "__main__":
    main()
