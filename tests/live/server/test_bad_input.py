"""Wrong input gets a message that says what is wrong and why, and the server keeps running."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import live_files
import pytest
from live_client import PromptRejected, load_prompt
from live_pack import ROOT
from live_server import Server
from templates import FIRST, api_file

pytestmark = [pytest.mark.server, pytest.mark.slow]

Prompt = dict[str, dict[str, Any]]
MAIN = api_file(FIRST)
STUDENT = ROOT / "models" / "snoopi-shapes-student.safetensors"


@pytest.fixture
def prompt(server: Server) -> Iterator[Prompt]:
    """The main workflow, to be damaged by the test; afterwards the original must still run."""
    good = load_prompt(MAIN)
    yield copy.deepcopy(good)
    assert server.running
    outcome = server.client.run(good)
    assert outcome.status == "success", outcome.error


def node(prompt: Prompt, kind: str) -> dict[str, Any]:
    return next(entry["inputs"] for entry in prompt.values() if entry["class_type"] == kind)


def failure(server: Server, prompt: Prompt) -> tuple[str, str]:
    """(the class of the node that failed, the message that the front end shows)."""
    outcome = server.client.run(prompt)
    assert outcome.error is not None, "it ran"
    assert outcome.error["exception_type"].endswith(("ValueError", "CheckpointError")), outcome.error
    return outcome.error["node_type"], outcome.error["exception_message"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: live_files.truncated(path, STUDENT), "is damaged or cut short"),
        (live_files.foreign, "ComfyUI recognises no network"),
        (lambda path: live_files.newer(path, STUDENT), "has format 99"),
        (lambda path: live_files.disguised_pickle(path, path.with_suffix(".ran")), "is a pickle"),
    ],
    ids=["truncated", "foreign", "newer", "pickle"],
)
@pytest.mark.parametrize("folder", ["checkpoints", "diffusion_models"])
def test_a_bad_checkpoint(
    server: Server,
    prompt: Prompt,
    folder: str,
    make: Callable[[Path], None],
    message: str,
    request: pytest.FixtureRequest,
) -> None:
    name = f"bad_{request.node.callspec.id.replace('-', '_')}.safetensors"
    file = server.base / "models" / folder / name
    make(file)
    node(prompt, "SnoopiPGSBLoader")["ckpt_name"] = name
    failed, shown = failure(server, prompt)
    file.unlink()
    assert failed == "SnoopiPGSBLoader"
    assert name in shown
    assert message in shown
    assert not file.with_suffix(".ran").exists(), "the pickle was opened"


def test_a_checkpoint_that_is_not_there(server: Server, prompt: Prompt) -> None:
    node(prompt, "SnoopiPGSBLoader")["ckpt_name"] = "gone.safetensors"
    with pytest.raises(PromptRejected, match=r"gone\.safetensors"):
        server.client.queue(prompt)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("soon", "'soon' is not a whole number"),
        ("", "timesteps is empty"),
        ("399, 999", "are not strictly decreasing"),
        ("1000", "is above the model's last timestep"),
    ],
)
def test_wrong_timesteps(server: Server, prompt: Prompt, text: str, message: str) -> None:
    node(prompt, "SnoopiOneStepSampler")["timesteps"] = text
    try:
        outcome = server.client.run(prompt)
    except PromptRejected as refused:  # before anything runs, where the text alone is wrong
        shown = str(refused.body)
    else:
        assert outcome.error is not None, "it ran"
        shown = outcome.error["exception_message"]
    assert message in shown.replace("\\'", "'")


def test_blocks_that_the_model_does_not_have(server: Server, prompt: Prompt) -> None:
    node(prompt, "SnoopiNASAApply")["blocks"] = "attic"
    failed, message = failure(server, prompt)
    assert failed == "SnoopiNASAApply"
    assert "attic" in message


def test_a_model_with_another_text_encoder(server: Server, prompt: Prompt) -> None:
    file = server.base / "models" / "diffusion_models" / "vace.safetensors"
    live_files.tiny_vace(file)
    prompt["90"] = {"class_type": "UNETLoader", "inputs": {"unet_name": "vace.safetensors", "weight_dtype": "default"}}
    node(prompt, "SnoopiNASAApply")["model"] = ["90", 0]
    failed, message = failure(server, prompt)
    file.unlink()
    assert failed == "SnoopiNASAApply"
    assert "negative was made by another model's text encoder" in message
