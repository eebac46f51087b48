"""Running servers, one for each ComfyUI and test process: starting one takes longer than most tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from live_pack import install_pack, install_small_copies
from live_server import Server


@pytest.fixture(scope="session")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Server]]:
    """Returns the running server of a ComfyUI with the shipped pack; starts it on first use or after a crash."""
    servers: dict[Path, Server] = {}
    with ExitStack() as stack:

        def running(host: Path) -> Server:
            if host not in servers:
                servers[host] = stack.enter_context(Server(host, tmp_path_factory.mktemp("server"), install=_install))
            elif not servers[host].running:
                servers[host].start()
            return servers[host]

        yield running


def _install(base: Path) -> Path:
    install_small_copies(base)
    return install_pack(base)


@pytest.fixture(scope="module")
def server(server_of: Callable[[Path], Server], host_path: Path) -> Server:
    """The server of the ComfyUI that this run uses, with nothing loaded and nothing cached."""
    running = server_of(host_path)
    running.client.free()
    return running
