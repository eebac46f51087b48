"""The nastiest files and names, sent to a real server: each gets an error message, and the server keeps working."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from effort import effort
from figures import measured
from fuzz_files import MiB, Mutant, Template, mutants
from fuzz_goods import good_files
from live_client import PromptRejected, load_prompt
from live_server import Server
from templates import FIRST, api_file

pytestmark = [pytest.mark.server, pytest.mark.slow]

Prompt = dict[str, dict[str, Any]]
MAIN = api_file(FIRST)
EVERY = effort(gate=6, full=1)  # the step through the list of nasty mutants
NAMES = (
    "../secret.safetensors",
    "/etc/passwd",
    "good.safetensors\0",
    "..\\x",
    "x" * 100_000,
    "\n\x1b[31m",
    "",
    None,
    7,
    {},
    ["1"],
)


def loading(ckpt_name: Any, lora_name: Any = "none") -> Prompt:
    """The main workflow with other files."""
    prompt = copy.deepcopy(load_prompt(MAIN))
    loader = next(entry["inputs"] for entry in prompt.values() if entry["class_type"] == "SnoopiPGSBLoader")
    loader.update(ckpt_name=ckpt_name, lora_name=lora_name)
    return prompt


@pytest.fixture(scope="module")
def nasty(server: Server) -> Iterator[list[Mutant]]:
    """Some of the mutants, each to be written where the server looks; the good workflow runs before and after all."""
    folders = server.base / "models" / "checkpoints", server.base / "models" / "loras"
    goods = good_files(*folders)
    templates = [Template.read(goods[kind], kind, zeros=kind == "foreign") for kind in goods]
    for name in ("good.safetensors", "good-foreign.safetensors"):
        server.client.run(loading(name))
    before = pixels(server)
    yield [mutant for mutant in mutants(templates, 700) if mutant.nasty]
    assert server.running
    assert pixels(server) == before, "the good workflow gives another picture"


def pixels(server: Server) -> bytes:
    """The good workflow's picture, computed again."""
    server.client.free()
    outcome = server.client.run(loading("snoopi-shapes-student.safetensors"))
    assert outcome.status == "success", outcome.error
    assert not outcome.cached
    return server.client.view(outcome.images[0])


@pytest.mark.scaled
def test_the_nastiest_files(server: Server, nasty: list[Mutant]) -> None:
    """Twice: the first round may increase the memory of allocator and host; the second must add nothing."""
    assert len(nasty) >= 30
    bad, memory = [], []
    for _ in range(2):
        sent = nasty[::EVERY]
        bad += [f"{mutant.name}: {complaint}" for mutant in sent if (complaint := _send(server, mutant))]
        server.client.post("/history", {"clear": True})
        server.client.free()
        memory.append(server.memory)
    print(*bad, sep="\n")
    row = f"fuzz, {len(nasty)} files sent to a server"
    measured("robustness", row, "other than a clear error", len(bad), 0)
    measured("robustness", row, "MiB that a second time adds", max(0.0, (memory[1] - memory[0]) / MiB), 50.0)


def _send(server: Server, mutant: Mutant) -> str | None:
    folder, is_lora = ("loras", True) if mutant.kind == "lora" else ("checkpoints", False)
    path = server.base / "models" / folder / "mutant.safetensors"
    mutant.write(path)
    prompt = loading("good.safetensors", path.name) if is_lora else loading(path.name)
    outcome = server.client.run(prompt)
    path.unlink()
    return _complaint(outcome.error, path.name)


def _complaint(error: Any, name: str) -> str | None:
    if error is None:  # a few can be opened
        return None
    if error["node_type"] != "SnoopiPGSBLoader":
        return f"failed in {error['node_type']}"
    message = error["exception_message"].strip()
    if not error["exception_type"].endswith("CheckpointError"):
        return error["exception_type"]
    if not message.startswith(name) or len(message) >= 2000 or not message.isprintable():
        return repr(message[:300])
    return None


@pytest.mark.parametrize("name", NAMES, ids=[repr(name)[:20] for name in NAMES])
@pytest.mark.parametrize("what", ["ckpt_name", "lora_name"])
def test_names_that_are_not_listed(server: Server, nasty: list[Mutant], tmp_path: Path, what: str, name: Any) -> None:
    (server.base / "models" / "secret.safetensors").write_bytes(b"")
    prompt = loading(**{"ckpt_name": "good.safetensors", what: name})
    with pytest.raises(PromptRejected):
        server.client.queue(prompt)
    assert server.running
