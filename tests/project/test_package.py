"""The package's files and requirements, and the pack's metadata as read by the registry and the host."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image

SEMVER = re.compile(r"\d+\.\d+\.\d+")
HOST_MODULES = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview"}


@pytest.fixture(scope="module")
def pyproject(pack_root: Path) -> dict:
    return tomllib.loads((pack_root / "pyproject.toml").read_text(encoding="utf-8"))


def requirement_lines(file: Path) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def test_the_fields_of_the_registry(pyproject: dict) -> None:
    project, comfy = pyproject["project"], pyproject["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9-]*", project["name"])
    assert "comfyui" not in project["name"].lower()
    assert SEMVER.fullmatch(project["version"])
    assert comfy["PublisherId"] and comfy["DisplayName"]
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    # The registry takes the front end's range from here; there is nothing else that a host lacks.
    (front_end,) = project["dependencies"]
    assert re.fullmatch(r"comfyui-frontend-package>=\d+\.\d+\.\d+", front_end)


def test_the_oldest_front_end_is_the_oldest_hosts(pyproject: dict, pinned_host: Callable[[str], Path]) -> None:
    oldest = pinned_host(pyproject["tool"]["comfy"]["requires-comfyui"].removeprefix(">="))
    (pinned,) = [r for r in requirement_lines(oldest / "requirements.txt") if r.name == "comfyui-frontend-package"]
    (front_end,) = pyproject["project"]["dependencies"]
    assert str(pinned.specifier).removeprefix("==") == front_end.partition(">=")[2]


def test_the_addresses_are_of_one_repository(pack_root: Path, pyproject: dict) -> None:
    """CONTRIBUTING.md has the line that changes it everywhere."""
    urls, comfy = pyproject["project"]["urls"], pyproject["tool"]["comfy"]
    name = urls["Repository"].removeprefix("https://github.com/")
    assert f"grep -lz {name} |" in (pack_root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(urls[key].startswith(urls["Repository"]) for key in ("Documentation", "Issues", "Bug Tracker"))
    for key, most in (("Icon", (400, 400)), ("Banner", (800, 400))):
        file = comfy[key].removeprefix(f"https://raw.githubusercontent.com/{name}/main/")
        with Image.open(pack_root / file) as picture:
            assert picture.width <= most[0] and picture.height <= most[1]
        assert (pack_root / file).with_suffix(".svg").is_file()
    pages = [*(pack_root / "web" / "docs").rglob("*.md"), pack_root / "CHANGELOG.md"]
    for page in pages:
        for link in re.findall(r"https://github\.com/[\w-]+/[\w-]+", page.read_text(encoding="utf-8")):
            assert link == urls["Repository"], page


@pytest.mark.host
def test_the_host_reads_the_same_fields(pack_root: Path, pyproject: dict) -> None:
    from comfy_config.config_parser import extract_node_configuration

    read = extract_node_configuration(str(pack_root))
    assert read.project.name == pyproject["project"]["name"]
    assert read.project.version == pyproject["project"]["version"]
    assert read.tool_comfy.display_name == pyproject["tool"]["comfy"]["DisplayName"]
    assert not read.tool_comfy.web, "this would mount web/ a second time; WEB_DIRECTORY already mounts it"


def test_the_changelog_begins_with_this_version(pack_root: Path, pyproject: dict) -> None:
    headings = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (pack_root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert headings and headings[0] == pyproject["project"]["version"]


@pytest.mark.slow
def test_a_wheel_holds_the_libraries_only_and_they_import_without_the_host(pack_root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"  # building leaves files behind
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(pack_root / name, source)
    for name in ("nodes", "snoopi_core", "training", "tests", "workflows"):
        shutil.copytree(pack_root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"snoopi_core", "training", "snoopi"}
    ours = [path for name in ("snoopi_core", "training") for path in (pack_root / name).rglob("*") if path.is_file()]
    needed = {path.relative_to(pack_root).as_posix() for path in ours if path.suffix not in (".pyc", ".md")}
    assert needed == {name for name in names if not name.startswith("snoopi-")}
    code = "import sys; sys.path.insert(0, 'installed'); import snoopi_core, training.pgsb; print(training.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "installed" in done.stdout


# Optional: imported only for some settings; if one is missing, the error says what to install.
OPTIONAL = {"ImageReward", "bitsandbytes", "wandb"}


def third_party_imports(folder: Path) -> set[str]:
    """Top-level modules that the files below ``folder`` import, other than Python's, the host's and ours."""
    found = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add((node.module or "").split(".")[0])
    return found - set(sys.stdlib_module_names) - HOST_MODULES - {"nodes", "snoopi_core", "training"}


def undeclared(modules: set[str], declared: list[Requirement]) -> set[str]:
    names = {canonicalize_name(requirement.name) for requirement in declared}
    distributions = packages_distributions()
    return {m for m in modules if not {canonicalize_name(d) for d in distributions.get(m, [])} & names}


def test_everything_imported_is_declared(pack_root: Path, pyproject: dict, pinned_host: Callable[[str], Path]) -> None:
    project = pyproject["project"]
    base = [Requirement(line) for line in project["dependencies"]]
    extras = project["optional-dependencies"]
    training = [Requirement(line) for line in [*extras["training"], *extras["avatars"]]]
    shipped = third_party_imports(pack_root / "snoopi_core") | third_party_imports(pack_root / "nodes")
    assert undeclared(shipped, training) == set()
    assert undeclared(third_party_imports(pack_root / "training") - OPTIONAL, [*base, *training]) == set()
    in_a_host = requirement_lines(pinned_host("0.16.3") / "requirements.txt")
    assert undeclared(shipped, in_a_host) == set()


def test_the_lock_meets_every_requirement(pack_root: Path, pyproject: dict, pinned_host: Callable[[str], Path]) -> None:
    locked = {canonicalize_name(r.name): r for r in requirement_lines(pack_root / "requirements-lock.txt")}
    pins = {name: Version(str(r.specifier).removeprefix("==")) for name, r in locked.items()}
    project = pyproject["project"]
    wanted = [Requirement(line) for line in project["dependencies"]]
    for extra in ("training", "avatars", "test"):
        wanted += [Requirement(line) for line in project["optional-dependencies"][extra]]
    wanted += requirement_lines(pinned_host("0.30.0") / "requirements.txt")
    unmet = [
        str(r)
        for r in wanted
        if canonicalize_name(r.name) not in pins or pins[canonicalize_name(r.name)] not in r.specifier
    ]
    assert unmet == []


def test_shipped_code_does_not_unpickle_or_run_text_or_install(pack_root: Path) -> None:
    banned = {"eval", "exec", "pickle", "subprocess", "__import__", "torch.load"}
    found = []
    files = [
        pack_root / "__init__.py",
        *(f for name in ("nodes", "snoopi_core") for f in (pack_root / name).rglob("*.py")),
    ]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [ast.unparse(node.func)] if isinstance(node, ast.Call) else []
            found += [f"{file.name}: {name}" for name in names if name in banned]
    assert found == []
