"""The commands of training/README.md for a first run, in a clone, with a smaller run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from checkout import make_repository
from documented import documented

pytestmark = pytest.mark.slow

ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "HF_HUB_OFFLINE": "1",
}
# The bundled teacher, with prompts that it does not know, and hardly trained.
SMALL = "--cpu prompts.source=prompts.txt loop.iterations=2 loop.batch_size=2 output.sample_every=0 output.log_every=1"


def shell(command: str, cwd: Path) -> str:
    done = subprocess.run(
        ["bash", "-ec", command], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("first run")
    repository = shlex.quote(str(make_repository(place / "forge")))
    command = documented("git clone <this repository> snoopi && cd snoopi").replace("<this repository>", repository)
    shell(f"{command}\nprintf 'a ring\\na red square\\nblue\\ntwo\\n' > prompts.txt", place)
    return place / "snoopi"


@pytest.fixture(scope="module")
def mine(clone: Path) -> Path:
    """A run in runs/mine, the folder in the page's other commands."""
    shell(f"python -m training.pgsb {SMALL} output.folder=runs/mine", clone)
    return clone / "runs" / "mine"


def test_pip_finds_the_requirements_of_the_extra(clone: Path) -> None:
    command = documented('pip install ".[training]"')
    # From installed packages: the test checks that the requirements can be met, and not the network.
    assert "Would install snoopi-" in shell(f"{command} --dry-run --no-index --no-build-isolation", clone)


@pytest.mark.full
def test_the_dry_run_of_the_small_world(clone: Path) -> None:
    printed = shell(documented("python -m training.pgsb --dry-run"), clone)
    assert "kappa_max" in printed
    assert not (clone / "runs" / "avatars_student").exists()


@pytest.mark.full
def test_the_run_resumes_and_is_exported(mine: Path, clone: Path) -> None:
    assert "resumed at iteration 2" in shell(documented("python -m training.pgsb --resume runs/mine"), clone)
    shell(documented("python -m training.export runs/mine --out student.safetensors"), clone)
    assert (clone / "student.safetensors").stat().st_size > 1e6


@pytest.mark.full
def test_tensorboard_shows_it(mine: Path, clone: Path) -> None:
    words = shlex.split(documented("tensorboard --logdir runs/mine"))
    process = subprocess.Popen([*words, "--port", "0"], cwd=clone, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(match[0] for line in process.stderr if (match := re.search(r"http://\S+", line)))
        with urllib.request.urlopen(f"{address}data/plugin/scalars/tags", timeout=600) as reply:
            assert "train/vsd" in reply.read().decode()
    finally:
        process.kill()
        process.wait()
