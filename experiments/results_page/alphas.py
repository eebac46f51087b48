"""Which alpha is best, for all pairs and for each: Figure 5's table."""

from __future__ import annotations

from experiments.negatives.results import Negatives
from training.evaluate.report.markdown import mean_with_interval, table


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
