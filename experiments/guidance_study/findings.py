"""What the study's numbers say of the paper's claims: sentences that are computed, so that none can outlive its number.

`results` is the content of docs/study.json; a run is one entry of its "runs".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from statistics import fmean
from textwrap import fill
from typing import Any

from scipy.stats import binomtest

Results = dict[str, Any]
Run = dict[str, Any]
Value = Callable[[Run], float]

# The paper's Table 2: which teacher's scale is random, and FID on 2,000 images of COCO (SD2.1; lower is better).
_PAPER = {
    "pgsb": ("both", 9.03),
    "lora-only": ("LoRA teacher only", 9.51),
    "fixed": ("neither", 10.72),
    "teacher-only": ("teacher only", 10.81),
}
VERDICTS = {1: "**Confirmed here**", -1: "**The opposite came out**", 0: "**Not settled**"}


def stated(run: Run) -> float:
    """Share of partial captions whose stated attributes are all drawn, at the end."""
    return run["final"]["partial"]["stated"]


def valid(run: Run) -> float:
    """Share of valid images for partial captions, at the end."""
    return run["final"]["partial"]["valid"]


def entropy(run: Run) -> float:
    """Bits within a prompt, at the end."""
    return run["final"]["partial"]["entropy"]


def second_half(run: Run, key: str) -> list[float]:
    """What was measured of a run from its middle on."""
    steps = sorted(map(int, run["curve"]))
    return [run["curve"][str(step)][key] for step in steps if 2 * step >= steps[-1]]


def level(key: str) -> Value:
    """Of a run: the mean of `key` over its second half, which hangs less on the last checkpoint."""
    return lambda run: fmean(second_half(run, key))


def fluctuation(key: str) -> Value:
    """Of a run: mean absolute change of `key` between successive measurements in its second half."""

    def of(run: Run) -> float:
        values = second_half(run, key)
        return fmean(abs(late - early) for early, late in pairwise(values)) if len(values) > 1 else math.nan

    return of


SHARES: dict[str, Value] = {
    "stated right, at the end": stated,
    "valid, at the end": valid,
    "stated right, second half": level("stated"),
    "valid, second half": level("valid"),
}


def ended(results: Results, cell: str) -> list[Run]:
    """The runs of a cell that ended well."""
    return [run for run in results["runs"] if run["cell"] == cell and not run["problem"]]


def compare(results: Results, one: str, other: str, value: Value) -> tuple[str, int]:
    """The difference one - other, seed by seed, in words; and its sign where two seeds or more agree, else 0."""
    mine, theirs = ({run["seed"]: value(run) for run in ended(results, cell)} for cell in (one, other))
    differences = [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]
    differences = [difference for difference in differences if not math.isnan(difference)]
    if not differences:
        return "not measured", 0
    higher, lower = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    sign = (higher == len(differences)) - (lower == len(differences)) if len(differences) > 1 else 0
    seeds = {1: "higher with every seed", -1: "lower with every seed"}
    agree = seeds.get(sign, f"higher with {higher} and lower with {lower} of {len(differences)} seeds")
    return f"{fmean(differences):+.3f} ({min(differences):+.3f} .. {max(differences):+.3f}), {agree}", sign


def comparisons(results: Results) -> list[tuple[str, list[tuple[str, str, int]]]]:
    """Claims, each with what was measured: its name, the difference in words, and 1 confirmed, -1 opposite, 0 open."""
    better = {name: (value, 1) for name, value in SHARES.items()}
    calmer = {f"fluctuation of {key}": (fluctuation(key), -1) for key in ("stated", "valid")}
    kept = {"entropy within a prompt": (entropy, 1)}
    fast = "At three times the rate, PG-SB"
    asked = (
        ("PG-SB draws better than SwiftBrush (differences: PG-SB minus SwiftBrush).", "pgsb", "swiftbrush", better),
        ("It is the randomness, not only the lower mean (PG-SB minus the fixed 2.25).", "pgsb", "fixed", better),
        ("PG-SB trains more steadily than SwiftBrush (lower is steadier).", "pgsb", "swiftbrush", calmer),
        ("PG-SB trains more steadily than the fixed 2.25.", "pgsb", "fixed", calmer),
        ("PG-SB keeps more variety than SwiftBrush (not claimed by the paper).", "pgsb", "swiftbrush", kept),
        ("PG-SB keeps more variety than the fixed 2.25 (not claimed by the paper).", "pgsb", "fixed", kept),
        ("PG-SB draws better than SwiftBrush + 5 LoRA updates.", "pgsb", "dmd2trick", better),
        ("PG-SB trains more steadily than SwiftBrush + 5 LoRA updates.", "pgsb", "dmd2trick", calmer),
        ("At SwiftBrush's mean, a random scale draws better: U(3, 6) minus 4.5.", "pgsb-high", "swiftbrush", better),
        ("At SwiftBrush's mean, a random scale trains more steadily.", "pgsb-high", "swiftbrush", calmer),
        (f"{fast} draws better than SwiftBrush.", "pgsb-fast", "swiftbrush-fast", better),
        (f"{fast} trains more steadily than SwiftBrush.", "pgsb-fast", "swiftbrush-fast", calmer),
    )
    found = []
    for text, one, other, values in asked:
        if {one, other} <= results["cells"].keys():
            rows = [(name, *compare(results, one, other, value), sign) for name, (value, sign) in values.items()]
            found.append((text, [(name, words, seen * predicted) for name, words, seen, predicted in rows]))
    return found


def summary(results: Results) -> str:
    """How many of the claims came out, and how many would by chance."""
    signs = [sign for _, rows in comparisons(results) for *_, sign in rows]
    chance = len(signs) * _by_chance(results)
    won, lost = signs.count(1), signs.count(-1)
    return (
        f"Of {len(signs)} comparisons {won} came out for PG-SB with every seed and {lost} against it. "
        f"Were there no difference at all, about {chance:.3g} would agree by chance"
        + ("." if settled(results) else ": the study is too small to settle any of them.")
    )


def settled(results: Results) -> bool:
    """Whether more comparisons agree than chance would have it, by a binomial test at 5 %; a mild one, as comparisons
    of the same runs resemble each other."""
    signs = [sign for _, rows in comparisons(results) for *_, sign in rows]
    if not signs:
        return False
    return binomtest(len(signs) - signs.count(0), len(signs), _by_chance(results), "greater").pvalue < 0.05


def _by_chance(results: Results) -> float:
    """How often all seeds agree where there is no difference."""
    return 1 / 2 ** (len({run["seed"] for run in results["runs"]}) - 1)


def failures(results: Results) -> str:
    """The runs that did not end, which no comparison can count; "" where all did."""
    failed = [f"{run['cell']} (seed {run['seed']})" for run in results["runs"] if run["problem"]]
    return f"These runs failed, and count in no comparison: {', '.join(failed)}. " if failed else ""


def claims(results: Results) -> str:
    """What the paper claims, and what came out of it here; first how much of that could be chance."""
    shown = VERDICTS if settled(results) else dict.fromkeys(VERDICTS, VERDICTS[0])
    lines = [
        f"- {text}\n" + "".join(f"  - {name}: {shown[sign]}: {words}.\n" for name, words, sign in rows)
        for text, rows in comparisons(results)
    ]
    return fill(f"{summary(results)} {failures(results)}".strip(), 120) + "\n\n" + "".join(lines)


def order(results: Results) -> str:
    """The cells of Table 2 from best to worst, here and in the paper."""
    cells = [cell for cell in _PAPER if ended(results, cell)]
    if len(cells) < 2:
        return ""
    lines, first = [f"- the paper, by FID: {', '.join(f'{_PAPER[c][0]} ({_PAPER[c][1]})' for c in cells)}\n"], []
    for name, value in SHARES.items():
        found = {cell: [value(run) for run in ended(results, cell)] for cell in cells}
        mean = {cell: fmean(values) for cell, values in found.items()}
        ranked = sorted(cells, key=lambda cell, mean=mean: -mean[cell])
        first.append(ranked[0] == "pgsb")
        apart = mean[ranked[0]] - mean[ranked[-1]]
        within = max(max(values) - min(values) for values in found.values())
        lines.append(
            f"- here, by {name}: {', '.join(f'{_PAPER[c][0]} ({mean[c]:.3f})' for c in ranked)}; the cells lie "
            f"{apart:.3f} apart, the seeds of one cell up to {within:.3f}"
            + (", so that this order means little\n" if within >= apart else "\n")
        )
    return (
        "Table 2's cells from best to worst, by which teacher's scale is random:\n\n"
        + "".join(lines)
        + f"\nRandom for both, the best in the paper, comes first on {sum(first)} of these {len(first)} measures.\n"
    )


def diversity(results: Results) -> str:
    """How much of the teacher's variety is left."""
    teacher = results["teacher"]["entropy"]
    bits = {cell: fmean(map(entropy, ended(results, cell))) for cell in results["cells"] if ended(results, cell)}
    if not bits or not teacher:
        return ""
    share = {cell: mean / teacher for cell, mean in bits.items()}
    most, least = max(share, key=share.__getitem__), min(share, key=share.__getitem__)
    titles = {cell: results["cells"][cell]["title"] for cell in share}
    text = (
        f"Within a prompt the students keep {share[least]:.0%} ({titles[least]}) to {share[most]:.0%} "
        f"({titles[most]}) of the teacher's entropy"
        + (": every cell draws most prompts in few ways." if share[most] < 0.5 else ".")
    )
    return fill(text, 120) + "\n"


def pace(results: Results) -> str:
    """Whether the runs have come to rest, beside how far the cells lie apart."""
    moves = [fluctuation("valid")(run) for run in results["runs"] if not run["problem"]]
    means = [fmean(map(valid, ended(results, cell))) for cell in results["cells"] if ended(results, cell)]
    if len(means) < 2 or math.isnan(fmean(moves)):
        return ""
    move, apart = fmean(moves), max(means) - min(means)
    text = f"*Valid* moves by {move:.3f} from one measurement to the next; the cells' means end {apart:.3f} apart"
    return fill(text + (": the runs have not come to rest." if move > apart else "."), 120) + "\n"
