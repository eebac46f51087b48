"""Figure 5: the sweep of alpha; where the best one lies, and whether Z- foretells it."""

from __future__ import annotations

from scipy.stats import spearmanr

from experiments.negatives.results import Negatives
from training.evaluate.report.markdown import sure, table

_TEXT = """\
## Figure 5: alpha

![Shares and entropy over alpha](images/results-alpha.png)

The same noise in each row, alpha from left to right: {alphas}.

![Pictures over alpha, a pair a row](images/results-alpha-sheet.png)

The most clean removals are at alpha {best:g} ({clean:.2f}). The best for each of the {pairs} pairs: {spread}.
An alpha for each pair, chosen on all blocks of seeds but one and counted on that one, has {gain} more clean
removals than one alpha for all, chosen there too.

"""
_PREDICTED = """\
Does the response that the negative would have, measured before anything is steered, foretell a pair's best alpha?
Spearman's rank correlation over the pairs (p: as large a one by chance, no correction for four tries):

"""
Found = tuple[float, float]


def best_alphas(found: Negatives) -> list[float]:
    """Of every pair: the alpha with the most clean removals, the smallest of equals."""
    return _chosen({alpha: found.shares(arm, "clean") for alpha, arm in found.strengths("nasa").items()})


def held_out_gain(found: Negatives) -> list[float]:
    """Of every pair: clean removals by its own alpha minus those by one for all, on blocks that did not choose."""
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


def predictions(found: Negatives) -> dict[tuple[str, str], Found]:
    """Spearman's rho and p of (predictor, what is predicted); without those that are not defined."""
    overall = found.best("nasa")
    ratio, cosine = ([pair[key] for pair in found.pairs] for key in ("ratio", "cosine"))
    pairs = {
        (x_name, y_name): (x, y)
        for x_name, x in (("norm of Z- over norm of Z+", ratio), ("cos(Z+, Z-)", cosine))
        for y_name, y in (
            ("the pair's best alpha", best_alphas(found)),
            (f"clean removals at alpha {overall.rpartition(':')[2]}", found.shares(overall, "clean")),
        )
    }
    results = {names: spearmanr(x, y) for names, (x, y) in pairs.items() if len(set(x)) > 1 and len(set(y)) > 1}
    return {names: (float(result.statistic), float(result.pvalue)) for names, result in results.items()}


def foretold(found: Negatives) -> bool:
    """Whether either predicts the best alpha, at p < 0.05 shared among both."""
    return any(p < 0.05 / 2 for (_, what), (_, p) in predictions(found).items() if "best" in what)


def section(found: Negatives) -> str:
    """Markdown."""
    best = best_alphas(found)
    words = {
        "alphas": ", ".join(f"{alpha:g}" for alpha in (0.0, *found.strengths("nasa"))),
        "best": float(found.best("nasa").rpartition(":")[2]),
        "clean": found.share(found.best("nasa"), "clean"),
        "pairs": len(best),
        "spread": ", ".join(f"{best.count(alpha)} at {alpha:g}" for alpha in sorted(set(best))),
        "gain": sure(held_out_gain(found)),
    }
    rows = [[x, y, f"{rho:+.2f}", f"{p:.3f}"] for (x, y), (rho, p) in predictions(found).items()]
    return _TEXT.format(**words) + _PREDICTED + table(["predictor", "of", "rho", "p"], rows)
