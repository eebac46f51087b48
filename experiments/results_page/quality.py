"""How well teacher and student follow captions, and how varied they are, from `experiments.shapes.evaluate --json`."""

from __future__ import annotations

from typing import Any

from training.evaluate.report.markdown import table
from training.prompts.shapes.scene import ATTRIBUTES


def captions_table(teacher: dict[str, Any], student: dict[str, Any]) -> str:
    """Shares of images that follow their caption."""
    rows = [
        [name, kind, row["count"], *(row["per_attribute"][a] for a in ATTRIBUTES), row["stated"], row["valid"]]
        for name, measured in (("teacher, 20 steps, cfg 3", teacher), ("student, 1 step", student))
        for kind, row in measured["accuracy"].items()
    ]
    return table(["model", "captions", "images", *ATTRIBUTES, "stated right", "valid"], rows)


def entropy_table(teacher: dict[str, Any], student: dict[str, Any]) -> str:
    """Entropy of an attribute that is left open, over many prompts and within one."""
    rows = [
        [attribute, len(values)]
        + [measured["accuracy"]["partial"]["entropy"][attribute] for measured in (teacher, student)]
        + [measured["prompt_entropy"][attribute] for measured in (teacher, student)]
        for attribute, values in ATTRIBUTES.items()
    ]
    return table(["attribute", "values", "teacher", "student", "teacher, one prompt", "student, one prompt"], rows)
