"""How well teacher and student follow captions, and how varied they are, from `experiments.shapes.evaluate --json`."""

from __future__ import annotations

from typing import Any

from training.evaluate.report.markdown import table
from training.prompts.shapes.scene import ATTRIBUTES


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
        ": it draws a prompt in few ways, whatever the seed.\n" if within[1] < within[0] / 2 else ".\n"
    )
    return (
        "## Following the caption\n\n"
        + table(["model", "captions", "images", *ATTRIBUTES, "stated right", "valid"], rows)
        + "\nEntropy in bits of an attribute that is left open, over many prompts and over the seeds of one prompt:\n\n"
        + table(["attribute", "values", "teacher", "student", "teacher, one prompt", "student, one prompt"], spread)
        + collapsed
    )
