"""The shipped workflows, sent to a real server as a script would send them."""

from __future__ import annotations

import copy
import io
import shutil
from typing import Any

import pytest
from effort import some
from live_client import load_prompt
from live_pack import ROOT
from live_server import Server
from PIL import Image
from templates import NAMES, RUNNABLE, api_file, named

pytestmark = [pytest.mark.server, pytest.mark.slow]

SAMPLERS = ("SnoopiOneStepSampler", "SnoopiNASAScaleSweep", "SnoopiNASAInspect", "KSampler")


def nodes_of(prompt: dict[str, dict[str, Any]], kind: str) -> list[str]:
    return [number for number, node in prompt.items() if node["class_type"] == kind]


def results(server: Server, prompt: dict[str, dict[str, Any]]) -> list[list[Image.Image]]:
    """Run ``prompt``; the pictures of each node that shows some, in the order of the nodes."""
    outcome = server.client.run(prompt)
    assert outcome.status == "success", outcome.error
    return [[Image.open(io.BytesIO(server.client.view(image))) for image in result] for result in outcome.results]


def pictures(server: Server, prompt: dict[str, dict[str, Any]]) -> list[Image.Image]:
    return [picture for result in results(server, prompt) for picture in result]


def samplers_of(prompt: dict[str, dict[str, Any]]) -> list[str]:
    return [number for kind in SAMPLERS for number in nodes_of(prompt, kind)]


def with_seed(prompt: dict[str, dict[str, Any]], seed: int) -> dict[str, dict[str, Any]]:
    """The same prompt with this seed in all nodes."""
    changed = copy.deepcopy(prompt)
    for number in nodes_of(changed, "PrimitiveInt"):
        changed[number]["inputs"]["value"] = seed
    for number in samplers_of(changed):
        if isinstance(changed[number]["inputs"]["seed"], int):
            changed[number]["inputs"]["seed"] = seed
    return changed


def test_there_are_workflows_of_both_kinds() -> None:
    assert len(RUNNABLE) >= 6 and len(NAMES) - len(RUNNABLE) >= 9


@pytest.mark.parametrize("name", some(RUNNABLE, 4))
def test_a_workflow_gives_pictures_and_a_repeat_is_cached(server: Server, name: str) -> None:
    prompt = load_prompt(api_file(name))
    branches = results(server, prompt)
    batch = sum(prompt[number]["inputs"]["batch_size"] for number in nodes_of(prompt, "EmptyLatentImage"))
    sheets = len([*nodes_of(prompt, "SnoopiNASAScaleSweep"), *nodes_of(prompt, "SnoopiNASAInspect")])
    assert [len(branch) for branch in branches] == [batch] * len(nodes_of(prompt, "SaveImage")) + [1] * sheets
    # Results side by side differ: without and with a negative, CFG and NASA ...
    assert len({branch[0].tobytes() for branch in branches}) == len(branches)
    for picture in (picture for branch in branches for picture in branch):
        assert picture.size == (256, 256) or sheets
        assert any(high - low > 40 for low, high in picture.convert("RGB").getextrema()), "an empty picture"

    again = server.client.run(prompt)
    assert again.status == "success"
    assert again.cached == set(prompt)


@pytest.mark.parametrize("name", some(RUNNABLE, 2))
def test_another_seed_samples_again_and_loads_nothing_again(server: Server, name: str) -> None:
    prompt = load_prompt(api_file(name))
    before = pictures(server, prompt)
    outcome = server.client.run(with_seed(prompt, 12345))
    assert outcome.status == "success", outcome.error
    kept = ("SnoopiPGSBLoader", "SnoopiNASAApply", "CLIPTextEncode", "ConditioningAverage", "MaskComposite")
    assert {number for kind in kept for number in nodes_of(prompt, kind)} <= outcome.cached
    assert not outcome.cached & set(samplers_of(prompt))
    after = [Image.open(io.BytesIO(server.client.view(image))) for image in outcome.images]
    assert all(a.tobytes() != b.tobytes() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", some(RUNNABLE, 2))
def test_a_run_reports_progress_and_sends_a_preview(server: Server, name: str) -> None:
    prompt = with_seed(load_prompt(api_file(name)), 777)  # a new seed, or all would come from the cache
    with server.client.stream() as stream:
        outcome = server.client.run(prompt)
    assert outcome.status == "success", outcome.error
    waited_for = set(samplers_of(prompt)) - set(nodes_of(prompt, "SnoopiNASAInspect"))  # it looks at one step alone
    assert waited_for <= {message.get("node") for message in stream.of("progress")}
    # The sweep shows its own page instead, and the teacher's file has no colours for previews.
    assert stream.previews or not nodes_of(prompt, "SnoopiOneStepSampler")


def test_a_trained_student_runs_in_its_own_template(server: Server) -> None:
    """With the shapes' student in place of the user's: the trainer wrote it too, and the name is the trainer's."""
    target = server.base / "models" / "checkpoints" / "student.safetensors"
    shutil.copy2(ROOT / "models" / "snoopi-shapes-student.safetensors", target)
    try:
        made = pictures(server, load_prompt(api_file(named("My student"))))
    finally:
        target.unlink()
    assert len(made) == 1


def test_the_pack_is_listed_with_its_templates_and_help_pages(server: Server) -> None:
    (templates,) = server.client.get_json("/workflow_templates").values()
    assert sorted(templates) == NAMES
    nodes = [name for name in server.client.get_json("/object_info") if name.startswith("Snoopi")]
    texts = server.client.get_json("/i18n")["fr"]["nodeDefs"]
    assert sorted(nodes) == sorted(texts)
    for name in nodes:
        page = server.client.get(f"/extensions/{server.pack.name}/docs/{name}.md").decode()
        assert page.lstrip().startswith("#"), name
