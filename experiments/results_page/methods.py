"""Figure 3, and NASA beside CFG, subtracted embeddings and what came after it: NAG, VSF, orthogonal subtraction."""

from __future__ import annotations

from experiments.negatives.results import PLAIN, Negatives
from experiments.negatives.settings import STRENGTHS
from training.evaluate.judges.intervals import bootstrap
from training.evaluate.report.markdown import sure, table

TITLES = {
    "nasa": "NASA",
    "cfg": "CFG",
    "embeddings": "embedding subtraction",
    "nag": "NAG",
    "vsf": "VSF",
    "orthogonal": "orthogonal NASA",
}
_FIGURE_3 = """\
## Figure 3: CFG, embedding subtraction, NASA and the others

One step, the same noise, a pair a row; each method at the strength with the most clean removals. From left to right: no
negative, {methods}.

![Pictures by method, a pair a row](images/results-methods.png)

"""
_BEST = """\
## NASA beside the others

Each method at its best measured strength (the most clean removals, chosen on the images that are counted: a little too
good for each, most where most strengths were tried), means over the pairs [95 % bootstrap interval over pairs].
*FLOPs*: of the network, for one image; this one is so small that cross-attention is a large part of it (on published
models NASA costs 0.8 to 3 %, see benchmarks/RESULTS.md). *Entropy*: bits, of what prompt and negative leave open; the
reading of broken pictures counts too, so it is no praise where few are valid. *Lead*: NASA's clean removals minus the
method's, pair by pair.

"""
_MATCHED = """
At matched rates: the most that any measured strength removes while the prompt is kept in at least so many images, or
kept in so many and valid in so many (strength in brackets; "plain": only no negative qualifies).

"""
_CURVES = """
![What is removed against what is left whole, by method](images/results-matched.png)

Right of and above a curve is better: more removed at the same price. NAG has the parameters of its paper (tau 2.5, a
0.375), and its blend bounds what any strength can do.

"""
_ALL = """\
### Every strength

Shares of {images} images of each of {pairs} pairs.

"""
LEVELS = (("kept", 0.99), ("kept", 0.95), ("valid", 0.85), ("valid", 0.8), ("valid", 0.75), ("valid", 0.7))


def lead(found: Negatives, name: str) -> list[float]:
    """Of every pair: clean removals by NASA minus those by another method, both at their best strength."""
    return found.gain(found.best("nasa"), "clean", found.best(name))


def ahead(found: Negatives, name: str) -> str:
    """Who is ahead, as far as the pairs can tell."""
    low, high = bootstrap(lead(found, name))
    return "NASA" if low > 0 else TITLES[name] if high < 0 else "not settled"


def matched(found: Negatives, name: str, key: str, level: float) -> str:
    """The most that is absent where `key` holds in at least `level` of the images; "valid": where kept does, too."""
    allowed = [
        arm
        for arm in (PLAIN, *found.strengths(name).values())
        if found.share(arm, key) >= level and found.share(arm, "kept") >= level
    ]
    if not allowed:
        return "-"
    best = max(allowed, key=lambda arm: found.share(arm, "absent"))
    return f"{found.share(best, 'absent'):.2f} ({'plain' if best == PLAIN else best.rpartition(':')[2]})"


def figure_3(found: Negatives) -> str:
    """Markdown."""
    return _FIGURE_3.format(methods=", ".join(f"{TITLES[n]} {found.best(n).rpartition(':')[2]}" for n in STRENGTHS))


def section(found: Negatives) -> str:
    """Markdown."""
    flops = found.found["flops"]
    rows = [["none", "", *_cells(found, PLAIN), "1.000", "", ""]]
    for name, title in TITLES.items():
        arm = found.best(name)
        edge = " (the highest)" if arm == list(found.strengths(name).values())[-1] else ""
        rows.append([title, arm.rpartition(":")[2] + edge, *_cells(found, arm), f"{flops[name] / flops['none']:.3f}"])
        rows[-1] += ["", ""] if name == "nasa" else [sure(lead(found, name)), ahead(found, name)]
    head = ["negative by", "strength", "absent", "kept", "valid", "clean", "entropy", "FLOPs", "lead of NASA", "ahead"]
    levels = [f"absent where {'kept' if key == 'kept' else 'kept and valid'} >= {level:g}" for key, level in LEVELS]
    even = [[title, *(matched(found, name, key, level) for key, level in LEVELS)] for name, title in TITLES.items()]
    parts = [_BEST, table(head, rows), _MATCHED, table(["negative by", *levels], even), _CURVES, every_strength(found)]
    return "".join(parts)


def every_strength(found: Negatives) -> str:
    """The whole table, the one that other pages quote."""
    keys = ("absent", "kept", "valid", "clean", "entropy")
    arms = [PLAIN, *(arm for name in TITLES for arm in found.strengths(name).values())]
    rows = [[arm.partition(" ")[2].replace(":", " "), *(found.share(arm, key) for key in keys)] for arm in arms]
    return _ALL.format(images=found.images, pairs=len(found.pairs)) + table(["method", *keys], rows)


def _cells(found: Negatives, arm: str) -> list[str]:
    return [
        *(sure(found.shares(arm, key)) for key in ("absent", "kept", "valid", "clean")),
        f"{found.share(arm, 'entropy'):.2f}",
    ]
