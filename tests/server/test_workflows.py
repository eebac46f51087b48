"""The shipped workflows, sent to a real server as a script would send them."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
from live_client import load_prompt
from live_pack import ROOT
from live_server import Server
from PIL import Image

pytestmark = [pytest.mark.server, pytest.mark.slow]

API_FILES = sorted((ROOT / "workflows" / "api").glob("*.json"))
by_file = pytest.mark.parametrize("file", API_FILES, ids=lambda path: path.stem)


def nodes_of(prompt: dict[str, dict[str, Any]], kind: str) -> list[str]:
    return [number for number, node in prompt.items() if node["class_type"] == kind]


def pictures(server: Server, prompt: dict[str, dict[str, Any]]) -> list[Image.Image]:
    """Run ``prompt``; its pictures in the order of the nodes that save them."""
    outcome = server.client.run(prompt)
    assert outcome.status == "success", outcome.error
    return [Image.open(io.BytesIO(server.client.view(image))) for image in outcome.images]


def test_there_are_workflows() -> None:
    assert len(API_FILES) >= 2


@by_file
def test_a_workflow_gives_pictures_and_a_repeat_is_cached(server: Server, file: Path) -> None:
    prompt = load_prompt(file)
    made = pictures(server, prompt)
    batch = sum(prompt[number]["inputs"]["batch_size"] for number in nodes_of(prompt, "EmptyLatentImage"))
    assert len(made) == batch * len(nodes_of(prompt, "SaveImage"))
    for picture in made:
        assert picture.size == (256, 256)
        assert any(high - low > 40 for low, high in picture.convert("RGB").getextrema()), "an empty picture"

    again = server.client.run(prompt)
    assert again.status == "success"
    assert again.cached == set(prompt)


@by_file
def test_another_seed_samples_anew_and_loads_nothing_anew(server: Server, file: Path) -> None:
    prompt = load_prompt(file)
    before = pictures(server, prompt)
    other = copy.deepcopy(prompt)
    for number in nodes_of(other, "PrimitiveInt"):
        other[number]["inputs"]["value"] = 12345
    for number in nodes_of(other, "SnoopiOneStepSampler"):
        if isinstance(other[number]["inputs"]["seed"], int):
            other[number]["inputs"]["seed"] = 12345
    outcome = server.client.run(other)
    assert outcome.status == "success", outcome.error
    kept = {
        *nodes_of(prompt, "SnoopiPGSBLoader"),
        *nodes_of(prompt, "SnoopiNASAApply"),
        *nodes_of(prompt, "CLIPTextEncode"),
    }
    assert kept <= outcome.cached
    assert not outcome.cached & set(nodes_of(prompt, "SnoopiOneStepSampler"))
    after = [Image.open(io.BytesIO(server.client.view(image))) for image in outcome.images]
    assert all(a.tobytes() != b.tobytes() for a, b in zip(before, after, strict=True))


@by_file
def test_a_run_reports_progress_and_sends_a_preview(server: Server, file: Path) -> None:
    prompt = load_prompt(file)
    seed = nodes_of(prompt, "PrimitiveInt")
    place = prompt[seed[0]]["inputs"] if seed else prompt[nodes_of(prompt, "SnoopiOneStepSampler")[0]]["inputs"]
    place["value" if seed else "seed"] = 777  # a seed of its own, or everything would come from the cache
    with server.client.stream() as stream:
        outcome = server.client.run(prompt)
    assert outcome.status == "success", outcome.error
    samplers = set(nodes_of(prompt, "SnoopiOneStepSampler"))
    assert samplers <= {message.get("node") for message in stream.of("progress")}
    assert stream.previews


def test_the_pack_is_listed_with_its_templates_and_help_pages(server: Server) -> None:
    (templates,) = server.client.get_json("/workflow_templates").values()
    assert sorted(templates) == sorted(file.stem for file in (ROOT / "workflows").glob("*.json"))
    nodes = [name for name in server.client.get_json("/object_info") if name.startswith("Snoopi")]
    assert sorted(nodes) == ["SnoopiNASAApply", "SnoopiOneStepSampler", "SnoopiPGSBLoader"]
    for name in nodes:
        page = server.client.get(f"/extensions/{server.pack.name}/docs/{name}.md").decode()
        assert page.lstrip().startswith("#"), name
        assert name in server.client.get_json("/i18n")["en"]["nodeDefs"]
