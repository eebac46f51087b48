"""`python -m training.shapes.report`: the measured figures of the shipped models as a page, docs/RESULTS.md.

It only lays out what `training.shapes.evaluate --json` wrote, so no figure on the page is typed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from training.shapes.scene import ATTRIBUTES

_INTRO = """\
# Measured in the small world

Written by `make models`, from the numbers that `training.shapes.evaluate` measured; do not edit. The world is made by
this project (64x64 images of one object, captions, and pixel rules that read every attribute back), so these figures
say what the method does there. They do not compare with the paper's, which need its models.

*Stated right*: every attribute that the caption names is in the image. *Valid*: one clean object on a plain background.
*Absent*: the unwanted value is not drawn. *Kept*: what the prompt states is. *Clean*: absent, kept and valid at once.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; floats get three digits."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def quality(teacher: dict[str, Any], student: dict[str, Any]) -> str:
    """How well both follow captions, and how varied what captions leave open is."""
    rows = [
        [name, kind, row["count"], *(row["per_attribute"][a] for a in ATTRIBUTES), row["stated"], row["valid"]]
        for name, measured in (("teacher, 20 steps, cfg 3", teacher), ("student, 1 step", student))
        for kind, row in measured["accuracy"].items()
    ]
    both = (teacher, student)
    spread = [
        [attribute, len(values)]
        + [measured["accuracy"]["partial"]["entropy"][attribute] for measured in both]
        + [measured["prompt_entropy"][attribute] for measured in both]
        for attribute, values in ATTRIBUTES.items()
    ]
    within = [sum(measured["prompt_entropy"].values()) for measured in both]
    collapsed = f"\nThe student keeps {within[1] / within[0]:.0%} of the teacher's entropy within a prompt" + (
        ": it has collapsed to one way of drawing most prompts, whatever the seed.\n"
        if within[1] < within[0] / 2
        else ".\n"
    )
    return (
        "## Following the caption\n\n"
        + table(["model", "captions", "images", *ATTRIBUTES, "stated right", "valid"], rows)
        + "\nEntropy in bits of an attribute that is left open, over many prompts and over the seeds of one prompt:\n\n"
        + table(["attribute", "values", "teacher", "student", "teacher, one prompt", "student, one prompt"], spread)
        + collapsed
    )


def removal(student: dict[str, Any], alpha: float) -> str:
    """Negatives on one step: every pair at the recommended alpha, then the means of every method."""
    measured = student["removal"]
    before, after = measured["per_pair"]["none"], measured["per_pair"][f"nasa {alpha:g}"]
    pairs = [
        [
            pair["prompt"],
            pair["negative"],
            f"{was['absent']:.2f} -> {now['absent']:.2f}",
            f"{was['clean']:.2f} -> {now['clean']:.2f}",
            f"{was['kept']:.2f} -> {now['kept']:.2f}",
        ]
        for pair, was, now in zip(measured["pairs"], before, after, strict=True)
    ]
    means = [
        [f"**{name}**" if name == f"nasa {alpha:g}" else name]
        + [mean[key] for mean in (row["all"], row["lower"]) for key in ("absent", "clean", "kept")]
        for name, row in measured["means"].items()
    ]
    return (
        f"## A negative prompt at one step\n\nNASA at the recommended alpha, {alpha:g}. "
        f"The negatives are modal: what the student itself draws most for that prompt. "
        f"{measured['count']} images a pair, noise seeds from {measured['seed']}.\n\n"
        + table(["prompt", "negative", "absent", "clean", "kept"], pairs)
        + "\nMeans over all pairs, and over the half with the lower baseline (as the paper's Table 3; equal "
        "baselines keep the order above):\n\n"
        + table(["method", "absent", "clean", "kept", "absent (lower half)", "clean", "kept"], means)
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.shapes.report", description=__doc__.splitlines()[0])
    parser.add_argument("teacher", type=Path, help="evaluate's JSON of the teacher")
    parser.add_argument("student", type=Path, help="evaluate's JSON of the student")
    parser.add_argument("--alpha", type=float, required=True, help="the recommended alpha; one that was measured")
    parser.add_argument("--out", type=Path, default=Path("docs/RESULTS.md"))
    args = parser.parse_args(arguments)
    teacher, student = (json.loads(path.read_text(encoding="utf-8")) for path in (args.teacher, args.student))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join([_INTRO, quality(teacher, student), removal(student, args.alpha)]), encoding="utf-8")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
