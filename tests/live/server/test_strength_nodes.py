"""The nodes that help to choose alpha, in a real server: what they show, refuse and cache."""

from __future__ import annotations

import io
from typing import Any

import pytest
from live_client import PromptRejected, load_prompt
from live_server import Server
from PIL import Image
from templates import FIRST, api_file

from scripts.workflows.bundled import ALPHA

pytestmark = [pytest.mark.server, pytest.mark.slow]

MAIN = api_file(FIRST)
OWN = f"{ALPHA:g}"  # what the bundled student recommends


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


def test_the_sweet_spot_goes_on_to_nasa_apply_or_stops_what_is_behind_it(server: Server) -> None:
    prompt, number = prompt_with("SnoopiNASAScaleSweep", alphas="0, 0.6")
    (steering,) = (n for n, node in prompt.items() if node["class_type"] == "SnoopiNASAApply")
    prompt[steering]["inputs"]["alpha"] = [number, 2]
    shown = {m["node"]: m["text"] for m in messages(server, {}, prompt)}
    assert shown[steering] == f"alpha 0.6, as set; its file recommends {OWN}"
    assert shown[number].startswith(f"Sweet spot: alpha 0.6 (the largest here that is not above {OWN}")

    prompt[number]["inputs"]["alphas"] = "2.5"
    with server.client.stream() as stream:
        outcome = server.client.run(prompt)
    (error,) = stream.of("execution_error")
    assert error["node_id"] == steering and f"Add {OWN} to alphas" in error["exception_message"]
    assert list(outcome.outputs) == [number]  # its page, and no picture of the sampler behind NASA Apply


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


class TestMessages:
    """What the front end is told to show on nodes; tests/live/browser/test_node_text.py looks at it."""

    @pytest.mark.parametrize(
        ("settings", "kind", "text"),
        [
            ({"alpha": 0.0, "alpha_mode": "auto"}, "text", f"alpha {OWN}, from the model's file"),
            ({"alpha": 0.5}, "text", f"alpha 0.5, as set; its file recommends {OWN}"),  # not the text of the run before
            ({"alpha": ALPHA}, "text", f"alpha {OWN}, as set"),
            ({"alpha": 0.0}, "warning", "NASA Apply does nothing: alpha is 0"),
        ],
    )
    def test_what_nasa_apply_does(self, server: Server, settings: dict[str, Any], kind: str, text: str) -> None:
        shown = messages(server, {"5": settings})
        assert {(m["kind"], m["text"], m["node"]) for m in shown} == {(kind, text, "5")}

    def test_a_warning_while_sampling_belongs_to_nasa_apply_and_comes_again_if_that_is_cached(
        self, server: Server
    ) -> None:
        changes = {"5": {"alpha": 4.0}, "6": {"seed": 2}}
        first, again = messages(server, changes), messages(server, changes | {"6": {"seed": 3}})
        for shown in (first, again):
            (warning,) = [m for m in shown if m["kind"] == "warning"]
            assert warning["text"].startswith(f"NASA Apply: alpha is 4, but this model's own is {OWN}:")
            assert (warning["node"], warning["source"], warning["workflow"]) == ("5", "6", "an id")
        assert [m["source"] for m in first if m["kind"] == "text"] == ["5", "6"]
        assert [m["source"] for m in again if m["kind"] == "text"] == ["6"]

    def test_one_of_two_in_a_chain_and_in_a_subgraph(self, server: Server) -> None:
        """The front end gives nodes in subgraphs such ids."""
        second = {"class_type": "SnoopiNASAApply", "inputs": {**load_prompt(MAIN)["5"]["inputs"], "model": ["8:5", 0]}}
        prompt = load_prompt(MAIN) | {"9:8": second}
        prompt["8:5"] = prompt.pop("5")
        prompt["8:5"]["inputs"]["alpha"] = 3.5
        prompt["6"]["inputs"]["model"] = ["9:8", 0]
        shown = messages(server, {}, prompt)
        assert [m["node"] for m in shown if m["kind"] == "warning"] == ["8:5"]
        assert {(m["node"], m["text"]) for m in shown if m["kind"] == "text"} == {
            ("8:5", f"alpha 3.5, as set; its file recommends {OWN}"),
            ("9:8", f"alpha {OWN}, as set"),
        }

    def test_the_samplers_own_warnings_belong_to_it(self, server: Server) -> None:
        (warning,) = [m for m in messages(server, {"4": {"width": 192}}) if m["kind"] == "warning"]
        assert "this model was trained for 64 x 64 pixels" in warning["text"] and warning["node"] == "6"

    def test_the_sampler_says_that_nobody_chose_how_it_samples(self, server: Server) -> None:
        """The teacher has no recipe, so auto is one step."""
        shown = messages(server, {"1": {"ckpt_name": "snoopi-avatars-teacher.safetensors"}})
        (text,) = [m["text"] for m in shown if m["kind"] == "text" and m["node"] == "6"]
        assert text == (
            "1 step at timestep 999, by auto, as the model has no recipe. If the picture is noise or blurred, choose "
            "the model's preset"
        )

    def test_a_node_of_ours_that_samples_shows_its_own(self, server: Server) -> None:
        prompt, number = prompt_with("SnoopiNASAScaleSweep", alphas="0.5, 1")
        prompt[number]["inputs"]["positive"] = prompt[number]["inputs"]["negative"]
        shown = messages(server, {}, prompt)
        assert {m["node"] for m in shown if "is the same as the prompt" in m["text"]} == {number}


def messages(server: Server, changes: dict[str, dict[str, Any]], prompt: dict | None = None) -> list[dict[str, Any]]:
    """What one run of the main workflow, with these inputs changed, makes the front end show."""
    prompt = load_prompt(MAIN) if prompt is None else prompt
    for number, inputs in changes.items():
        prompt[number]["inputs"] |= inputs
    with server.client.stream() as stream:
        outcome = server.client.run(prompt, workflow={"id": "an id"})
    assert outcome.status == "success", outcome.error
    return stream.of("snoopi.node_text")
