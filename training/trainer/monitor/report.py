"""report.html: warnings, curves and sample grids (newest first) of a run so far."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from jinja2 import Template

from snoopi_core.formats.atomic import write_atomically
from training.config import Recipe
from training.trainer.monitor.metrics_log import Line, read_metrics

_TEMPLATE = Path(__file__).with_name("report.html")
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
    # of evaluate.every
    (
        "CLIP score (band: 95 %), precision, recall",
        {f"eval_{name}": name for name in ("clip", "precision", "recall")},
        False,
    ),
    ("FID", {"eval_fid": "FID"}, False),
    (
        "with a negative prompt, shares of images (bands: 95 %)",
        {f"eval_{name}": name for name in ("absent", "kept", "valid", "clean")}
        | {"eval_plain_absent": "absent without it", "eval_plain_valid": "valid without it"},
        False,
    ),
)


def write_report(folder: Path, recipe: Recipe, warnings: list[str]) -> Path:
    """Write report.html into `folder` from metrics.jsonl and samples/ there; returns its path."""
    lines = read_metrics(folder / "metrics.jsonl")
    grids = sorted((folder / "samples").glob("step-*.png"), reverse=True)
    template = Template(_TEMPLATE.read_text(encoding="utf-8"), autoescape=True, trim_blocks=True)
    page = template.render(
        title=recipe.output.title,
        iteration=lines[-1]["iteration"] if lines else 0,
        iterations=recipe.loop.iterations,
        warnings=warnings,
        curves=base64.b64encode(curves(lines)).decode(),
        grids=[(int(grid.stem.removeprefix("step-")), grid.name) for grid in grids],
    )
    path = folder / "report.html"
    write_atomically(path, page)
    return path


def curves(lines: list[Line]) -> bytes:
    """Charts of the most useful metrics that were measured, as one PNG; empty if there are none."""
    # imported here because it takes seconds, and most processes do not need it
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = [(title, found, log) for title, names, log in _PANELS if (found := _named(lines, names))]
    if not panels:
        return b""
    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(15, 3.5 * rows), layout="constrained", dpi=100)
    every = figure.subplots(rows, 3, squeeze=False).flatten()
    for unused in every[len(panels) :]:
        unused.axis("off")
    for axes, (title, found, logarithmic) in zip(every, panels, strict=False):
        for name, label in found:
            x, y = _points(lines, name)
            (drawn,) = axes.plot(x, y, label=label, linewidth=1.2, marker="." if len(x) < 40 else None)
            if _named(lines, {f"{name}_low": label}):
                (x, low), (_, high) = (_points(lines, f"{name}_{end}") for end in ("low", "high"))
                axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)
        axes.set_title(title, fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        if not logarithmic:
            axes.set_ylim(bottom=0)
        elif all((line.get_ydata() > 0).any() for line in axes.lines):
            axes.set_yscale("log")
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


def _points(lines: list[Line], name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Iterations, and the values of a metric that `lines` have."""
    points = [(line["iteration"], line[name]) for line in lines if line.get(name) is not None]
    x, y = zip(*_thinned(points), strict=True)
    return x, y


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbouring points so that at most `POINTS` are left."""
    size = -(-len(points) // POINTS)
    groups = [points[n : n + size] for n in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
