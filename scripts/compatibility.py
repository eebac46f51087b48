"""Write docs/COMPATIBILITY.md: the figures that tests measure on the oldest and the newest supported ComfyUI.

Runs the tests that touch the host. They record every figure that they assert (tests/support/figures.py) in out/, and
the page shows the figures of both hosts beside their limits. `--figures FILE` (repeatable) uses recorded figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from textwrap import fill
from typing import Any

from scripts.setup.host import NEWEST, PINS, ROOT

PAGE = ROOT / "docs" / "COMPATIBILITY.md"
HOSTS = (next(iter(PINS)), NEWEST)
Entry = dict[str, Any]  # host, table, row, column, value, bar, file
# Titles of the tables, in their order on the page; other tables follow.
TABLES = {
    "families": "Families of networks, against independent implementations in fp64",
    "joint attention": "Networks of joint attention, against the formula in fp64",
    "presets": "Presets of the One-Step Sampler, against their schedulers and formulas",
    "loader": "What the PG-SB Loader opens",
    "composition": "NASA Apply beside everything else",
    "methods": "NAG, VSF and orthogonal in NASA Apply, against their formulas in fp64",
    "masks": "Masks of NASA Apply, against the formula in fp64",
    "negatives": "Several negative prompts, against the formula in fp64",
    "robustness": "Long use and damaged files",
}
_EQUAL = ("outside the window", "model afterwards", "run twice")  # these columns are differences too
HEAD = """# Compatibility, measured

{families}
- **Together with** ControlNet, GLIGEN, regional and timed conditioning, other guiders and guidance nodes, replaced or
  patched attention (as IPAdapter does it), FreeU and other model patches, LoRA, model merges, torch.compile, fp16, bf16
  and fp8, low VRAM, interrupted and repeated runs: [all {count}](#{anchor}).
{joint}
- **Not tried**: AnimateDiff, GGUF, Nunchaku, SageAttention, several GPUs, the packs IPAdapter and TeaCache themselves
  (nodes that replace attention or forwards in their way were), a GPU.

## How to read the tables

The tests cannot download published weights, so they use small networks of the published kinds with random weights: the
figures show that the arithmetic is right, not how pictures look.

- *Relative error* (Frobenius norms) is against a formula written out in fp64. The plain model itself has about 5e-07
  in fp32.
- *Difference* (largest element) is between two ways of building the same graph, such as NASA Apply before and after
  the other node.
- *Graphs* is the number of graphs that torch.compile made.

A value is the largest of several measurements; the bar is the largest value that passes. Processors round differently:
on others, SD2.1 with v-prediction had 1.3e-06 at cfg 1 and 2.7e-06 at cfg 2, guiders up to 2.4e-06, and ACE-Step 1 with
a LoRA 1.5e-06, of which the plain model has 1.1e-06.

Every figure is asserted by a test, which also records it. `make compatibility` measures them in ComfyUI
{hosts} and writes this page. The last column is the number of the test that measures the row, in the list
above its table; `SNOOPI_HOST_VERSION=` before a command chooses the version of ComfyUI, and `--effort full` in it
measures every row.
"""


def render(entries: Sequence[Entry], hosts: Sequence[str]) -> str:
    """The page as Markdown; the same entries give the same page."""
    tables: dict[str, list[Entry]] = {}
    for entry in entries:
        tables.setdefault(entry["table"], []).append(entry)
    order = [*TABLES, *sorted(set(tables) - set(TABLES))]
    networks = f"- **NASA Apply works with** {'; '.join(_names(entries, 'families'))}."
    joint = (
        f"- **Joint attention**: {'; '.join(_names(entries, 'joint attention'))}. "
        "[JOINT_ATTENTION.md](JOINT_ATTENTION.md) says how, and what was not measured."
    )
    # "ControlNet, with a mask" is a second row of ControlNet's
    combined = {name.split(",")[0] for name in _names(entries, "composition")}
    head = HEAD.format(
        hosts=" and ".join(hosts),
        families=fill(networks, 120, subsequent_indent="  "),
        joint=fill(joint, 120, subsequent_indent="  "),
        anchor=TABLES["composition"].lower().replace(" ", "-"),
        count=len(combined),
    )
    parts = [head]
    parts += [_section(TABLES.get(name, name), tables[name], hosts) for name in order if name in tables]
    return "\n".join(parts)


def _names(entries: Sequence[Entry], table: str) -> list[str]:
    """The names of a table's rows in their order, each once."""
    return list(dict.fromkeys(entry["row"] for entry in entries if entry["table"] == table))


def _section(title: str, entries: Sequence[Entry], hosts: Sequence[str]) -> str:
    """A table; each cell has the largest value on that host, beside the largest bar."""
    numbers = {file: str(n) for n, file in enumerate(sorted({entry["file"] for entry in entries}), 1)}
    lines = [f"## {title}", "", "Printed by:", ""]
    lines += [f"    python -m pytest -rP {file}  # test {number}" for file, number in numbers.items()]
    lines += ["", _line("what", "measured", "bar", *hosts, "test"), _line(*["---"] * (4 + len(hosts)))]
    figures: dict[str, dict[str, list[Entry]]] = {}  # by row and column, in the order of the first measurement
    for entry in entries:
        figures.setdefault(entry["row"], {}).setdefault(entry["column"], []).append(entry)
    for row, columns in figures.items():
        for column, found in columns.items():
            bar = max(entry["bar"] for entry in found)
            largest = [max((e["value"] for e in found if e["host"] == host), default=None) for host in hosts]
            values = [_value(value, bar, column) for value in largest]
            tests = ", ".join(numbers[file] for file in sorted({entry["file"] for entry in found}))
            lines.append(_line(row, column, _number(bar), *values, tests))
    return "\n".join([*lines, ""])


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _value(value: float | None, bar: float, column: str) -> str:
    if value is None:
        return "not in this version"
    if value > bar:
        return f"**{_number(value)}: above the bar**"
    is_difference = "difference" in column or column in _EQUAL
    return "equal bit for bit" if is_difference and value == bar == 0.0 else _number(value)


def _number(value: float) -> str:
    """Whole numbers as they are, others with two digits."""
    return str(int(value)) if value == int(value) else f"{value:.1e}"


def measure(version: str, figures: Path, arguments: Sequence[str]) -> None:
    """Run the host tests in one ComfyUI and record their figures in a file.

    Raises:
        SystemExit: a test failed, so figures are missing.
    """
    tests = ["tests/nodes", "tests/live/server/test_soak.py", "tests/live/server/test_fuzz.py"]
    command = [sys.executable, "-m", "pytest", "-q", "--effort", "full", "-m", "host or server", *tests, *arguments]
    environment = {**os.environ, "SNOOPI_HOST_VERSION": version, "SNOOPI_FIGURES": str(figures)}
    print(f"== ComfyUI {version}", flush=True)
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0:
        raise SystemExit(f"tests failed on ComfyUI {version}: fix them first; {PAGE.relative_to(ROOT)} was not changed")


def read(files: Iterable[Path]) -> list[Entry]:
    """What was recorded, by test file: several processes (`-n 2 --dist loadfile`) take these in any order."""
    entries = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return sorted(entries, key=itemgetter("file"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", metavar="FILE", action="append", type=Path, help="use these, run no tests")
    options, more = parser.parse_known_args(arguments)
    if options.figures:
        entries = read(options.figures)
    else:
        files = [ROOT / "out" / f"figures-{version}.jsonl" for version in HOSTS]
        for version, file in zip(HOSTS, files, strict=True):
            file.parent.mkdir(exist_ok=True)
            file.unlink(missing_ok=True)
            measure(version, file, more)
        entries = read(files)
    PAGE.write_text(render(entries, HOSTS), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
