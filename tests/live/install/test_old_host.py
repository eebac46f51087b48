"""In a ComfyUI that is too old, the pack logs one line that names the version needed, and changes nothing else.

No older ComfyUI is available here than the oldest that is supported, so a copy of that one claims to be older.
(tests/live/server/test_host_versions.py shows that the pack loads in the original.)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_observer import Observer
from live_pack import FOLDER, ROOT, install_pack
from live_server import Server

pytestmark = pytest.mark.install

OLDEST = "0.16.3"
OLDER = "0.16.2"
SAID = f"SNOOPI is not loaded: this is ComfyUI {OLDER}, SNOOPI needs {OLDEST} or newer. Update ComfyUI."


@pytest.mark.slow
@pytest.mark.full
def test_one_line_says_what_to_do_and_the_host_is_unchanged(pinned_host: Callable[[str], Path], tmp_path: Path) -> None:
    host = tmp_path / "ComfyUI"
    shutil.copytree(pinned_host(OLDEST), host, ignore=shutil.ignore_patterns("__pycache__"))
    (host / "comfyui_version.py").write_text(f'__version__ = "{OLDER}"\n', encoding="utf-8")
    nodes, warnings, log = {}, {}, ""
    for name, install in {"alone": lambda base: None, "with pack": install_pack}.items():
        observer = Observer(tmp_path / name)
        with Server(host, tmp_path / name / "base", environment=observer.environment, install=install) as server:
            nodes[name] = server.client.get_json("/object_info")
            warnings[name] = [entry.text for entry in observer.warnings]
            log = server.log()
    assert len(nodes["alone"]) > 100
    assert nodes["with pack"] == nodes["alone"]
    assert [text for text in warnings["with pack"] if text not in warnings["alone"]] == [SAID]
    ours = [line for line in log.splitlines() if FOLDER in line]
    assert len(ours) == 1 and "seconds: " in ours[0], ours


@pytest.mark.parametrize("version", ["0.3 or older", "0.3.64", "0.9", "0.16.2"])
def test_an_older_version_is_refused(version: str, pack: Any) -> None:
    assert pack.too_old(version)


@pytest.mark.parametrize("version", [OLDEST, "0.16.10", "0.30.0", "0.31.0.dev1+fork", "1.0", "v2"])
def test_a_newer_version_is_accepted(version: str, pack: Any) -> None:
    assert not pack.too_old(version)


def test_a_host_that_does_not_know_its_version_is_too_old(tmp_path: Path) -> None:
    """No such ComfyUI runs with today's packages, so a folder with its one landmark takes its place."""
    (tmp_path / "folder_paths.py").touch()
    (tmp_path / "pack").mkdir()
    shutil.copy2(ROOT / "__init__.py", tmp_path / "pack")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pack; assert pack.NODE_CLASS_MAPPINGS == {{}}"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "this is ComfyUI 0.3 or older" in done.stderr


def test_the_declared_minimum_is_the_one_that_is_checked(pack: Any) -> None:
    comfy = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["comfy"]
    assert comfy["requires-comfyui"] == f">={pack.OLDEST_HOST}"
    assert pack.OLDEST_HOST == OLDEST
