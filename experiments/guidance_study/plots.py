"""The study's charts: a line for the mean over the seeds, a band for all seeds."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.guidance_study.settings import GROUPS
from training.evaluate.report.plot_style import STYLES

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


_CELLS = ("pgsb", "swiftbrush", "fixed", "dmd2trick", "teacher-only", "lora-only")
_STYLES = dict(zip(_CELLS, STYLES, strict=True))
_STYLES |= {"pgsb-high": STYLES[0], "pgsb-fast": STYLES[0], "swiftbrush-fast": STYLES[1]}
_STYLES |= dict(zip(("updates-1", "updates-2", "shared"), STYLES[1:], strict=False))
_STYLES |= dict(zip(("eps-loss", "sigma-squared", "rank-16"), STYLES[1:], strict=False))


def curves(results: dict[str, Any], cell: str, key: str) -> list[tuple[int, list[float]]]:
    """(iteration, one value per seed) at the iterations where every finished run of the cell has a value."""
    runs = [run["curve"] for run in results["runs"] if run["cell"] == cell and not run["problem"]]
    steps = sorted(set.intersection(*(set(map(int, run)) for run in runs))) if runs else []
    rows = [(step, [run[str(step)].get(key) for run in runs]) for step in steps]
    return [(step, values) for step, values in rows if None not in values]


def draw(results: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """Write NAME-quality.png, a column for each of `GROUPS` but those inside another, and NAME-training.png, of the
    first group."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = {title: [cell for cell in cells if cell in results["cells"]] for title, cells in GROUPS.items()}
    groups = {
        title: cells
        for title, cells in groups.items()
        if len(cells) > 1 and not any(set(cells) < set(others) for others in groups.values())
    } or {"": list(results["cells"])}
    quality = Figure(figsize=(3.4 * len(groups) + 0.6, 9.5), dpi=100, layout="constrained")
    grid = quality.subplots(len(QUALITY), len(groups), sharex=True, sharey="row", squeeze=False)
    for number, (key, label) in enumerate(QUALITY.items()):
        for axes, (title, cells) in zip(grid[number], groups.items(), strict=True):
            _panel(axes, results, cells, key, start=results["start"][key])
            axes.axhline(results["teacher"][key], color="black", linewidth=1, linestyle=":", label="teacher, 20 steps")
            if number == 0:
                axes.set_title(title, fontsize=10)
            if number == len(QUALITY) - 1:
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False, fontsize=8)
        grid[number, 0].set_ylabel(label)
    training = Figure(figsize=(8, 7), dpi=100, layout="constrained")
    for axes, (key, label) in zip(training.subplots(2, 2, sharex=True).flat, TRAINING.items(), strict=True):
        _panel(axes, results, next(iter(groups.values())), key)
        axes.set_ylabel(label)
    handles, labels = training.axes[0].get_legend_handles_labels()
    training.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    written = []
    for figure, what in ((quality, "quality"), (training, "training")):
        figure.supxlabel("iteration")
        path = folder / f"{name}-{what}.png"
        figure.savefig(path, metadata={"Software": None}, pil_kwargs={"optimize": True})
        written.append(path)
    return written


def _panel(axes: Axes, results: dict[str, Any], cells: list[str], key: str, start: float | None = None) -> None:
    for cell in cells:
        colour, marker = _STYLES.get(cell, STYLES[-1])
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
        title = results["cells"][cell]["title"]
        axes.plot(steps, means, color=colour, marker=marker, markersize=4, linewidth=1.6, label=title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
