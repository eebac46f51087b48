"""Tables 3 and 7: what a negative removes, pair by pair, in one step and in four."""

from __future__ import annotations

from experiments.negatives.results import PLAIN, Negatives
from experiments.shapes.measure import SHARES
from training.evaluate.report.markdown import spread, sure, table

_TEXT = """\
## Tables 3 and 7: removal, one step and four

NASA at alpha {alpha:g}. The negatives are modal: what the student itself draws most for that prompt, found on other
seeds. {images} images a pair, in blocks of seeds from {seeds}. The paper's rows, judged by people: 38 -> 92 % absent
(PG-SB, one step, the lower-baseline pair of each couple), 25 -> 100 % (SDXL-DMD2, one step), 27 -> 100 % (four). Four
steps: the same student, from each step to the next by fresh noise, at timesteps that it was not trained for.

"""
_MEANS = """
Means over the {pairs} pairs, of {prompts} prompts [95 % bootstrap interval over pairs: the images of a pair resemble
each other] and, for the chance of the seeds, (smallest .. largest block). *Lower half*: the pairs with the lower
baseline, as Table 3; left out where so many baselines are equal that chance would choose.

"""
HALF = ("absent, lower half", "clean, lower half")


def section(found: Negatives, alpha: float) -> str:
    """Markdown."""
    arms = {
        "one step": (PLAIN, found.strengths("nasa")[alpha]),
        "four steps": ("4 none", found.strengths("nasa", 4)[alpha]),
    }
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
    head = ["prompt", "negative", *(f"{key}, {name}" for name in arms for key in ("absent", "clean")), "kept, one step"]
    means = [
        _means(found, f"{name}, {what}", arm, found.lower_half(before))
        for name, (before, after) in arms.items()
        for what, arm in (("no negative", before), ("NASA", after))
    ]
    words = {
        "alpha": alpha,
        "images": found.images,
        "seeds": ", ".join(map(str, found.protocol["seeds"])),
        "pairs": len(found.pairs),
        "prompts": len({pair["prompt"] for pair in found.pairs}),
    }
    return (
        _TEXT.format(**words)
        + table(head, rows)
        + _MEANS.format(**words)
        + table(["", *SHARES, "absent by block", *HALF][: max(map(len, means))], means)
    )


def _means(found: Negatives, title: str, arm: str, half: list[int]) -> list[str]:
    cells = [title, *(sure(found.shares(arm, key)) for key in SHARES), spread(found.blocks(arm, "absent"))]
    return cells + [sure([found.shares(arm, key)[n] for n in half]) for key in ("absent", "clean") if half]
