"""Figure 5: the sweep of alpha; where the best one lies, and whether Z- foretells it."""

from __future__ import annotations

from scipy.stats import spearmanr

from training.markdown import table
from training.shapes.negatives.results import Negatives

_TEXT = """\
## Figure 5: alpha

![Shares and entropy over alpha](images/results-alpha.png)

The same noise in each row, alpha from left to right: {alphas}.

![Pictures over alpha, a pair a row](images/results-alpha-sheet.png)

The most clean removals are at alpha {best:g} ({clean:.2f}). The best for each of the {pairs} pairs: {spread}.
One alpha for all loses at most {lost:.2f} of the clean removals against an alpha chosen pair by pair (an upper bound:
chosen and counted on the same images).

"""
_PREDICTED = """\
Does the response that the negative would have, measured before anything is steered, foretell a pair's best alpha?
Spearman's rank correlation over the pairs (p: as large a one by chance, no correction for four tries):

"""


def best_alphas(found: Negatives) -> list[float]:
    """Of every pair: the alpha with the most clean removals, the smallest of equals."""
    arms = found.strengths("nasa")
    shares = {alpha: found.shares(arm, "clean") for alpha, arm in arms.items()}
    return [max(sorted(arms), key=lambda alpha, n=n: (shares[alpha][n], -alpha)) for n in range(len(found.pairs))]


def predictions(found: Negatives) -> dict[tuple[str, str], tuple[float, float]]:
    """Spearman's rho and p of (predictor, what is predicted)."""
    arms, best = found.strengths("nasa"), best_alphas(found)
    ratio, cosine = ([pair[key] for pair in found.pairs] for key in ("ratio", "cosine"))
    overall = max(arms, key=lambda alpha: found.share(arms[alpha], "clean"))
    clean = found.shares(arms[overall], "clean")
    pairs = {
        (x_name, y_name): spearmanr(x, y)
        for x_name, x in (("||Z-|| / ||Z+||", ratio), ("cos(Z+, Z-)", cosine))
        for y_name, y in (("the pair's best alpha", best), (f"clean removals at alpha {overall:g}", clean))
    }
    return {names: (float(result.statistic), float(result.pvalue)) for names, result in pairs.items()}


def foretold(found: Negatives) -> bool:
    """Whether either predicts the best alpha, at p < 0.05 shared among both."""
    return any(p < 0.05 / 2 for (_, what), (_, p) in predictions(found).items() if "best" in what)


def section(found: Negatives) -> str:
    """Markdown."""
    arms, best = found.strengths("nasa"), best_alphas(found)
    overall = max(arms, key=lambda alpha: found.share(arms[alpha], "clean"))
    chosen = [found.shares(arms[alpha], "clean")[n] for n, alpha in enumerate(best)]
    clean = found.share(arms[overall], "clean")
    words = {
        "alphas": ", ".join(f"{alpha:g}" for alpha in (0.0, *arms)),
        "best": overall,
        "clean": clean,
        "pairs": len(best),
        "spread": ", ".join(f"{best.count(alpha)} at {alpha:g}" for alpha in sorted(set(best))),
        "lost": sum(chosen) / len(chosen) - clean,
    }
    rows = [[x, y, f"{rho:+.2f}", f"{p:.3f}"] for (x, y), (rho, p) in predictions(found).items()]
    return _TEXT.format(**words) + _PREDICTED + table(["predictor", "of", "rho", "p"], rows)
