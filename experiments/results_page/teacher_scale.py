"""Table 1: the guidance scale of the teacher, from docs/data/teacher_scale.json."""

from __future__ import annotations

from typing import Any

from training.evaluate.report.markdown import mean_and_range, table

PAPER = {"2": 10.77, "3": 9.60, "4": 10.35, "5": 11.53, "U(2, 5)": 9.86}  # FID, SD2.1, 30,000 images of COCO


def scale_table(found: dict[str, Any]) -> str:
    """One row per scale; means over the blocks of seeds."""
    rows = [
        [name]
        + [mean_and_range([block[key] for block in row["blocks"]]) for key in ("stated", "valid", "entropy")]
        + [row["frechet"], f"{PAPER[name]:.2f}" if name in PAPER else ""]
        for name, row in found["scales"].items()
    ]
    return table(["kappa", "stated right", "valid", "entropy", "Fréchet", "paper's FID"], rows)
