"""Install the pack into a ComfyUI's custom_nodes/, as users have it."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# With a hyphen, like most packs' folders, which therefore cannot be imported by name.
FOLDER = "ComfyUI-SNOOPI"
# Everything the pack needs at run time; without the trainer, tests and tools, to check that they are not needed.
SHIPPED_FOLDERS = ("nodes", "snoopi_core", "models", "workflows", "subgraphs", "web", "locales")
SHIPPED_FILES = ("__init__.py", "pyproject.toml")


def install_pack(base: Path) -> Path:
    """Copy the pack into ``base/custom_nodes``. Not a link, since it must work outside its repository."""
    target = base / "custom_nodes" / FOLDER
    target.mkdir(parents=True)
    for name in SHIPPED_FILES:
        shutil.copy2(ROOT / name, target / name)
    for name in filter(lambda name: (ROOT / name).is_dir(), SHIPPED_FOLDERS):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def install_small_copies(base: Path) -> None:
    """Install small_copies.py as a custom node. Loading ordinary files does not change."""
    folder = base / "custom_nodes" / "aaa_small_copies"  # the host imports in alphabetical order
    folder.mkdir(parents=True)
    source = Path(__file__).with_name("small_copies.py").read_text(encoding="utf-8")
    (folder / "__init__.py").write_text(f"{source}\n\npatch_host()\nNODE_CLASS_MAPPINGS = {{}}\n", encoding="utf-8")
