"""A user's first day: ComfyUI alone, then README's `git clone`, pip, and the workflows that need no download.

`journey` does all of it once; each test looks at one side.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from documented import documented
from live_client import Outcome, load_prompt
from live_observer import Observer
from live_pack import FOLDER, ROOT
from live_server import Server
from live_warnings import Logged
from templates import COMPARE, FIRST

pytestmark = [pytest.mark.install, pytest.mark.slow, pytest.mark.full]

TRAINER_ONLY = ("accelerate", "datasets", "diffusers", "matplotlib", "open_clip", "peft", "tensorboard")
# pip must not use an index: all packages must be installed already.
OFFLINE = {**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@dataclass
class Journey:
    """What there was before the pack, and with it."""

    alone: list[Logged]
    frozen: str
    frozen_after: str
    log: str
    start_seconds: float
    warnings: list[Logged]
    calls: list[str]
    cache: Path
    nodes: set[str]
    outcomes: dict[str, Outcome]


def run(*command: object, cwd: Path) -> str:
    words = [*map(str, command)]
    done = subprocess.run(words, cwd=cwd, env=OFFLINE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def nothing(base: Path) -> None:
    """The pack is installed by hand here."""


@pytest.fixture(scope="module")
def journey(own_host: Path, clean_python: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Journey:
    place = tmp_path_factory.mktemp("journey")
    cache = place / "cache"
    caches = {"HF_HOME": str(cache), "TORCH_HOME": str(cache), "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "0"}
    alone, with_pack = Observer(place / "alone"), Observer(place / "with pack")

    def server(observer: Observer) -> Server:
        environment = {**observer.environment, **caches}
        return Server(own_host, own_host, python=clean_python, environment=environment, install=nothing)

    with server(alone):
        pass
    frozen = run(clean_python, "-m", "pip", "freeze", "--all", cwd=own_host)
    custom_nodes = own_host / "custom_nodes"
    enter = documented("cd ComfyUI/custom_nodes")
    clone = documented("git clone <this repository> snoopi").replace("<this repository>", shlex.quote(str(repository)))
    run("bash", "-ec", f"{enter}\n{clone}", cwd=own_host.parent)
    (custom_nodes / "snoopi").rename(custom_nodes / FOLDER)  # a name with a hyphen, as most packs have
    after = run(clean_python, "-m", "pip", "freeze", "--all", cwd=own_host)
    (own_host / "server.log").unlink()  # the first start's
    started = time.monotonic()
    with server(with_pack) as running:
        start_seconds = time.monotonic() - started
        nodes = set(running.client.get_json("/object_info"))
        files = sorted((custom_nodes / FOLDER / "workflows" / "api").glob("*.json"))
        outcomes = {}
        for name in (FIRST, COMPARE):
            (file,) = (file for file in files if file.stem == name)
            outcomes[name] = running.client.run(load_prompt(file))
        log = running.log()
    return Journey(
        alone=alone.warnings, frozen=frozen, frozen_after=after, log=log,
        start_seconds=start_seconds, warnings=with_pack.warnings, calls=with_pack.calls, cache=cache, nodes=nodes,
        outcomes=outcomes,
    )  # fmt: skip


def test_nothing_is_to_be_installed_and_nothing_is_changed(journey: Journey) -> None:
    assert "torch==" in journey.frozen and "comfyui_frontend_package==" in journey.frozen
    assert journey.frozen_after == journey.frozen
    assert not [name for name in ("requirements.txt", "install.py") if (ROOT / name).exists()]


def test_the_nodes_are_there_and_the_workflows_run(journey: Journey) -> None:
    assert {"SnoopiPGSBLoader", "SnoopiNASAApply", "SnoopiOneStepSampler"} <= journey.nodes
    for name, outcome in journey.outcomes.items():
        assert outcome.status == "success", (name, outcome.error)
        assert outcome.images, name


def test_the_host_warns_of_nothing_that_it_does_not_warn_of_alone(journey: Journey) -> None:
    before = {(entry.level, entry.text) for entry in journey.alone}
    assert [entry for entry in journey.warnings if (entry.level, entry.text) not in before] == []
    assert "Traceback" not in journey.log and "IMPORT FAILED" not in journey.log


def test_the_host_imports_the_pack_once(journey: Journey) -> None:
    times = re.findall(rf"(\d+\.\d) seconds: .*{FOLDER}$", journey.log, re.M)
    print(f"import: {times} s of {journey.start_seconds:.1f} s")
    assert len(times) == 1, journey.log


def test_nothing_is_fetched(journey: Journey) -> None:
    assert journey.calls == []
    assert not [path for path in journey.cache.rglob("*") if path.is_file()]


def test_the_observer_would_have_seen_both(clean_python: Path, tmp_path: Path) -> None:
    observer = Observer(tmp_path)
    code = (
        "import logging, socket, contextlib\n"
        "logging.warning('beware')\n"
        "for name in ('localhost', '127.0.0.1', 'snoopi.invalid'):\n"
        "    with contextlib.suppress(OSError): socket.getaddrinfo(name, 80)\n"
        "with contextlib.suppress(OSError): socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 80))\n"
    )
    subprocess.run([clean_python, "-c", code], env={**os.environ, **observer.environment}, check=True)
    assert [(entry.level, entry.text) for entry in observer.warnings] == [("WARNING", "beware")]
    assert len(observer.calls) == 2 and "snoopi.invalid" in observer.calls[0] and "192.0.2.1" in observer.calls[1]


def test_none_of_the_trainers_packages_is_there(clean_python: Path) -> None:
    """So that all of the above holds without the extra."""
    code = f"import importlib.util as u; print([n for n in {TRAINER_ONLY} if u.find_spec(n)])"
    assert run(clean_python, "-c", code, cwd=clean_python.parent).strip() == "[]"
