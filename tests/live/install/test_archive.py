"""What the registry gives to ComfyUI-Manager: validated and packed by comfy-cli itself, then unpacked and run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from documented import documented, run_python
from live_client import load_prompt
from live_observer import Observer
from live_pack import FOLDER, ROOT, SHIPPED_FILES, SHIPPED_FOLDERS
from live_server import Server
from templates import FIRST, api_file

from scripts.setup.host import PINS

pytestmark = [pytest.mark.install, pytest.mark.slow]

LIMIT = 16 * 1000**2
NODES = set(json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8")))
# Models of the repository: what a student was distilled from, and the tests' small world.
NOT_PACKED = ("models/snoopi-avatars-teacher.", "models/snoopi-shapes-")
# The top level of the archive.
FOLDERS = {"locales", "models", "nodes", "snoopi_core", "subgraphs", "training", "web", "workflows"}
FILES = {"LICENSE", "NOTICE", "__init__.py", "pyproject.toml"}
FILES |= {".comfyignore", "CHANGELOG.md", "CONTRIBUTING.md", "README.md"}
# What only developers need, and pages that README links to on the repository's site.
LEFT_OUT = {".ci", ".github", "benchmarks", "docs", "experiments", "scripts", "tests"}


@pytest.fixture(scope="module")
def names(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as file:
        return set(file.namelist())


def test_comfy_clis_validation_passes_without_a_warning(repository: Path) -> None:
    output = run_python(documented("python -m scripts.setup.comfy_cli node validate"), repository)
    assert "All validation checks passed" in output, output  # instead of "Security warnings found"
    assert "Warning" not in output, output  # of a field that the registry would leave empty


def test_the_command_that_publishes_is_there(repository: Path) -> None:
    """Without running it: it would ask for the registry's key."""
    output = run_python(documented("python -m scripts.setup.comfy_cli node publish") + " --help", repository)
    assert "comfy node publish" in output, output


def test_it_holds_what_users_need_and_no_more(names: set[str], repository: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=repository, check=True, capture_output=True, text=True).stdout
    shipped = {name for name in (*SHIPPED_FOLDERS, *SHIPPED_FILES) if (ROOT / name).exists()}
    wanted = {name for name in tracked.splitlines() if name.split("/")[0] in shipped}
    assert {name.split("/")[0] for name in wanted} == shipped
    assert {name for name in wanted - names if not name.startswith(NOT_PACKED)} == set()
    assert {"training/pgsb.py", "training/recipes/sd15.toml", "models/snoopi-avatars-student.safetensors"} <= names
    assert {name.split("/")[0] for name in names} == FOLDERS | FILES
    assert {name.split("/")[0] for name in tracked.splitlines()} >= LEFT_OUT
    assert not [name for name in names if "__pycache__" in name or name.startswith(NOT_PACKED)]


def test_what_its_pages_link_to_is_in_it_or_in_the_repository(names: set[str]) -> None:
    """README says once where docs/ and benchmarks/ are; a help page says it for each page that it names."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = {link.partition("#")[0] for link in _links(readme)} - {""}
    outside = {link for link in links - names if link.split("/")[0] in LEFT_OUT}
    assert links - names == outside and all((ROOT / link).exists() for link in outside)
    assert not outside or "docs/ and benchmarks/ are in the repository, not in the package" in " ".join(readme.split())
    for page in (ROOT / "web" / "docs").glob("*.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        for match in re.finditer(r"(?:docs|benchmarks)/[A-Z]+\.md", text):
            assert "repository" in text[match.start() - 60 : match.end() + 60], f"{page.name}: {match[0]}"


def test_its_trainer_says_where_the_default_recipes_teacher_is(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path)
    command = [sys.executable, "-m", "training.pgsb", "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "models/snoopi-avatars-teacher.safetensors is missing" in done.stderr
    assert f"into {tmp_path / 'models'}" in done.stderr


def _links(markdown: str) -> set[str]:
    return {link for link in re.findall(r"\]\(([^)\s]+)\)", markdown) if "://" not in link}


def test_it_is_small(archive: Path) -> None:
    print(f"{archive.stat().st_size / 1e6:.1f} MB")
    assert archive.stat().st_size < LIMIT


@pytest.mark.full
@pytest.mark.parametrize("version", PINS)
def test_it_works_when_unpacked(
    archive: Path, version: str, pinned_host: Callable[[str], Path], clean_python: Path, tmp_path: Path
) -> None:
    host = tmp_path / "My Programs" / "ComfyUI"
    shutil.copytree(pinned_host(version), host, ignore=shutil.ignore_patterns("__pycache__"))
    target = host / "custom_nodes" / FOLDER
    observer = Observer(tmp_path / "observed")

    def unpack(base: Path) -> None:
        with zipfile.ZipFile(archive) as file:
            assert all(not PurePosixPath(name).is_absolute() for name in file.namelist())
            file.extractall(target)

    with Server(host, host, python=clean_python, environment=observer.environment, install=unpack) as server:
        assert server.client.get_json("/system_stats")["system"]["comfyui_version"] == version
        assert set(server.client.get_json("/object_info")) >= NODES
        outcome = server.client.run(load_prompt(target / api_file(FIRST).relative_to(ROOT)))
        assert outcome.status == "success", outcome.error
        assert outcome.images
    ours = [entry for entry in observer.warnings if FOLDER in entry.path or "snoopi" in entry.text.lower()]
    assert ours == []
