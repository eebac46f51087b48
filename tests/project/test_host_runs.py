"""The host in this process is a real ComfyUI, and `nodes` is its nodes.py, not the pack's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.host


def test_top_level_modules_are_the_hosts(host_path: Path) -> None:
    import comfy.sd
    import nodes

    assert Path(nodes.__file__) == host_path / "nodes.py"
    assert Path(comfy.sd.__file__).is_relative_to(host_path)


def test_the_host_reads_and_writes_below_a_temporary_base_directory(host_base: Path) -> None:
    import folder_paths

    assert Path(folder_paths.models_dir) == host_base / "models"
    assert Path(folder_paths.get_output_directory()) == host_base / "output"


def test_the_pack_loads_through_the_host(pack: object, pack_root: Path) -> None:
    assert Path(pack.__file__) == pack_root / "__init__.py"
