"""Put the pack into a ComfyUI's custom_nodes/, as a user has it."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# With a hyphen: most packs' folders have one, so the host cannot import them by name.
FOLDER = "ComfyUI-SNOOPI"
# Everything the published pack needs at run time; the trainer, tests and tools are left out to prove it.
SHIPPED_FOLDERS = ("nodes", "snoopi_core", "models", "workflows", "subgraphs", "web", "locales")
SHIPPED_FILES = ("__init__.py", "pyproject.toml", "requirements.txt")


def install_pack(base: Path) -> Path:
    """Copy the pack into ``base/custom_nodes``. A copy and not a link: it must work away from its repository."""
    target = base / "custom_nodes" / FOLDER
    target.mkdir(parents=True)
    for name in SHIPPED_FILES:
        shutil.copy2(ROOT / name, target / name)
    for name in filter(lambda name: (ROOT / name).is_dir(), SHIPPED_FOLDERS):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target
