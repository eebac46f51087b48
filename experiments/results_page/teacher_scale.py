"""Table 1: the guidance scale of the teacher, from docs/data/teacher_scale.json."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from training.evaluate.report.markdown import spread, table

PAPER = {"2": 10.77, "3": 9.60, "4": 10.35, "5": 11.53, "U(2, 5)": 9.86}  # FID, SD2.1, 30,000 images of COCO
RANDOM = "U(2, 5)"
_TEXT = """\
## Table 1: the teacher's scale, fixed and random

The teacher in {steps} DDIM steps on {count} partial captions in each of {blocks} blocks of captions and seeds, the same
at every scale; a random scale is drawn for each image. Mean (smallest .. largest of the blocks). *Entropy*: bits, of
what captions leave open. *Fréchet*: the distance of 48 mean colours an image from those of {real} drawings, all blocks
in one; in a world as small as this it may turn from seed to seed. Right: the paper's FID of SD2.1.

"""


def lead(found: dict[str, Any], key: str) -> list[float]:
    """Of every block: the random scale minus the mean of the paper's fixed ones."""
    fixed = [found["scales"][name]["blocks"] for name in PAPER if name != RANDOM]
    return [
        block[key] - fmean(rows[n][key] for rows in fixed) for n, block in enumerate(found["scales"][RANDOM]["blocks"])
    ]


def section(found: dict[str, Any]) -> str:
    """Markdown."""
    rows = [
        [name]
        + [spread([block[key] for block in row["blocks"]]) for key in ("stated", "valid", "entropy")]
        + [row["frechet"], f"{PAPER[name]:.2f}" if name in PAPER else ""]
        for name, row in found["scales"].items()
    ]
    words = {"steps": found["steps"], "count": found["count"], "blocks": len(found["seeds"]), "real": found["real"]}
    head = ["kappa", "stated right", "valid", "entropy", "Fréchet", "paper's FID"]
    return _TEXT.format(**words) + table(head, rows)
