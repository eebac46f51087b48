"""The measurements of docs/COMPATIBILITY.md: asserted in the tests, and recorded on request.

SNOOPI_FIGURES names a file; every measurement of a run is appended to it, one JSON object a line. See
scripts/compatibility.py, which makes the page.
"""

from __future__ import annotations

import json
import os

from comfyui_version import __version__ as HOST_VERSION

MEASURED: set[tuple[str, str]] = set()
"""Row and column of everything in this session; tests/conftest.py looks whether the page has them."""


def measured(table: str, row: str, column: str, value: float, bar: float) -> None:
    """Assert `value <= bar` and record both.

    Args:
        table: such as "families", "presets" or "composition".
        row, column: where in the table; several values for one cell are shown as the largest.
        value: usually a relative error; 0.0 with a bar of 0.0 stands for "equal bit for bit".
        bar: the largest value that passes.
    """
    MEASURED.add((row, column))
    print(f"{table}: {row}, {column}: {value:.1e} (bar {bar:.1e})")
    if path := os.environ.get("SNOOPI_FIGURES"):
        entry = {
            "host": HOST_VERSION, "file": os.environ["PYTEST_CURRENT_TEST"].partition("::")[0],
            "table": table, "row": row, "column": column, "value": float(value), "bar": bar,
        }  # fmt: skip
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    assert value <= bar, f"{table}: {row}, {column}: {value:.3g} is above {bar:.3g}"
