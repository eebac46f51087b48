"""A user's state before installing: their own ComfyUI with its packages, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkout import make_repository
from clean_env import make_clean_env
from documented import documented, run_python


@pytest.fixture(scope="session")
def newest_host(host_script: Any, pinned_host: Callable[[str], Path]) -> Path:
    """Always a pinned one, never COMFYUI_PATH: these tests copy the host and write into it."""
    return pinned_host(host_script.NEWEST)


@pytest.fixture(scope="session")
def clean_python(newest_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with what that host asks for alone."""
    return make_clean_env(tmp_path_factory.mktemp("clean") / "venv", newest_host / "requirements.txt")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout, to be cloned."""
    return make_repository(tmp_path_factory.mktemp("repository") / "snoopi")


@pytest.fixture(scope="module")
def own_host(newest_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ComfyUI folder as users have it, below a path with a space; custom_nodes/ is inside."""
    folder = tmp_path_factory.mktemp("user") / "My Programs" / "ComfyUI"
    return shutil.copytree(newest_host, folder, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture(scope="session")
def comfy_cli(pack_root: Path) -> Path:
    """The `comfy` command of scripts/setup/comfy_cli.py's environment."""
    say = "import sys; from scripts.setup import comfy_cli; sys.stdout.write(str(comfy_cli.provide()))"
    done = subprocess.run([sys.executable, "-c", say], cwd=pack_root, stdout=subprocess.PIPE, check=True)
    return Path(done.stdout.decode().splitlines()[-1])


@pytest.fixture(scope="session")
def archive(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, as the registry gets it."""
    run_python(documented("python -m scripts.setup.comfy_cli node pack"), repository)
    return (repository / "node.zip").rename(tmp_path_factory.mktemp("archive") / "node.zip")
