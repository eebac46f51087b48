"""NASA beside CFG, embedding subtraction (Figure 3), NAG, VSF and orthogonal NASA."""

from __future__ import annotations

from experiments.negatives.results import PLAIN, Negatives
from training.evaluate.judges.intervals import bootstrap
from training.evaluate.report.markdown import mean_with_interval, table

TITLES = {
    "nasa": "NASA",
    "cfg": "CFG",
    "embeddings": "embedding subtraction",
    "nag": "NAG",
    "vsf": "VSF",
    "orthogonal": "orthogonal NASA",
}
LEVELS = (("kept", 0.99), ("kept", 0.95), ("valid", 0.85), ("valid", 0.8), ("valid", 0.75), ("valid", 0.7))


def clean_difference(found: Negatives, name: str) -> list[float]:
    """For each pair: clean removals by NASA minus those by another method, both at their best strength."""
    return found.gain(found.best("nasa"), "clean", found.best(name))


def better_method(found: Negatives, name: str) -> str:
    """Which of NASA and another method removes more, if the 95 % interval over the pairs settles it."""
    low, high = bootstrap(clean_difference(found, name))
    return "NASA" if low > 0 else TITLES[name] if high < 0 else "not settled"


def matched(found: Negatives, name: str, key: str, level: float) -> str:
    """The largest share of absent at a strength that has at least `level` of kept, and of `key`."""
    allowed = [
        arm
        for arm in (PLAIN, *found.strengths(name).values())
        if found.share(arm, key) >= level and found.share(arm, "kept") >= level
    ]
    if not allowed:
        return "-"
    best = max(allowed, key=lambda arm: found.share(arm, "absent"))
    return f"{found.share(best, 'absent'):.2f} ({'plain' if best == PLAIN else best.rpartition(':')[2]})"


def methods_table(found: Negatives) -> str:
    """Each method at its best strength."""
    flops = found.found["flops"]
    rows = [["none", "", *_cells(found, PLAIN), "1.000", "", ""]]
    for name, title in TITLES.items():
        arm = found.best(name)
        edge = " (the highest)" if arm == list(found.strengths(name).values())[-1] else ""
        rows.append([title, arm.rpartition(":")[2] + edge, *_cells(found, arm), f"{flops[name] / flops['none']:.3f}"])
        rows[-1] += (
            ["", ""]
            if name == "nasa"
            else [mean_with_interval(clean_difference(found, name)), better_method(found, name)]
        )
    head = ["negative by", "strength", "absent", "kept", "valid", "clean", "entropy", "FLOPs", "lead of NASA", "ahead"]
    return table(head, rows)


def matched_table(found: Negatives) -> str:
    """What each method removes at matched rates of kept and valid images."""
    levels = [f"absent where {'kept' if key == 'kept' else 'kept and valid'} >= {level:g}" for key, level in LEVELS]
    rows = [[title, *(matched(found, name, key, level) for key, level in LEVELS)] for name, title in TITLES.items()]
    return table(["negative by", *levels], rows)


def strengths_table(found: Negatives) -> str:
    """Every method at every strength."""
    keys = ("absent", "kept", "valid", "clean", "entropy")
    arms = [PLAIN, *(arm for name in TITLES for arm in found.strengths(name).values())]
    rows = [[arm.partition(" ")[2].replace(":", " "), *(found.share(arm, key) for key in keys)] for arm in arms]
    return table(["method", *keys], rows)


def _cells(found: Negatives, arm: str) -> list[str]:
    return [
        *(mean_with_interval(found.shares(arm, key)) for key in ("absent", "kept", "valid", "clean")),
        f"{found.share(arm, 'entropy'):.2f}",
    ]
