"""`python -m experiments.results_page`: write the tables of docs/RESULTS.md and its charts.

The numbers come from the files of the measuring commands (see `make results`); nothing is measured here. The text of
the page is written by hand, so read it again when a table has changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from experiments.negatives.results import Negatives
from experiments.negatives.settings import arms
from experiments.results_page import methods, tables
from experiments.results_page.alphas import alpha_table
from experiments.results_page.plots import draw
from experiments.tables import fill_page
from experiments.teacher_scale import SCALES, name_of

NAMES = ("teacher", "student", "teacher_scale", "negatives", "judges")
Data = dict[str, dict[str, Any]]


def load(folder: Path) -> Data:
    """Read the files of the measuring commands, by name.

    Raises:
        ValueError: a file or a measurement is missing, or files are of different models.
    """
    paths = {name: folder / f"{name}.json" for name in NAMES}
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        raise ValueError(f"not measured yet: {', '.join(missing)}; run `make results`")
    data = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()}
    for one, other in (("student", "negatives"), ("student", "judges"), ("teacher", "teacher_scale")):
        if any(data[one][name] != data[other][name] for name in ("fingerprint", "reader")):
            raise ValueError(
                f"{paths[one]} and {paths[other]} are of different models, or were read by different readers; delete "
                "them and run `make results`"
            )
    if missing := [str(arm) for arm in arms() if str(arm) not in data["negatives"]["arms"]]:
        raise ValueError(f"{paths['negatives']} lacks {', '.join(missing)}; `make results` measures what is missing")
    if missing := [name_of(scale) for scale in SCALES if name_of(scale) not in data["teacher_scale"]["scales"]]:
        raise ValueError(f"{paths['teacher_scale']} lacks kappa {', '.join(missing)}; `make results` measures them")
    return data


def all_tables(data: Data, alpha: float) -> dict[str, str]:
    """Every table of docs/RESULTS.md by its name there.

    Raises:
        ValueError: NASA was not measured at `alpha`.
    """
    removed = Negatives(data["negatives"])
    known = sorted(removed.strengths("nasa").keys() & removed.strengths("nasa", 4).keys())
    if alpha not in known:
        raise ValueError(f"alpha {alpha:g} was not measured in one step and in four; available: {known}")
    return {
        "verdict": tables.verdict_table(data["teacher"], data["student"], removed, alpha),
        "captions": tables.captions_table(data["teacher"], data["student"]),
        "attributes": tables.attributes_table(data["teacher"], data["student"]),
        "variety": tables.variety_table(data["teacher"], data["student"]),
        "teacher-scale": tables.scale_table(data["teacher_scale"]),
        "removal-fixed": tables.pairs_table(removed.only(fixed=True), alpha),
        "removal-modal": tables.pairs_table(removed.only(fixed=False), alpha),
        "removal-means": tables.means_table(removed, alpha),
        "methods": methods.methods_table(removed),
        "matched": methods.matched_table(removed),
        "strengths": methods.strengths_table(removed),
        "alpha": alpha_table(removed),
        "strengths-fixed": methods.nasa_table(removed.only(fixed=True)),
        "judges": tables.judges_table(data["judges"]),
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.results_page", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("docs/data"), help="JSON files (default: %(default)s)")
    parser.add_argument("--alpha", type=float, help="one that was measured (default: that of judges.json)")
    parser.add_argument("--page", type=Path, default=Path("docs/RESULTS.md"), help="its charts: images/ beside it")
    args = parser.parse_args(arguments)
    try:
        data = load(args.data)
        fill_page(args.page, all_tables(data, data["judges"]["alpha"] if args.alpha is None else args.alpha))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    draw(Negatives(data["negatives"]), args.page.parent / "images")
    print(f"wrote the tables of {args.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
