"""report.html: warnings, curves and sample grids (newest first) of a run so far."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from snoopi_core.formats.atomic import write_atomically
from training.config import Recipe
from training.trainer.monitor.metrics_log import Line, read_metrics

POINTS = 400  # at most, of a curve; neighbours are averaged
_PANELS: tuple[tuple[str, dict[str, str], bool], ...] = (
    ("losses", {"vsd": "VSD", "lora": "LoRA teacher", "clip": "CLIP"}, True),
    ("score gap |g|, by timestep from", {"gap_t": ""}, True),
    ("gradient norms", {"student_grad": "student", "lora_grad": "LoRA teacher"}, True),
    ("distance from the teacher (0: none, 1: a flat image)", {"sample_distance": "averaged student"}, False),
    (
        "diversity, of the teacher's",
        {"sample_diversity": "between seeds", "sample_diversity_prompts": "between prompts"},
        False,
    ),
    ("strength of latents, of the teacher's", {"sample_std": "averaged", "x0_std_of_teacher": "in training"}, False),
)
_PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; padding: 0 1em; max-width: 1650px; color: #222 }}
img {{ max-width: 100%; height: auto }}
.warning {{ background: #fff3cd; padding: .5em 1em; margin: .5em 0 }}
figure {{ margin: 2em 0 }}
</style>
<h1>{title}</h1>
<p>Iteration {iteration} of {iterations}. {verdict} This page is updated at every sampling point; README.txt
explains the metrics.</p>
{warnings}
<figure><img alt="Curves of the run" src="data:image/png;base64,{curves}"></figure>
{grids}
</html>
"""


def write_report(folder: Path, recipe: Recipe, warnings: list[str]) -> Path:
    """Write report.html into `folder` from metrics.jsonl and samples/ there; returns its path."""
    lines = read_metrics(folder / "metrics.jsonl")
    grids = sorted((folder / "samples").glob("step-*.png"), reverse=True)
    path = folder / "report.html"
    page = _PAGE.format(
        title=escape(recipe.output.title),
        iteration=lines[-1]["iteration"] if lines else 0,
        iterations=recipe.loop.iterations,
        verdict="Active warnings:" if warnings else "No active warnings.",
        warnings="\n".join(f'<p class="warning">{escape(text)}</p>' for text in warnings),
        curves=base64.b64encode(curves(lines)).decode(),
        grids="\n".join(_figure(grid) for grid in grids),
    )
    write_atomically(path, page)
    return path


def curves(lines: list[Line]) -> bytes:
    """Charts of the most useful metrics, as one PNG."""
    # imported here because it takes seconds, and most processes do not need it
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(15, 7), layout="constrained", dpi=100)
    for axes, (title, names, logarithmic) in zip(figure.subplots(2, 3).flat, _PANELS, strict=True):
        for name, label in _named(lines, names):
            points = [(line["iteration"], line[name]) for line in lines if line.get(name) is not None]
            x, y = zip(*_thinned(points), strict=True)
            axes.plot(x, y, label=label, linewidth=1.2, marker="." if len(x) < 40 else None)
        axes.set_title(title, fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
            if logarithmic and all((line.get_ydata() > 0).any() for line in axes.lines):
                axes.set_yscale("log")
            if not logarithmic:
                axes.set_ylim(bottom=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _named(lines: list[Line], names: dict[str, str]) -> list[tuple[str, str]]:
    """(name, label) of the metrics in `lines`. In `names`, an empty label means all metrics with that prefix."""
    have = dict.fromkeys(name for line in lines for name, value in line.items() if value is not None)
    found = [(name, label) for name, label in names.items() if label and name in have]
    for prefix in (name for name, label in names.items() if not label):
        found += sorted(
            ((name, name.removeprefix(prefix)) for name in have if name.startswith(prefix)),
            key=lambda pair: int(pair[1]),
        )
    return found


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbouring points so that at most `POINTS` are left."""
    size = -(-len(points) // POINTS)
    groups = [points[n : n + size] for n in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _figure(grid: Path) -> str:
    iteration = int(grid.stem.removeprefix("step-"))
    return (
        f'<figure><figcaption>iteration {iteration}</figcaption><img loading="lazy" '
        f'alt="Samples after {iteration} iterations" src="samples/{escape(grid.name)}"></figure>'
    )
