"""The tables of docs/RESULTS.md, except the comparison of methods (methods.py)."""

from __future__ import annotations

from typing import Any

from experiments.negatives.results import PLAIN, Negatives
from experiments.removal import SHARES
from training.evaluate.report.markdown import mean_and_range, mean_with_interval, table
from training.prompts.shapes.scene import ATTRIBUTES

PAPER_FID = {"2": 10.77, "3": 9.60, "4": 10.35, "5": 11.53, "U(2, 5)": 9.86}  # SD2.1, 30,000 images of COCO


def captions_table(teacher: dict[str, Any], student: dict[str, Any]) -> str:
    """Shares of images that follow their caption."""
    rows = [
        [name, kind, row["count"], *(row["per_attribute"][a] for a in ATTRIBUTES), row["stated"], row["valid"]]
        for name, measured in (("teacher, 20 steps, cfg 3", teacher), ("student, 1 step", student))
        for kind, row in measured["accuracy"].items()
    ]
    return table(["model", "captions", "images", *ATTRIBUTES, "stated right", "valid"], rows)


def entropy_table(teacher: dict[str, Any], student: dict[str, Any]) -> str:
    """Entropy of an attribute that is not stated, over many prompts and within one."""
    rows = [
        [attribute, len(values)]
        + [measured["accuracy"]["partial"]["entropy"][attribute] for measured in (teacher, student)]
        + [measured["prompt_entropy"][attribute] for measured in (teacher, student)]
        for attribute, values in ATTRIBUTES.items()
    ]
    return table(["attribute", "values", "teacher", "student", "teacher, one prompt", "student, one prompt"], rows)


def scale_table(found: dict[str, Any]) -> str:
    """One row per scale; means over the blocks of seeds."""
    rows = [
        [name]
        + [mean_and_range([block[key] for block in row["blocks"]]) for key in ("stated", "valid", "entropy")]
        + [row["frechet"], f"{PAPER_FID[name]:.2f}" if name in PAPER_FID else ""]
        for name, row in found["scales"].items()
    ]
    return table(["kappa", "stated right", "valid", "entropy", "Fréchet", "paper's FID"], rows)


def _arms(found: Negatives, alpha: float) -> dict[str, tuple[str, str]]:
    """(without the negative, with NASA) by number of steps."""
    return {
        "one step": (PLAIN, found.strengths("nasa")[alpha]),
        "four steps": ("4 none", found.strengths("nasa", 4)[alpha]),
    }


def pairs_table(found: Negatives, alpha: float) -> str:
    """One row per pair of prompt and negative."""
    arms = _arms(found, alpha)
    rows = [
        [pair["prompt"], pair["negative"]]
        + [
            f"{found.shares(before, key)[n]:.2f} -> {found.shares(after, key)[n]:.2f}"
            for before, after in arms.values()
            for key in ("absent", "clean")
        ]
        + [found.shares(arms["one step"][1], "kept")[n]]
        for n, pair in enumerate(found.pairs)
    ]
    columns = [f"{key}, {name}" for name in arms for key in ("absent", "clean")]
    return table(["prompt", "negative", *columns, "kept, one step"], rows)


def means_table(found: Negatives, alpha: float) -> str:
    """Means over the pairs."""
    rows = [
        [
            f"{steps}, {name}",
            *(mean_with_interval(found.shares(arm, key)) for key in SHARES),
            mean_and_range(found.blocks(arm, "absent")),
        ]
        for steps, arms in _arms(found, alpha).items()
        for name, arm in zip(("no negative", "NASA"), arms, strict=True)
    ]
    return table(["", *SHARES, "absent by block"], rows)


def best_alphas(found: Negatives) -> list[float]:
    """For each pair: the alpha with the most clean removals; the smallest if several are equal."""
    return _chosen({alpha: found.shares(arm, "clean") for alpha, arm in found.strengths("nasa").items()})


def held_out_gain(found: Negatives) -> list[float]:
    """For each pair: clean removals at the best alpha of the pair minus those at the best common alpha.

    Both alphas are chosen on all blocks of seeds but one, and counted on that one.
    """
    counts = {alpha: found.found["arms"][arm]["clean"] for alpha, arm in found.strengths("nasa").items()}
    blocks, gains = range(len(found.protocol["seeds"])), []
    for block in blocks:
        others = [n for n in blocks if n != block] or [block]
        seen = {alpha: list(map(sum, zip(*(rows[n] for n in others), strict=True))) for alpha, rows in counts.items()}
        overall = max(seen, key=lambda alpha: sum(seen[alpha]))
        gains.append([counts[own][block][n] - counts[overall][block][n] for n, own in enumerate(_chosen(seen))])
    return [sum(column) / len(column) / found.protocol["images"] for column in zip(*gains, strict=True)]


def _chosen(shares: dict[float, list[float]]) -> list[float]:
    pairs = range(len(next(iter(shares.values()))))
    return [max(shares, key=lambda alpha, n=n: (shares[alpha][n], -alpha)) for n in pairs]


def alpha_table(found: Negatives) -> str:
    """How many pairs each alpha is best for, and what choosing by pair gains."""
    best = best_alphas(found)
    counts = [f"{best.count(alpha)} at {alpha:g}" for alpha in sorted(set(best))]
    overall = float(found.best("nasa").rpartition(":")[2])
    row = [f"{overall:g}", f"{found.share(found.best('nasa'), 'clean'):.2f}", ", ".join(counts)]
    head = ["best alpha for all", "clean", "pairs by their best alpha", "gain in clean by choosing for each pair"]
    return table(head, [[*row, mean_with_interval(held_out_gain(found))]])
