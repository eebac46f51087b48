"""scripts/compatibility.py: the page it writes from recorded measurements."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def script():
    from scripts import compatibility

    return compatibility


def entry(host, table, row, value, bar, column="error", file="tests/nodes/test_x.py"):
    return {"host": host, "table": table, "row": row, "column": column, "value": value, "bar": bar, "file": file}


def test_a_page(script):
    entries = [
        entry("1", "other", "y", 3, 4, "graphs"),
        entry("1", "families", "x", 1.23e-7, 1e-6),
        entry("2", "families", "x", 4e-7, 1e-6),
        entry("1", "families", "z", 0.0, 0.0, "difference"),
        entry("2", "families", "z", 0.5, 0.0, "difference", "tests/nodes/test_y.py"),
        entry("2", "families", "x", 2e-7, 1e-6),
    ]
    page = script.render(entries, ("1", "2"))
    lines = [line for line in page.splitlines() if line.startswith("|") and "---" not in line]
    assert lines == [
        "| what | measured | bar | 1 | 2 | test |",
        "| x | error | 1.0e-06 | 1.2e-07 | 4.0e-07 | 1 |",
        "| z | difference | 0 | equal bit for bit | **5.0e-01: above the bar** | 1, 2 |",
        "| what | measured | bar | 1 | 2 | test |",
        "| y | graphs | 4 | 3 | not in this version | 1 |",
    ]
    assert page == script.render(entries, ("1", "2"))
    assert "    python -m pytest -rP tests/nodes/test_x.py  # test 1\n" in page


def test_the_page_begins_with_the_summary(script):
    entries = [
        entry("1", "families", "Wan", 1e-7, 1e-6),
        entry("1", "composition", "ControlNet", 1e-7, 1e-6),
        entry("1", "composition", "ControlNet, with a mask", 1e-7, 1e-6),
        entry("1", "composition", "GLIGEN", 1e-7, 1e-6),
    ]
    page = script.render(entries, ("1",))
    assert "\n- **NASA Apply works with** Wan.\n" in page and "[all 2](#nasa-apply-beside-everything-else)" in page


def test_the_page_is_the_scripts(script, pack_root):
    """Its text; the figures are measured."""
    page = (pack_root / "docs" / "COMPATIBILITY.md").read_text(encoding="utf-8")
    assert all(f"| {host} " in page for host in script.HOSTS)
    text = script.HEAD[script.HEAD.index("## How to read") :].format(hosts=" and ".join(script.HOSTS))
    assert text in page
    assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120
