"""What all of it says of the paper: sentences that are computed, so that none can outlive its number."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill
from typing import Any

from training.markdown import sure
from training.shapes.negatives.results import PLAIN, Negatives
from training.shapes.report.alphas import best_alphas, foretold, predictions
from training.shapes.report.methods import TITLES, verdict
from training.shapes.report.teacher_scale import ranks
from training.shapes.study.findings import claims

CONFIRMED, OPPOSITE, OPEN = "**Confirmed here**", "**The opposite came out**", "**Not settled**"
_TEXT = """\
## What this small world says of the paper

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
    return _TEXT + "".join(fill(f"- {line}", 120, subsequent_indent="  ") + "\n" for line in lines) + _LIMITS


def _teacher_scale(scale: dict[str, Any]) -> Iterator[str]:
    found = ranks(scale)
    places = ", ".join(f"{place} by {measure}" for measure, place in found.items())
    word = CONFIRMED if max(found.values()) <= 2 else OPEN
    yield (
        f"Table 1, a random scale for the teacher is nearly the best: {word}. Of the paper's five scales U(2, 5) is "
        f"second there, by FID; here it has place {places}."
    )


def _study(study: dict[str, Any]) -> Iterator[str]:
    summary = " ".join(claims(study).split("\n\n")[0].split())
    yield (
        f"Table 2 and Figure 2, a random scale for both teachers is better and steadier: {summary} "
        "[STUDY.md](STUDY.md) says which."
    )


def _removal(found: Negatives) -> Iterator[str]:
    before, after = (found.share(arm, "absent") for arm in (PLAIN, found.best("nasa")))
    word = CONFIRMED if after > 0.8 > 0.5 > before else OPEN
    arm = found.best("nasa")
    yield (
        f"Tables 3 and 7, NASA removes what a negative names in one step: {word}. Absent {before:.2f} -> "
        f"{sure(found.shares(arm, 'absent'))}, the prompt kept in {found.share(arm, 'kept'):.2f}, clean "
        f"{sure(found.shares(arm, 'clean'))}, at alpha {arm.rpartition(':')[2]}."
    )
    four = max(found.strengths("nasa", 4).values(), key=lambda arm: found.share(arm, "clean"))
    yield (
        f"In four steps: absent {found.share('4 none', 'absent'):.2f} -> {sure(found.shares(four, 'absent'))}, clean "
        f"{sure(found.shares(four, 'clean'))}, at alpha {four.rpartition(':')[2]}."
    )


def _methods(found: Negatives) -> Iterator[str]:
    cfg = found.best("cfg")
    word = CONFIRMED if found.share(cfg, "clean") < 0.1 else OPPOSITE
    yield (
        f"Figure 3, CFG fails in one step: {word}. At its best strength {found.share(cfg, 'clean'):.2f} are clean, and "
        f"{found.share(cfg, 'absent'):.2f} lack what the negative names."
    )
    embeddings = found.best("embeddings")
    word = CONFIRMED if found.share(embeddings, "absent") < 0.1 else OPPOSITE
    yield (
        f"Figure 3, subtracting embeddings changes almost nothing: {word}. At strength {embeddings.rpartition(':')[2]} "
        f"{found.share(embeddings, 'absent'):.2f} lack it and {found.share(embeddings, 'clean'):.2f} are clean."
    )
    said = ", ".join(
        f"{TITLES[name]} {found.share(found.best(name), 'clean'):.2f} ({verdict(found, name)})"
        for name in ("embeddings", "nag", "vsf", "orthogonal")
    )
    mine = found.share(found.best("nasa"), "clean")
    yield (
        f"NASA beside what came after it, clean removals at the best strength: NASA {mine:.2f}, {said}; in brackets "
        "who is ahead, where the interval over pairs settles it. NAG's paper reports being ahead on published models, "
        "VSF's more removed at less kept."
    )


def _alpha(found: Negatives) -> Iterator[str]:
    best, foretells = best_alphas(found), "foretells" if foretold(found) else "does not foretell"
    word = CONFIRMED if len(set(best)) > 2 else OPEN
    of_best = {x: result for (x, y), result in predictions(found).items() if "best" in y}
    words = "; ".join(f"{x}: rho {rho:+.2f}, p {p:.2f}" for x, (rho, p) in of_best.items())
    yield (
        f"The scale must be chosen case by case (the paper's own limit): {word}. The pairs' best alphas run from "
        f"{min(best):g} to {max(best):g}. Z- {foretells} them: {words}."
    )


def _diversity(teacher: dict[str, Any], student: dict[str, Any]) -> Iterator[str]:
    kept = sum(student["prompt_entropy"].values()) / sum(teacher["prompt_entropy"].values())
    yield (
        f"Diversity, which the paper does not report on: the student keeps {kept:.0%} of the teacher's entropy within "
        "a prompt."
    )
