"""Curves over alpha, and what is removed against what is left whole."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from experiments.negatives.results import PLAIN, Negatives
from experiments.removal import SHARES
from experiments.results_page.methods import LOOKS, TITLES
from training.evaluate.report.plot_style import STYLES


def draw(found: Negatives, folder: Path) -> None:
    """Write results-alpha.png and results-matched.png, 800 pixels wide."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in (("results-alpha", _alpha(found)), ("results-matched", _matched(found))):
        figure.savefig(folder / f"{name}.png", metadata={"Software": None}, pil_kwargs={"optimize": True})


def _alpha(found: Negatives) -> Figure:
    figure = Figure(figsize=(8, 4.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    arms = {0.0: PLAIN, **found.strengths("nasa")}
    for key, (colour, marker) in zip(SHARES, STYLES, strict=False):
        axes.plot(list(arms), [found.share(arm, key) for arm in arms.values()], color=colour, marker=marker, label=key)
        rows = [found.blocks(arm, key) for arm in arms.values()]
        axes.fill_between(list(arms), [min(row) for row in rows], [max(row) for row in rows], color=colour, alpha=0.15)
    axes.set(xlabel="alpha", ylabel="share of images (band: blocks of seeds)", ylim=(-0.02, 1.02))
    bits = axes.twinx()
    colour, marker = STYLES[5]
    bits.plot(
        list(arms),
        [found.share(arm, "entropy") for arm in arms.values()],
        color=colour,
        marker=marker,
        linestyle=":",
        label="entropy (right)",
    )
    bits.set(ylabel="bits, of what is left open", ylim=(0, None))
    handles = [*axes.get_lines(), *bits.get_lines()]
    labels = [line.get_label() for line in handles]
    figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=len(labels))
    axes.grid(alpha=0.25)
    return figure


def _matched(found: Negatives) -> Figure:
    figure = Figure(figsize=(8, 4.6), dpi=100, layout="constrained")
    for axes, key in zip(figure.subplots(1, 2, sharey=True), ("kept", "valid"), strict=True):
        for name, (colour, marker) in LOOKS.items():
            arms = [PLAIN, *found.strengths(name).values()]
            x, y = ([found.share(arm, share) for arm in arms] for share in (key, "absent"))
            axes.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=1.4, label=TITLES[name])
        axes.set(xlabel=f"{key} (share of images)", xlim=(0.45 if key == "kept" else -0.02, 1.02), ylim=(-0.02, 1.02))
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("absent (share of images)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure
