"""README's other way: comfy-cli and ComfyUI-Manager fetch the repository, into a ComfyUI that has both."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from clean_env import add_packages, make_clean_env
from documented import documented
from live_client import load_prompt
from live_pack import ROOT
from live_server import Server
from templates import FIRST, api_file

pytestmark = [pytest.mark.install, pytest.mark.slow, pytest.mark.full]


@pytest.fixture(scope="module")
def python(newest_host: Path, comfy_cli: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with ComfyUI's packages, ComfyUI-Manager and comfy-cli."""
    made = make_clean_env(tmp_path_factory.mktemp("managed") / "venv", newest_host / "requirements.txt")
    add_packages(made, comfy_cli.parent / "python")
    subprocess.run([made, "-m", "pip", "check"], check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def address(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the repository can be cloned from by HTTP, as from a forge."""
    folder = tmp_path_factory.mktemp("forge")
    bare = folder / "snoopi.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", repository, bare], check=True)
    subprocess.run(["git", "update-server-info"], cwd=bare, check=True)
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/snoopi.git"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_it_installs_changes_no_package_and_runs(own_host: Path, python: Path, address: str, tmp_path: Path) -> None:
    offline = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "DO_NOT_TRACK": "1", "HOME": str(tmp_path)}
    environment = {**os.environ, **offline}

    def run(*arguments: str) -> str:
        command = [str(python), "-m", *arguments]
        done = subprocess.run(command, cwd=own_host, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    before = run("pip", "freeze", "--all")
    words = documented("comfy node install <this repository>").replace("<this repository>", address).split()[1:]
    # --mode local: with the Manager's own list of packs rather than today's from the network.
    run("comfy_cli", "--skip-prompt", "--workspace", str(own_host), *words, "--exit-on-fail", "--mode", "local")
    assert run("pip", "freeze", "--all") == before
    pack = own_host / "custom_nodes" / "snoopi"
    with Server(own_host, own_host, "--enable-manager", python=python, install=lambda base: None) as server:
        outcome = server.client.run(load_prompt(pack / api_file(FIRST).relative_to(ROOT)))
        assert outcome.status == "success", outcome.error
        log = server.log()
    assert "IMPORT FAILED" not in log
    ours = [line for line in log.splitlines() if str(pack) in line]
    assert len(ours) == 1 and "seconds: " in ours[0], ours
