"""The tables of docs/RESULTS.md about following captions, variety and removal; methods.py has the others."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from experiments.avatars.measure import KINDS, variety
from experiments.negatives.results import PLAIN, Negatives
from experiments.removal import SHARES
from training.evaluate.report.markdown import mean_and_range, mean_with_interval, table

PAPER_FID = {"2": 10.77, "3": 9.60, "4": 10.35, "5": 11.53, "U(2, 5)": 9.86}  # SD2.1, 30,000 images of COCO
Measured = dict[str, Any]
ASKED = 20  # pictures, for an attribute to be called the worst


def verdict_table(teacher: Measured, student: Measured, found: Negatives, alpha: float) -> str:
    """The bars that were set before, and what was reached. Of two kinds of captions, the lower figure."""
    kinds, lower = ("partial", "full"), "(the lower of partial and full captions)"

    def least(measured: Measured, key: str) -> float:
        return min(measured[kind][key] for kind in kinds)

    worst = min(worst_attribute(teacher, kind)[1] for kind in kinds)
    bars = [
        (f"teacher: stated attributes right, mean over attributes {lower}", 0.95, least(teacher, "stated"), 1),
        (f"teacher: the worst attribute {lower}", 0.90, worst, 1),
        (f"teacher: valid pictures {lower}", 0.85, least(teacher, "valid"), 1),
        (f"student: stated attributes right {lower}", 0.90, least(student, "stated"), 1),
        (f"student: valid pictures {lower}", 0.75, least(student, "valid"), 1),
        ("student: variety, share of the teacher's", 0.60, _variety(teacher, student), 1),
    ]
    for name, part in _parts(found).items():
        if name != "all":
            plain, nasa = (PLAIN, part.strengths("nasa")[alpha])
            bars += [
                (f"{name} pairs: absent without the negative", 0.6, part.share(plain, "absent"), -1),
                (f"{name} pairs, NASA: absent", 0.90, part.share(nasa, "absent"), 1),
                (f"{name} pairs, NASA: kept", 0.95, part.share(nasa, "kept"), 1),
                (f"{name} pairs, NASA: clean", 0.65, part.share(nasa, "clean"), 1),
            ]
    rows = [
        [what, f"{'at least' if sign > 0 else 'at most'} {bar:.2f}", f"{got:.3f}", _reached(bar, got, sign)]
        for what, bar, got, sign in bars
    ]
    return table(["what", "bar", "measured", "reached"], rows)


def _reached(bar: float, got: float, sign: int) -> str:
    return "yes" if sign * got >= sign * bar else "**no**"


def _variety(teacher: Measured, student: Measured) -> float:
    return variety(student["prompt_entropy"], teacher["prompt_entropy"])


def worst_attribute(measured: Measured, kind: str) -> tuple[str, float]:
    """The attribute that is right most seldom, of those that were asked for in `ASKED` pictures; of all if none was."""
    asked, shares = measured[kind]["asked"], measured[kind]["per_attribute"]
    several = [name for name, count in asked.items() if count >= ASKED] or list(asked)
    return min(((name, shares[name]) for name in several), key=lambda row: row[1])


def captions_table(teacher: Measured, student: Measured) -> str:
    """How pictures follow their caption, by kind of caption."""
    rows = []
    for name, measured in (("teacher, 20 steps, cfg 3", teacher), ("student, 1 step", student)):
        for kind in KINDS:
            row = measured[kind]
            told = "{} {:.2f}".format(*worst_attribute(measured, kind))
            rows.append([name, kind, row["count"], row["stated"], told, row["all_stated"], row["valid"]])
    head = ["model", "captions", "pictures", "stated right", "worst attribute", "all stated right", "valid"]
    return table(head, rows)


def attributes_table(teacher: Measured, student: Measured) -> str:
    """Each attribute, by kind of caption."""
    names = sorted({name for kind in KINDS for name in teacher[kind]["per_attribute"]})
    rows = [
        [name, *(m[kind]["per_attribute"].get(name, "") for m in (teacher, student) for kind in KINDS)]
        for name in names
    ]
    return table(["attribute", *(f"{who}, {kind}" for who in ("teacher", "student") for kind in KINDS)], rows)


def variety_table(teacher: Measured, student: Measured) -> str:
    """Entropy within a prompt: the mean over the attributes that it leaves open, bits, and the share that is kept."""
    rows = []
    for prompt, bits in teacher["prompt_entropy"].items():
        row: list[object] = [prompt, len(bits)]
        for key in ("prompt_entropy", "valid_entropy"):
            both = [measured[key].get(prompt) for measured in (teacher, student)]
            row += [fmean(each.values()) if each else "" for each in both]
            row.append(variety({prompt: both[1]}, {prompt: both[0]}) if all(both) else "")
        rows.append(row)
    last = variety(student["valid_entropy"], teacher["valid_entropy"])
    rows.append(["all", "", "", "", _variety(teacher, student), "", "", last])
    columns = ("teacher, bits", "student, bits", "share kept")
    return table(["prompt", "open attributes", *columns, *(f"{each}, valid pictures" for each in columns)], rows)


def scale_table(found: Measured) -> str:
    """One row per scale; means over the blocks of seeds."""
    rows = [
        [name]
        + [mean_and_range([block[key] for block in row["blocks"]]) for key in ("stated", "valid", "entropy")]
        + [row["frechet"], f"{PAPER_FID[name]:.2f}" if name in PAPER_FID else ""]
        for name, row in found["scales"].items()
    ]
    return table(["kappa", "all stated right", "valid", "entropy", "Fréchet", "paper's FID"], rows)


def judges_table(found: Measured) -> str:
    """Two ways to read the same pictures."""
    rows = []
    for row in found["pairs"]:
        for applied, name in (("no", "without"), ("yes", "with")):
            each = row[name]
            several = [each[key] / found["images"] for key in ("classifier", "drawing", "agree")]
            rows.append([row["prompt"], row["negative"], applied, *several, each["valid"]])
            rows[-1].append("" if not each["valid"] else each["agree_valid"] / each["valid"])
    head = ["prompt", "negative", "applied", "absent, classifier", "absent, nearest drawing", "both say the same"]
    return table([*head, "valid pictures", "both say the same in these"], rows)


def _parts(found: Negatives) -> dict[str, Negatives]:
    return {"fixed": found.only(fixed=True), "modal": found.only(fixed=False), "all": found}


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
    """Means over the fixed pairs, the modal ones, and all."""
    rows = [
        [
            f"{part}, {steps}, {name}",
            *(mean_with_interval(of_part.shares(arm, key)) for key in SHARES),
            mean_and_range(of_part.blocks(arm, "absent")),
        ]
        for part, of_part in _parts(found).items()
        for steps, arms in _arms(found, alpha).items()
        for name, arm in zip(("no negative", "NASA"), arms, strict=True)
    ]
    return table(["pairs", *SHARES, "absent by block"], rows)
