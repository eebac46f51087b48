"""Imports point one way (CONTRIBUTING.md), also in nodes/, which import-linter cannot see.

The host loads nodes/ and snoopi_core/ under a name that is not known in advance, so they must import our own modules
relatively.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

OURS = {"nodes", "snoopi_core", "training"}
# Top-level modules of ComfyUI; `nodes` as an absolute import is the host's as well.
HOST = {
    "comfy",
    "comfy_api",
    "comfy_config",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "latent_preview",
    "node_helpers",
    "nodes",
    "server",
}


@dataclass(frozen=True)
class Rule:
    """Allowed imports of the files below a folder: from the host (absolute), from us (first folder below the root)."""

    folder: str
    host: frozenset[str]
    ours: frozenset[str]
    relative_only: bool


RULES = (
    Rule(
        "nodes", frozenset({"comfy_api", "comfy_execution", "folder_paths"}), frozenset({"nodes", "snoopi_core"}), True
    ),
    Rule("snoopi_core/host", frozenset(HOST - {"nodes"}), frozenset({"snoopi_core"}), True),
    Rule("snoopi_core", frozenset(), frozenset({"snoopi_core"}), True),
    Rule("training", frozenset(), frozenset({"training", "snoopi_core"}), False),
)


def imports(source: str, path: Path) -> Iterator[tuple[int, str]]:
    """(line, target) of every import statement; a relative one as ./<path from the pack's root>."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield node.lineno, node.module or ""
                continue
            above = path.parent.parts[: len(path.parent.parts) - (node.level - 1)]
            for alias in node.names if node.module is None else [ast.alias(node.module)]:
                yield node.lineno, "./" + "/".join([*above, *alias.name.split(".")])


def violations(source: str, path: Path) -> list[str]:
    """The forbidden imports of ``source``, as the file ``path`` (relative to the root)."""
    rule = next((rule for rule in RULES if path.is_relative_to(rule.folder)), None)
    if rule is None:
        return []
    found = []
    for line, target in imports(source, path):
        where = f"{path}:{line}: imports {target}"
        if target.startswith("./"):
            inside = target[2:]
            if inside.split("/")[0] not in rule.ours:
                found.append(f"{where}; {rule.folder}/ may import only {sorted(rule.ours)} of ours")
            elif inside.startswith("snoopi_core/host") and rule.folder not in ("nodes", "snoopi_core/host"):
                found.append(f"{where}; only nodes/ may import snoopi_core/host")
            continue
        top = target.split(".")[0]
        if top in HOST and top not in rule.host:
            found.append(f"{where}; {rule.folder}/ may import only {sorted(rule.host)} of the host")
        elif top in OURS and rule.relative_only:
            found.append(f"{where}; inside the host that name is unknown: import it relatively")
        elif top in OURS and (top not in rule.ours or target.startswith("snoopi_core.host")):
            found.append(f"{where}; {rule.folder}/ may not")
    return found


def test_every_file_follows_the_rules(pack_root: Path) -> None:
    files = sorted(file for folder in OURS for file in (pack_root / folder).rglob("*.py"))
    assert files
    found = [v for file in files for v in violations(file.read_text(encoding="utf-8"), file.relative_to(pack_root))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("nodes/a.py", "import comfy.samplers"),
        ("nodes/a.py", "from snoopi_core import nasa"),
        ("nodes/a.py", "from ..training import losses"),
        ("nodes/a.py", "def f():\n    import nodes"),
        ("snoopi_core/a.py", "import folder_paths"),
        ("snoopi_core/a.py", "from .host import attach"),
        ("snoopi_core/a.py", "from snoopi_core.guidance.nasa import x"),
        ("snoopi_core/host/a.py", "from ...nodes import loader"),
        ("training/a.py", "from comfy import sd"),
        ("training/trainer/a.py", "from snoopi_core.host import attach"),
        ("training/trainer/a.py", "from ...nodes import loader"),
    ],
)
def test_the_checker_sees(path: str, source: str) -> None:
    assert len(violations(source, Path(path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("nodes/a.py", "from comfy_api.latest import io"),
        ("nodes/a.py", "from ..snoopi_core.host import attach"),
        ("nodes/a.py", "from . import loader"),
        ("snoopi_core/host/a.py", "import comfy.samplers\nfrom ..nasa import x\nfrom . import y"),
        ("snoopi_core/a.py", "from .nasa import x\nimport torch"),
        (
            "training/a.py",
            "from snoopi_core.formats.checkpoint import x\nfrom training import losses\nfrom .losses import y",
        ),
    ],
)
def test_the_checker_allows(path: str, source: str) -> None:
    assert violations(source, Path(path)) == []
