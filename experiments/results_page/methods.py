"""NASA beside CFG, embedding subtraction (Figure 3), NAG, VSF and orthogonal NASA."""

from __future__ import annotations

from experiments.negatives.results import PLAIN, Negatives
from experiments.negatives.settings import TITLES
from experiments.removal import SHARES
from training.evaluate.judges.intervals import bootstrap
from training.evaluate.report.markdown import mean_with_interval, table
from training.evaluate.report.plot_style import STYLES

# The colour and marker of each method in every chart.
LOOKS = dict(zip(TITLES, STYLES, strict=True))
LEVELS = (("kept", 0.99), ("kept", 0.95), ("valid", 0.85), ("valid", 0.8), ("valid", 0.75), ("valid", 0.7))


def clean_difference(found: Negatives, name: str) -> list[float]:
    """For each pair: clean removals by NASA minus those by another method, both at their best strength."""
    return found.gain(found.best("nasa"), "clean", found.best(name))


def ahead(lead: list[float], title: str) -> str:
    """Which of NASA and the method of this title leads, by NASA's lead for each pair."""
    low, high = bootstrap(lead)
    return "NASA" if low > 0 else title if high < 0 else "not settled"


def better_method(found: Negatives, name: str) -> str:
    """Which of NASA and another method removes more, if the 95 % interval over the pairs settles it."""
    return ahead(clean_difference(found, name), TITLES[name])


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
    """What each method removes at matched rates of kept and valid images; without levels that none reaches."""
    columns = {}
    for key, level in LEVELS:
        cells = [matched(found, name, key, level) for name in TITLES]
        if set(cells) != {"-"}:
            columns[f"absent where {'kept' if key == 'kept' else 'kept and valid'} >= {level:g}"] = cells
    return table(["negative by", *columns], [list(row) for row in zip(TITLES.values(), *columns.values(), strict=True)])


def strengths_table(found: Negatives) -> str:
    """Every method at every strength."""
    keys = ("absent", "kept", "valid", "clean", "entropy")
    arms = [PLAIN, *(arm for name in TITLES for arm in found.strengths(name).values())]
    rows = [[arm.partition(" ")[2].replace(":", " "), *(found.share(arm, key) for key in keys)] for arm in arms]
    return table(["method", *keys], rows)


def nasa_table(found: Negatives) -> str:
    """NASA at every strength."""
    arms = {"no negative": PLAIN, **{f"{alpha:g}": arm for alpha, arm in found.strengths("nasa").items()}}
    rows = [[alpha, *(found.share(arm, key) for key in SHARES)] for alpha, arm in arms.items()]
    return table(["alpha", *SHARES], rows)


def _cells(found: Negatives, arm: str) -> list[str]:
    return [
        *(mean_with_interval(found.shares(arm, key)) for key in SHARES),
        f"{found.share(arm, 'entropy'):.2f}",
    ]
