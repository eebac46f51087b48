"""The pictures of the report, as PNG: grids of images with the same noise, and curves over a method's strength."""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.evaluate.judges.removal import SHARES
from training.evaluate.report.collect import Collected, ordered, parsed
from training.evaluate.report.plot_style import STYLES
from training.evaluate.sets.image_files import read_image
from training.evaluate.sets.manifest import Manifest, Row
from training.evaluate.sets.results import Result
from training.models.guidance.methods import neutral_strength
from training.trainer.monitor.sample_grid import sample_grid
from training.trainer.monitor.samples import as_tiles

SEEDS = 2  # of each prompt in a grid
_SCORES = {"fid": "FID", "clip": "CLIP score", "hps-v2.0": "HPSv2 v2.0", "hps-v2.1": "HPSv2 v2.1"}
Pictures = dict[str, bytes]  # by caption
Series = list[tuple[str, list[tuple[float, Result]]]]  # title, and results by strength
Panels = list[tuple[str, list[tuple[str, list[tuple[float, ...]]]]]]  # title, lines of (label, points)


def grids(found: Collected, prompts: int) -> Pictures:
    """A grid for each model and list of prompts: one column per prompt, rows by method."""
    pictures: Pictures = {}
    for sets in _alike(found.sets):
        first = next(iter(sets.values()))
        chosen = _chosen(first, prompts)
        if not chosen:
            continue
        words = [
            f"{rows[0].prompt} | not {rows[0].negative}" if rows[0].negative else rows[0].prompt for rows in chosen
        ]
        ordered_sets = sorted(sets.items(), key=lambda item: (item[1].method != "none", *parsed(item[1].method)))
        groups = [(manifest.method, _tiles(folder, chosen)) for folder, manifest in ordered_sets]
        buffer = io.BytesIO()
        sample_grid(words, groups).save(buffer, format="PNG")
        name = f"{first.title}: the same noise in each column, by method, {SEEDS} seeds each (as Figures 3 and 6)"
        pictures[name if name not in pictures else f"{name}, {len(pictures) + 1}"] = buffer.getvalue()
    return pictures


def curves(found: Collected) -> Pictures:
    """Removal and scores over the strength of each method that was measured at two strengths or more (Figure 5)."""
    pictures: Pictures = {}
    for result in found.removals:
        panels: Panels = []
        for title, points in _series(ordered(result["sets"])):
            means = [(x, row["means"]["all"]) for x, row in points]
            lines = [(n, [(x, m[n]["share"], m[n]["low"], m[n]["high"]) for x, m in means if m[n]]) for n in SHARES]
            panels.append((title, [line for line in lines if line[1]]))
        if panels:
            caption = f"Removal over strength, judged by {result['judge']['name']}; bands: 95 % Wilson intervals"
            pictures[f"{caption} (as Figure 5)"] = _draw(panels, ylim=(-0.02, 1.02))
    series = _series(ordered(found.scores))
    panels = []
    for name, title in _SCORES.items():
        lines = [
            (label, [(x, row["scores"][name]["value"]) for x, row in points if name in row["scores"]])
            for label, points in series
        ]
        if lines := [line for line in lines if len(line[1]) > 1]:
            panels.append((title, lines))
    if panels:
        pictures["Scores over strength"] = _draw(panels)
    return pictures


def _alike(sets: dict[Path, Manifest]) -> Iterable[dict[Path, Manifest]]:
    """Groups of sets with the same setup and the same rows."""
    found: dict[object, dict[Path, Manifest]] = {}
    for folder, manifest in sets.items():
        found.setdefault((manifest.setup(), manifest.images), {})[folder] = manifest
    return found.values()


def _chosen(manifest: Manifest, prompts: int) -> list[list[Row]]:
    """The first rows of each of the first prompts (with its negative), the same number for each."""
    by: dict[tuple[str, str | None, int | None], list[Row]] = {}
    for row in manifest.images:
        by.setdefault((row.prompt, row.negative, row.pair), []).append(row)
    most = min(SEEDS, max(map(len, by.values())))
    return [rows[:most] for rows in by.values() if len(rows) >= most][:prompts]


def _tiles(folder: Path, chosen: list[list[Row]]) -> torch.Tensor:
    """(P, K, 3, H, W) uint8."""

    def one(row: Row) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(read_image(folder / row.file))).permute(2, 0, 1)
        return as_tiles(pixels[None].float() / 255)[0]

    return torch.stack([torch.stack([one(row) for row in rows]) for rows in chosen])


def _series(rows: list[Result]) -> Series:
    """(strength, row) by title and method, for images of the same prompts and noise.

    The images without a negative are added at the strength that has no effect.
    """
    found: dict[tuple[str, ...], list[tuple[float, Result]]] = {}
    for row in rows:
        name, strength = parsed(row["method"])
        if name != "none":
            series = row["method"].rpartition(":")[0] or name  # for a teacher, with the number of steps
            found.setdefault((row["title"], row["setup"], row["prompts"], series), []).append((strength, row))
    drawn: Series = []
    for (title, setup, prompts, name), points in found.items():
        if len(points) < 2:
            continue
        neutral = neutral_strength(name)
        plain = [r for r in rows if (r["method"], r["setup"], r["prompts"]) == ("none", setup, prompts)]
        if neutral is not None and plain and all(strength != neutral for strength, _ in points):
            points.append((neutral, plain[0]))
        drawn.append((f"{title}, {name}", sorted(points, key=lambda point: point[0])))
    return drawn


def _draw(panels: Panels, **limits: Any) -> bytes:
    """A PNG with one panel for each title, and in it a line for each label."""
    from matplotlib.figure import Figure  # slow to import

    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), layout="constrained", dpi=110)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for unused in axes[len(panels) :]:
        unused.axis("off")
    for panel, (title, lines) in zip(axes, panels, strict=False):
        for (label, points), (colour, marker) in zip(lines, cycle(STYLES), strict=False):
            x, y, *band = zip(*points, strict=True)
            panel.plot(x, y, color=colour, marker=marker, markersize=5, label=label)
            if band:
                panel.fill_between(x, *band, color=colour, alpha=0.15)
        panel.set(title=title, xlabel="strength", **limits)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
