"""scripts/setup/host.py: which ComfyUI is used, and which archives and paths are refused."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

LANDMARKS = {"main.py": "", "nodes.py": "", "folder_paths.py": "", "comfy/sd.py": ""}


@pytest.fixture
def script(host_script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The script with its own cache and without environment variables."""
    for name in ("COMFYUI_PATH", "SNOOPI_HOST_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SNOOPI_CACHE", str(tmp_path / "cache"))
    return host_script


def write(folder: Path, files: Mapping[str, str] = LANDMARKS) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def archive(path: Path, members: Mapping[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def test_a_given_path_wins(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = write(tmp_path / "my comfy")
    monkeypatch.setenv("COMFYUI_PATH", str(mine))
    assert script.find_host() == mine


def test_a_given_path_that_is_not_comfyui_is_refused(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(script.HostError, match=r"which is not a ComfyUI: main\.py"):
        script.find_host()


def test_the_enclosing_comfyui_is_found(script: Any, tmp_path: Path) -> None:
    host = write(tmp_path / "ComfyUI")
    assert script.enclosing_host(host / "custom_nodes" / "snoopi") == host
    assert script.enclosing_host(host / "elsewhere" / "snoopi") is None


def test_a_cached_version_is_used_unchanged(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = write(tmp_path / "cache" / "hosts" / "0.24.0")
    monkeypatch.setenv("COMFYUI_PATH", "/nowhere")
    assert script.find_host("0.24.0") == cached
    monkeypatch.setenv("SNOOPI_HOST_VERSION", "0.24.0")
    assert script.find_host() == cached


def test_an_unknown_version_lists_the_known_ones(script: Any) -> None:
    with pytest.raises(script.HostError, match=r"0\.1\.0 is not pinned here. Available: 0\.16\.3"):
        script.find_host("0.1.0")


def test_only_the_comfyui_folder_is_unpacked(script: Any, tmp_path: Path) -> None:
    members = {f"x-1/vendor/ComfyUI/{name}": text for name, text in LANDMARKS.items()}
    file = archive(tmp_path / "x.tar.gz", {**members, "x-1/setup.py": "", "x-1/vendor/other/a.py": ""})
    script.unpack(file, tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.py")) == sorted(
        LANDMARKS
    )


def test_a_path_that_leads_outside_is_refused(script: Any, tmp_path: Path) -> None:
    file = archive(tmp_path / "x.tar.gz", {"x-1/vendor/ComfyUI/../../../../evil.py": ""})
    with pytest.raises(script.HostError, match="unsafe path"):
        script.unpack(file, tmp_path / "a" / "b" / "out")
    assert not list(tmp_path.rglob("evil.py"))


def test_an_archive_without_a_comfyui_is_refused(script: Any, tmp_path: Path) -> None:
    file = archive(tmp_path / "x.tar.gz", {"x-1/readme.md": ""})
    with pytest.raises(script.HostError, match="has no ComfyUI"):
        script.unpack(file, tmp_path / "out")
