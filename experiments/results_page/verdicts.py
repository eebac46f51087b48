"""What all of it says of the paper: sentences that are computed, so that none can outlive its number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import fill
from typing import Any

from experiments.guidance_study.findings import VERDICTS, failures, settled, summary
from experiments.negatives.results import PLAIN, Negatives
from experiments.results_page.alphas import best_alphas, foretold, held_out_gain, predictions
from experiments.results_page.methods import TITLES, ahead
from experiments.results_page.teacher_scale import lead
from training.evaluate.judges.intervals import bootstrap
from training.evaluate.report.markdown import spread, sure

FEW = 0.1  # a share below which nothing much is done
_TEXT = """\
## What this small world says of the paper

{headline}

A claim is confirmed, or its opposite, where the 95 % interval over the pairs lies on one side of the bar, or all blocks
of seeds or all seeds of training agree; else it is not settled.

"""
_LIMITS = """
What it cannot tell: the paper's figures themselves (FID, HPSv2, CLIP score, precision and recall of published models,
judged by people); how any of this looks on photographs; what hundreds of thousands of prompts and tens of thousands of
iterations change; NASA's cost on real networks (benchmarks/RESULTS.md has that); students of SDXL or PixArt. One
student was looked at here; [STUDY.md](STUDY.md) has NASA on every student of its runs.
"""


def section(scale: dict[str, Any], study: dict[str, Any], found: Negatives, quality: tuple[Any, Any]) -> str:
    """Markdown."""
    lines = [*_teacher_scale(scale), *_study(study), *_removal(found), *_methods(found), *_alpha(found)]
    lines += _diversity(*quality)
    return (
        _TEXT.format(headline=fill(_headline(found), 120))
        + "".join(fill(f"- {line}", 120, subsequent_indent="  ") + "\n" for line in lines)
        + _LIMITS
    )


def _headline(found: Negatives) -> str:
    def clean(names: Sequence[str]) -> str:
        return ", ".join(f"{TITLES[name]} ({found.share(found.best(name), 'clean'):.0%})" for name in names) or "none"

    by = {
        who: [name for name in TITLES if name != "nasa" and ahead(found, name) == who]
        for who in ("NASA", "not settled")
    }
    best = [name for name in TITLES if name != "nasa" and name not in by["NASA"] + by["not settled"]]
    arm = found.best("nasa")
    return (
        f"In one step NASA removes what a negative names from {found.share(arm, 'absent'):.0%} of the pictures; "
        f"{found.share(arm, 'clean'):.0%} are clean. Behind it: {clean(by['NASA'])}. Not settled: "
        f"{clean(by['not settled'])}. Ahead of it: {clean(best)}. Of PG-SB's gain over SwiftBrush see Table 2 below."
    )


def over(values: Sequence[float], bar: float = 0.0) -> str:
    """Whether the mean of `values` is above `bar`, by its interval."""
    low, high = bootstrap(values)
    return VERDICTS[(low > bar) - (high < bar)]


def under(values: Sequence[float], bar: float) -> str:
    """Whether the mean of `values` is below `bar`, by its interval."""
    return over([-value for value in values], -bar)


def agreeing(differences: Sequence[float]) -> str:
    """Whether all are above 0."""
    return VERDICTS[all(d > 0 for d in differences) - all(d < 0 for d in differences)]


def _teacher_scale(scale: dict[str, Any]) -> Iterator[str]:
    for key, name in (("stated", "stated right"), ("valid", "valid images")):
        differences = lead(scale, key)
        yield (
            f"Table 1, a random scale for the teacher is better than the mean of the fixed ones, by {name}: "
            f"{agreeing(differences)}. U(2, 5) minus the mean of 2, 3, 4 and 5, by block: {spread(differences)}. In "
            "the paper it is second of the five, by FID."
        )


def _study(study: dict[str, Any]) -> Iterator[str]:
    word = "**Some of it settled here**" if settled(study) else VERDICTS[0]
    yield (
        f"Table 2 and Figure 2, a random scale for both teachers is better and steadier: {word}. {summary(study)} "
        f"{failures(study)}[STUDY.md](STUDY.md) says which."
    )


def _removal(found: Negatives) -> Iterator[str]:
    for steps, plain, words in ((1, PLAIN, "one step"), (4, "4 none", "four steps")):
        arm = found.best("nasa", steps)
        kept, clean = found.shares(arm, "kept"), found.gain(arm, "clean", plain)
        word = over(clean) if bootstrap(kept)[0] > 1 - FEW else VERDICTS[0]
        yield (
            f"Tables 3 and 7, NASA removes what a negative names in {words}, and leaves the rest: {word}. Absent "
            f"{found.share(plain, 'absent'):.2f} -> {sure(found.shares(arm, 'absent'))}, kept {sure(kept)}, clean "
            f"{found.share(plain, 'clean'):.2f} -> {sure(found.shares(arm, 'clean'))}, at alpha "
            f"{arm.rpartition(':')[2]}."
        )


def _methods(found: Negatives) -> Iterator[str]:
    cfg, embeddings = found.best("cfg"), found.best("embeddings")
    most = max(found.share(arm, "absent") for arm in found.strengths("cfg").values())
    yield (
        f"Figure 3, CFG fails in one step (clean in fewer than {FEW:.0%}): {under(found.shares(cfg, 'clean'), FEW)}. "
        f"At its best strength {sure(found.shares(cfg, 'clean'))} are clean; at any, {most:.2f} lack what the negative "
        "names."
    )
    absent = found.shares(embeddings, "absent")
    yield (
        f"Figure 3, subtracting embeddings changes almost nothing (absent in fewer than {FEW:.0%}): "
        f"{under(absent, FEW)}. At strength {embeddings.rpartition(':')[2]} {sure(absent)} lack it and "
        f"{sure(found.shares(embeddings, 'clean'))} are clean."
    )
    said = ", ".join(
        f"{TITLES[name]} {found.share(found.best(name), 'clean'):.2f} ({ahead(found, name)})"
        for name in ("embeddings", "nag", "vsf", "orthogonal")
    )
    mine = found.share(found.best("nasa"), "clean")
    yield (
        f"NASA beside other ways, clean removals at the best measured strength: NASA {mine:.2f}, {said}; in brackets "
        "who is ahead, where the interval over pairs settles it. NAG's paper reports being ahead on published models, "
        "VSF's more removed at less kept."
    )


def _alpha(found: Negatives) -> Iterator[str]:
    best, gain = best_alphas(found), held_out_gain(found)
    of_best = {x: result for (x, y), result in predictions(found).items() if "best" in y}
    words = "; ".join(f"{x}: rho {rho:+.2f}, p {p:.2f}" for x, (rho, p) in of_best.items())
    yield (
        f"The scale must be chosen case by case (the paper's own limit): {over(gain)}. The pairs' best alphas run from "
        f"{min(best):g} to {max(best):g}; choosing by pair has {sure(gain)} more clean removals, on seeds that did not "
        f"choose. Z- {'foretells' if foretold(found) else 'does not foretell'} the best alpha: {words}."
    )


def _diversity(teacher: dict[str, Any], student: dict[str, Any]) -> Iterator[str]:
    kept = sum(student["prompt_entropy"].values()) / sum(teacher["prompt_entropy"].values())
    yield (
        f"Diversity, which the paper does not report on: the student keeps {kept:.0%} of the teacher's entropy within "
        "a prompt."
    )
