"""The nodes that help to choose alpha, in a real server: what they show, refuse and cache."""

from __future__ import annotations

import io
from typing import Any

import pytest
from live_client import PromptRejected, load_prompt
from live_pack import ROOT
from live_server import Server
from PIL import Image

pytestmark = [pytest.mark.server, pytest.mark.slow]

MAIN = ROOT / "workflows" / "api" / "one_step_with_negative_prompt.json"
TEXT_FRAME = b"\0\0\0\3"  # the host's kind of binary message


def prompt_with(kind: str, **values: Any) -> tuple[dict[str, dict[str, Any]], str]:
    """The main workflow with one more node, and that node's number."""
    prompt = load_prompt(MAIN)
    by_title = {node["_meta"]["title"]: number for number, node in prompt.items()}
    inputs = {"positive": [by_title["Prompt"], 0], "latent_image": [by_title["Empty Latent Image"], 0], "seed": 5}
    if kind == "SnoopiNASAScaleSweep":
        loader, negative = by_title["PG-SB Loader"], by_title["Negative prompt"]
        inputs |= {"model": [loader, 0], "vae": [loader, 2], "negative": [negative, 0], "alphas": "0, 0.5, 1"}
    else:
        inputs |= {"model": [by_title["NASA Apply"], 0]}
    return {**prompt, "90": {"class_type": kind, "inputs": {**inputs, **values}}}, "90"


def alone(**values: Any) -> tuple[dict[str, dict[str, Any]], str]:
    """A sweep as the only result: the server runs what it can, and refuses a prompt where nothing is left."""
    prompt, number = prompt_with("SnoopiNASAScaleSweep", **values)
    others = {"SnoopiNASAApply", "SnoopiOneStepSampler", "VAEDecode", "ImageScale", "SaveImage"}
    return {n: node for n, node in prompt.items() if node["class_type"] not in others}, number


@pytest.mark.parametrize("kind", ["SnoopiNASAScaleSweep", "SnoopiNASAInspect"])
def test_a_node_shows_its_picture_without_anything_connected_and_is_cached(server: Server, kind: str) -> None:
    prompt, number = prompt_with(kind)
    outcome = server.client.run(prompt)
    assert outcome.status == "success", outcome.error
    (shown,) = outcome.outputs[number]["images"]
    picture = Image.open(io.BytesIO(server.client.view(shown))).convert("RGB")
    assert min(picture.size) > 256 and picture.getpixel((2, 2)) == (255, 255, 255)
    assert number in server.client.run(prompt).cached


def test_a_sweep_reports_progress_and_sends_no_preview(server: Server) -> None:
    """The front end would keep showing a preview instead of the page."""
    prompt, number = alone(seed=6)
    with server.client.stream() as stream:
        outcome = server.client.run(prompt)
    assert outcome.status == "success", outcome.error
    progress = [message for message in stream.of("progress") if message.get("node") == number]
    assert progress[-1]["value"] == progress[-1]["max"] == 3
    assert not stream.previews


def test_alphas_that_are_not_numbers_are_refused_before_anything_runs(server: Server) -> None:
    with pytest.raises(PromptRejected, match="is not a number; expected numbers from 0 to 4"):
        server.client.queue(alone(alphas="a lot")[0])


def test_an_error_is_reported_once(server: Server) -> None:
    """The host shows an error for each input that the node checks."""
    prompt, number = alone(alphas="0 to 1")
    with pytest.raises(PromptRejected) as caught:
        server.client.queue(prompt)
    (error,) = caught.value.body["node_errors"][number]["errors"]
    assert 'for a range write "0..1 step 0.25"' in error["details"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"alpha": 0.0, "alpha_mode": "auto"}, "alpha 1, measured for this file"),
        (
            {"alpha": 0.5, "alpha_mode": "as set"},
            "alpha 0.5, as set; its file recommends 1",
        ),  # not the text of the run before
        ({"alpha": 1.0, "alpha_mode": "as set"}, "alpha 1, as set"),
        ({"alpha": 0.0, "alpha_mode": "as set"}, "does nothing: alpha is 0"),
    ],
)
def test_what_nasa_apply_does_is_shown_on_it(server: Server, settings: dict[str, Any], text: str) -> None:
    prompt = load_prompt(MAIN)
    number, apply = next((n, node) for n, node in prompt.items() if node["class_type"] == "SnoopiNASAApply")
    apply["inputs"] |= settings
    with server.client.stream() as stream:
        outcome = server.client.run(prompt)
    assert outcome.status == "success", outcome.error
    (shown,) = [frame for frame in stream.previews if frame.startswith(TEXT_FRAME)]
    assert shown.endswith(number.encode() + text.encode())
