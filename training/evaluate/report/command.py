"""`report`: one self-contained HTML page, and the same as Markdown, of everything that was measured."""

from __future__ import annotations

import argparse
import base64
import hashlib
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from snoopi_core.formats.atomic import write_atomically
from training.evaluate.report.about import about_tables
from training.evaluate.report.collect import Collected, collect
from training.evaluate.report.pictures import Pictures, curves, grids
from training.evaluate.report.removals import removal_tables
from training.evaluate.report.tables import Table, never_measured, others, preference, quality
from training.trainer.run_folder.describe import command_line

_MARK = "written by training.evaluate report"
_PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="generator" content="{mark}">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; padding: 0 1em; max-width: 1280px; color: #222 }}
img {{ max-width: 100%; height: auto }}
figure {{ margin: 2em 0 }}
div {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: left }}
th {{ background: #f4f4f4; vertical-align: bottom }}
.quiet {{ color: #666; font-size: 13.5px; max-width: 70em }}
</style>
<h1>{title}</h1>
<p class="quiet">{intro}</p>
{body}
</html>
"""


def report(args: argparse.Namespace) -> int:
    """The command; see `training.evaluate.cli`.

    Raises:
        OSError, ValueError: what is wrong, in words for the user; nothing was written.
    """
    out = args.out if args.out.suffix == ".html" else args.out.with_name(args.out.name + ".html")
    beside = out.with_suffix(".md")
    for path in (out, beside):
        if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
            raise ValueError(
                f"{path} is there already and is no such report; nothing was written, choose another --out"
            )
    found = collect(args.folders)
    tables = tables_of(found, everything=args.protocol == "paper")
    pictures = grids(found, args.grid) | curves(found)
    intro = (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, by {command_line()}. Measured figures are from the folders named at "
        "the end, the paper's from its tables (arXiv 2412.02687)."
    )
    write_atomically(out, html(args.title, intro, tables, pictures))
    write_atomically(beside, markdown(args.title, intro, tables, pictures, beside))
    print(f"{out}\n{beside}")
    return 0


def tables_of(found: Collected, *, everything: bool) -> list[Table]:
    """All tables; with `everything` the paper's too that nothing was measured of."""
    wanted = [
        quality(found, everything=everything),
        *preference(found, everything=everything),
        others(found),
        *removal_tables(found, everything=everything),
        *(never_measured() if everything else []),
        *about_tables(found),
    ]
    return [table for table in wanted if table is not None]


def html(title: str, intro: str, tables: list[Table], pictures: Pictures) -> str:
    """The page, with its pictures inside."""
    figures = "\n".join(
        f'<figure><figcaption class="quiet">{escape(name)}</figcaption>'
        f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></figure>'
        for name, png in pictures.items()
    )
    body = "\n".join([figures, *(table.html() for table in tables)])
    return _PAGE.format(title=escape(title), intro=escape(intro), body=body, mark=_MARK)


def markdown(title: str, intro: str, tables: list[Table], pictures: Pictures, page: Path) -> str:
    """The same; pictures go into a folder beside the page."""
    folder = page.with_name(f"{page.stem}-images")
    links = []
    for name, png in pictures.items():
        path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:8]}.png"
        write_atomically(path, png)
        links.append(f"![{name}]({folder.name}/{path.name})\n\n{name}\n")
    return "\n".join([f"# {title}\n", f"<!-- {_MARK} -->\n", f"{intro}\n", *links, *(t.markdown() for t in tables)])
