"""The command `report`: a self-contained HTML page, and the same as Markdown, of everything that was measured."""

from __future__ import annotations

import argparse
import base64
import hashlib
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Template

from snoopi_core.formats.atomic import write_atomically
from training.evaluate.report.about import about_tables
from training.evaluate.report.collect import Collected, collect
from training.evaluate.report.pictures import Pictures, curves, grids
from training.evaluate.report.removals import removal_tables
from training.evaluate.report.tables import Table, never_measured, other_scores, preference, quality
from training.trainer.run_folder.describe import command_line

_TEMPLATE = Path(__file__).with_name("page.html")
_MARK = "written by training.evaluate report"


def report(args: argparse.Namespace) -> int:
    """The command `report`, with the arguments of `training.evaluate.cli`; returns the exit code.

    Raises:
        OSError, ValueError: errors for the user; nothing was written.
    """
    page = args.out if args.out.suffix == ".html" else args.out.with_name(args.out.name + ".html")
    for path in (page, page.with_suffix(".md")):
        if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
            raise ValueError(
                f"{path} exists and was not written by this command; nothing was changed, choose another --out"
            )
    found = collect(args.folders)
    tables = all_tables(found, everything=args.protocol == "paper")
    pictures = grids(found, args.grid) | curves(found)
    intro = (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, by {command_line()}. Measured figures are from the folders named at "
        "the end, the paper's from its tables (arXiv 2412.02687)."
    )
    write_atomically(page, html(args.title, intro, tables, pictures))
    write_atomically(page.with_suffix(".md"), markdown(args.title, intro, tables, pictures, page))
    print(f"{page}\n{page.with_suffix('.md')}")
    return 0


def all_tables(found: Collected, *, everything: bool) -> list[Table]:
    """All tables; with `everything` also those of the paper that nothing was measured for."""
    tables = [
        quality(found, everything=everything),
        *preference(found, everything=everything),
        other_scores(found),
        *removal_tables(found, everything=everything),
        *(never_measured() if everything else []),
        *about_tables(found),
    ]
    return [table for table in tables if table.rows]


def html(title: str, intro: str, tables: list[Table], pictures: Pictures) -> str:
    """The HTML page, with its pictures inside."""
    encoded = {name: base64.b64encode(png).decode() for name, png in pictures.items()}
    template = Template(_TEMPLATE.read_text(encoding="utf-8"), autoescape=True)
    return template.render(title=title, intro=intro, tables=tables, pictures=encoded, mark=_MARK)


def markdown(title: str, intro: str, tables: list[Table], pictures: Pictures, page: Path) -> str:
    """The same as Markdown; the pictures are written into a folder next to `page`."""
    folder = page.with_name(f"{page.stem}-images")
    links = []
    for name, png in pictures.items():
        path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:8]}.png"
        write_atomically(path, png)
        links.append(f"![{name}]({folder.name}/{path.name})\n\n{name}\n")
    return "\n".join([f"# {title}\n", f"<!-- {_MARK} -->\n", f"{intro}\n", *links, *(t.markdown() for t in tables)])
