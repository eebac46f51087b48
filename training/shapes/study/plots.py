"""The study's curves as pictures: the mean over the seeds as a line, all seeds within the band."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people tell apart; markers say the same a second time.
_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#E69F00", "D"), ("#555555", "x"))
QUALITY = {
    "stated": "stated right (share)",
    "valid": "valid image (share)",
    "entropy": "entropy within a prompt (bits)",
}
TRAINING = {
    "gap": "score gap",
    "x0_std": "standard deviation of x0",
    "student_grad": "gradient norm, student",
    "lora_grad": "gradient norm, LoRA teacher",
}


def curves(results: dict[str, Any], cell: str, key: str) -> list[tuple[int, list[float]]]:
    """(iteration, one value a seed), where every finished run of the cell has a value."""
    runs = [run["curve"] for run in results["runs"] if run["cell"] == cell and not run["problem"]]
    steps = sorted(set.intersection(*(set(map(int, run)) for run in runs))) if runs else []
    rows = [(step, [run[str(step)].get(key) for run in runs]) for step in steps]
    return [(step, values) for step, values in rows if None not in values]


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write study-quality.png and study-training.png, 800 pixels wide."""
    folder.mkdir(parents=True, exist_ok=True)
    quality = Figure(figsize=(8, 10.5), dpi=100, layout="constrained")
    for axes, (key, label) in zip(quality.subplots(3, 1, sharex=True), QUALITY.items(), strict=True):
        _panel(axes, results, key, label, start=results["start"][key])
        axes.axhline(results["teacher"][key], color="black", linewidth=1, linestyle=":")
        axes.text(
            0.99,
            results["teacher"][key],
            "teacher, 20 steps",
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    training = Figure(figsize=(8, 7), dpi=100, layout="constrained")
    for axes, (key, label) in zip(training.subplots(2, 2, sharex=True).flat, TRAINING.items(), strict=True):
        _panel(axes, results, key, label)
    written = []
    for figure, name in ((quality, "study-quality.png"), (training, "study-training.png")):
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
        figure.supxlabel("iteration")
        figure.savefig(folder / name, metadata={"Software": None}, pil_kwargs={"optimize": True})
        written.append(folder / name)
    return written


def _panel(axes: Axes, results: dict[str, Any], key: str, label: str, start: float | None = None) -> None:
    for (cell, what), (colour, marker) in zip(results["cells"].items(), _STYLES, strict=False):
        points = curves(results, cell, key)
        if not points:
            continue
        if start is not None:
            points = [(0, [start]), *points]
        steps = [step for step, _ in points]
        axes.fill_between(
            steps, [min(v) for _, v in points], [max(v) for _, v in points], color=colour, alpha=0.1, linewidth=0
        )
        means = [fmean(values) for _, values in points]
        axes.plot(steps, means, color=colour, marker=marker, markersize=4, linewidth=1.6, label=what["title"])
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
