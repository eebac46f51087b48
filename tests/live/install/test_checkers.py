"""What people check packs with: comfy-test, comfy-import-guard and nodesafe, each from PyPI, on the package.

What they find is mended, or named here with the reason why it stays. CONTRIBUTING.md says what they cannot do here.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_pack import FOLDER, ROOT

pytestmark = [pytest.mark.install, pytest.mark.slow, pytest.mark.full]


@pytest.fixture(scope="module")
def checkers(pack_root: Path) -> Path:
    """The folder of their commands."""
    say = (
        "import sys, pathlib; from scripts.setup import pinned_env;"
        "pins = pathlib.Path('scripts/setup/pack-checkers.txt');"
        "sys.stdout.write(str(pinned_env.provide(pins, 'about 75 MB')))"
    )
    done = subprocess.run([sys.executable, "-c", say], cwd=pack_root, stdout=subprocess.PIPE, check=True)
    return Path(done.stdout.decode().splitlines()[-1])


@pytest.fixture(scope="module")
def package(archive: Path, own_host: Path) -> Path:
    """The package in a ComfyUI's custom_nodes/, with comfy-test's settings, which only the repository has."""
    folder = own_host / "custom_nodes" / FOLDER
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    shutil.copy2(ROOT / "comfy-test.toml", folder)
    return folder


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    print(done.stdout, done.stderr, sep="\n")
    return done


@pytest.mark.parametrize("level", ["lint", "coverage"])
def test_comfy_tests_static_levels_pass(checkers: Path, package: Path, level: str) -> None:
    """lint: syntax and javascript. coverage: every node is in a workflow."""
    assert run(checkers / "comfy-test", level, "--strict", package).returncode == 0


@pytest.fixture(scope="module")
def history(host_script: Any, pinned_host: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What comfy-import-guard takes for its clone of ComfyUI: the oldest and the newest pinned one, as tags."""
    cache = tmp_path_factory.mktemp("guard")
    clone = cache / "ComfyUI"
    for version in (next(iter(host_script.PINS)), host_script.NEWEST):
        clone.mkdir(exist_ok=True)
        git = ["git", "-c", "user.name=tests", "-c", "user.email=tests@localhost", "-C", str(clone)]
        subprocess.run([*git, "init", "--quiet"], check=True)
        tree = ["--work-tree", str(pinned_host(version))]
        subprocess.run([*git, "--git-dir", str(clone / ".git"), *tree, "add", "--all", "--force", "*.py"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", version], check=True)
        subprocess.run([*git, "tag", f"v{version}"], check=True)
    subprocess.run([*git, "reset", "--quiet", "--hard"], check=True)
    return cache


def guard(checkers: Path, history: Path, package: Path, version: str) -> dict[str, Any]:
    command = [checkers / "comfy-import-guard", "--offline", "--json", "--cache-dir", history, "check", "--strict"]
    done = run(*command, "--comfy-dir", package.parents[1], "--pack", FOLDER, "--target", f"v{version}")
    (found,) = json.loads(done.stdout)["packs"]
    return found


def test_the_newest_host_has_all_that_is_imported_and_called(
    checkers: Path, history: Path, package: Path, host_script: Any
) -> None:
    found = guard(checkers, history, package, host_script.NEWEST)
    assert found["verdict"] == "SAFE" and found["references"] > 200


def test_the_oldest_host_lacks_networks_alone(checkers: Path, history: Path, package: Path, host_script: Any) -> None:
    """Each is imported by the file of its own family, which snoopi_core/host/families leaves out if that fails."""
    found = guard(checkers, history, package, next(iter(host_script.PINS)))
    assert found["breaking"] and not found["signature_drift"] and not found["unresolvable"]
    for lacking in found["breaking"]:
        assert re.fullmatch(r"module comfy\.ldm\.\w+\.model does not exist at v[\d.]+", lacking["detail"]), lacking
        assert lacking["file"].startswith("snoopi_core/host/families/joint/"), lacking


# nodesafe looks for letters, and calls ComfyUI's own nodes malicious as well. (layer, what it found) -> what all lines
# that it may have found are like.
HARMLESS = {
    ("L2", "compile("): r"re\.compile\(|module\.compile\(\)",  # regular expressions; torch.compile
    ("L2", "eval("): r"\.eval\(\)",  # of a network: no dropout
    ("L2", "importlib.import_module"): r"found = importlib\.import_module\((module|f\"\.\{module\}\", __name__)\)$",
    ("L2", "subprocess.run"): r"subprocess\.run\(describe, ",  # git's; the trainer notes the commit
    ("L3", "subprocess.run()"): r"subprocess\.run\(describe, ",
    ("L2", "gzip.decompress"): r"lines = gzip\.decompress\(packed\)",  # CLIP's vocabulary
    ("L2", "ord("): r"\bord\(letter\)",
    ("L3", "pickle"): r"import pickle$",  # for the name of its error
    ("L3", "Dynamic"): r"getattr\(",
    ("L3", "suspicious identifier"): r"'_(x0|LFS)'",
}


def is_text(file: Path, line: int, length: int) -> bool:
    """Whether a "high-entropy literal" is text that a person can read: any longer sentence is one, but so is hidden
    code, in base64 or hexadecimal digits."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)]
    (literal,) = [
        node.value for node in nodes if isinstance(node.value, str) and (node.lineno, len(node.value)) == (line, length)
    ]
    addresses_gone = re.sub(r"https?://\S+", "", literal)
    return not re.search(r"[A-Za-z0-9+/=_-]{41,}", addresses_gone)


def test_hidden_code_is_no_text(tmp_path: Path) -> None:
    hidden = "aW1wb3J0IG9zOyBvcy5zeXN0ZW0oImVjaG8gaGlkZGVuIik7cHJpbnQoMSk="
    said = "A longer sentence of a docstring, which says what a function does."
    (file := tmp_path / "module.py").write_text(f'a = "{hidden}"\nb = "{said}"\n')
    assert not is_text(file, 1, len(hidden)) and is_text(file, 2, len(said))


def test_nodesafe_finds_nothing_else(checkers: Path, package: Path) -> None:
    report = json.loads(run(checkers / "nodesafe", "scan", "--format", "json", package).stdout)
    assert report["scan"]["layers_run"] == ["L0", "L1", "L2", "L3", "L4", "L5"]

    def is_harmless(finding: dict[str, Any]) -> bool:
        if length := re.fullmatch(r"high-entropy literal \((\d+) chars.*", finding["title"]):
            return is_text(package / finding["file"], finding["line"], int(length[1]))
        reasons = [
            line for (layer, what), line in HARMLESS.items() if layer == finding["layer"] and what in finding["title"]
        ]
        return any(re.search(line, finding["snippet"]) for line in reasons)

    assert [finding for finding in report["findings"] if not is_harmless(finding)] == []
