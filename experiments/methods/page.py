"""The tables and the chart of docs/METHODS.md."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from experiments.methods.results import PLAIN, Comparison
from experiments.methods.settings import SETTINGS
from experiments.results_page.methods import LOOKS, TITLES, ahead
from training.evaluate.report.markdown import mean_with_interval, table

KEYS = ("absent", "kept", "valid", "clean")


def tables(found: Comparison) -> dict[str, str]:
    """All tables by name."""
    return {"chosen": _chosen(found), "held-out": _held_out(found), "settings": _settings(found)}


def _parameters(setting: str) -> str:
    return setting.partition(" ")[2]


def _chosen(found: Comparison) -> str:
    """What the setting that each method was tuned to does on the reporting seeds."""
    rows = [["none", "", *cells(found, PLAIN), "", ""]]
    best = found.shares("reporting", found.chosen("nasa"), "clean")
    for method in SETTINGS:
        setting = found.chosen(method)
        lead = _lead(method, best, found.shares("reporting", setting, "clean"))
        rows.append([TITLES[method], _parameters(setting), *cells(found, setting), *lead])
    return table(["negative by", "chosen", *KEYS, "entropy", "lead of NASA", "ahead"], rows)


def cells(found: Comparison, setting: str) -> list[str]:
    """What a setting does on the reporting seeds: `KEYS` and the entropy."""
    return [mean_with_interval(found.shares("reporting", setting, key)) for key in (*KEYS, "entropy")]


def _lead(method: str, nasa: list[float], own: list[float]) -> list[str]:
    """How far NASA leads a method over all pairs, and which of them is ahead; "" twice for NASA itself."""
    if method == "nasa":
        return ["", ""]
    lead = [one - two for one, two in zip(nasa, own, strict=True)]
    return [mean_with_interval(lead), ahead(lead, TITLES[method])]


def _held_out(found: Comparison) -> str:
    """The same, with settings that were chosen on the pairs of the world's other parts."""
    rows = []
    for method in SETTINGS:
        several = ", ".join(dict.fromkeys(_parameters(each) for each in found.chosen_elsewhere(method)))
        shares = [mean_with_interval(found.held_out(method, key)) for key in KEYS]
        lead = _lead(method, found.held_out("nasa", "clean"), found.held_out(method, "clean"))
        rows.append([TITLES[method], several, *shares, *lead])
    return table(["negative by", "chosen", *KEYS, "lead of NASA", "ahead"], rows)


def _settings(found: Comparison) -> str:
    """Every setting on the tuning seeds; the chosen ones are marked."""
    names = [PLAIN, *(str(each) for several in SETTINGS.values() for each in several)]
    chosen = {found.chosen(method) for method in SETTINGS}
    rows = [
        [f"**{name}**" if name in chosen else name, *(fmean(found.shares("tuning", name, key)) for key in KEYS)]
        for name in names
    ]
    return table(["setting", *KEYS], rows)


def draw(found: Comparison, path: Path) -> None:
    """Absent against kept and against valid, a line for each method; NAG and VSF have one for each other parameter."""
    figure = Figure(figsize=(8, 4.6), dpi=100, layout="constrained")
    for axes, key in zip(figure.subplots(1, 2, sharey=True), ("kept", "valid"), strict=True):
        for method, several in SETTINGS.items():
            colour, marker = LOOKS[method]
            for number, (_, group) in enumerate(groupby(several, key=lambda each: dict(each.others))):
                names = [PLAIN, *(str(each) for each in group)]
                x, y = ([fmean(found.shares("tuning", name, share)) for name in names] for share in (key, "absent"))
                label = None if number else TITLES[method]
                axes.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=1.2, label=label)
        if key == "kept":
            axes.axvline(0.95, color="#999999", linewidth=1, linestyle=":")
        axes.set(xlabel=f"{key} (share of images)", xlim=(0.45 if key == "kept" else -0.02, 1.02), ylim=(-0.02, 1.02))
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("absent (share of images)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None}, pil_kwargs={"optimize": True})
