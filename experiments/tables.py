"""Tables in pages that are written by hand: a command replaces the text between a table's two marks.

<!-- table NAME -->
| a | b |
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from snoopi_core.formats.atomic import write_atomically

END = "<!-- end -->"


def filled(text: str, tables: Mapping[str, str]) -> str:
    """`text` with the content of each table replaced.

    Raises:
        ValueError: `text` has no place, or several, for one of the tables.
    """
    for name, table in tables.items():
        start = f"<!-- table {name} -->\n"
        pattern = re.compile(re.escape(start) + ".*?" + re.escape(END), re.DOTALL)
        if (places := len(pattern.findall(text))) != 1:
            raise ValueError(f"expected exactly one {start.strip()!r} ... {END!r} in the page, found {places}")
        text = pattern.sub(lambda _, new=f"{start}{table}{END}": new, text)
    return text


def fill_page(page: Path, tables: Mapping[str, str]) -> None:
    """Replace the tables of a page; a page that does not exist yet is made of the tables alone.

    Raises:
        ValueError: see `filled`.
    """
    empty = "\n".join(f"<!-- table {name} -->\n{END}\n" for name in tables)
    text = page.read_text(encoding="utf-8") if page.is_file() else empty
    write_atomically(page, filled(text, tables))
