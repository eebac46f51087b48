"""The oldest and the newest supported ComfyUI: the pack loads, the main workflow runs, all workflows are accepted.

Most workflows need models that are not here, so the host's own check of a prompt (classes, required inputs, kinds of
links, options, ranges) may find nothing wrong but the missing files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from live_client import PromptRejected, load_prompt
from live_pack import FOLDER as PACK
from live_pack import ROOT
from live_server import Server
from templates import FIRST, NAMES, NEEDING, api_file, graph_of, named, needed_files, note_of

from scripts.workflows.blueprint import BLUEPRINTS

pytestmark = [pytest.mark.server, pytest.mark.slow]

NEWER = {named("Krea 2 Turbo"): "0.30.0"}
"""Workflows with networks that the oldest ComfyUI lacks, and the version that they need; their notes name it."""
OWN = {"student.safetensors", "my_4_step_lora_sdxl.safetensors", "my_4_step_lora_sd15.safetensors"}
"""Files that people make with the trainer."""
ADDED = {("CreateVideo", "bit_depth"): 8}
"""Inputs that the oldest ComfyUI lacks, with the value that does what it does without them."""
MAIN = api_file(FIRST)


@pytest.fixture(scope="module", params=["0.16.3", "0.30.0"])
def any_server(
    request: pytest.FixtureRequest, server_of: Callable[[Path], Server], pinned_host: Callable[[str], Path]
) -> Server:
    running = server_of(pinned_host(request.param))
    running.client.free()
    assert version_of(running) == request.param
    return running


def version_of(server: Server) -> str:
    return server.client.get_json("/system_stats")["system"]["comfyui_version"]


def test_the_pack_loads_and_the_main_workflow_runs(any_server: Server) -> None:
    before = len(any_server.log())
    outcome = any_server.client.run(load_prompt(MAIN))
    assert outcome.status == "success", outcome.error
    assert outcome.images
    log = any_server.start_log + any_server.log()[before:]  # without what other tests provoke in the same server
    ours = [line for line in log.splitlines() if PACK in line or "snoopi" in line.lower()]
    assert any(re.search(r"\d seconds", line) for line in ours), "the host lists the packs it loaded"
    assert not [line for line in ours if re.search(r"(?i)error|fail|warning|unable|skip", line)], "\n".join(ours)
    assert "Traceback" not in log.split("Starting server")[-1]


@pytest.mark.parametrize("name", NAMES)
def test_every_input_is_one_that_the_host_knows(any_server: Server, name: str) -> None:
    """The host ignores unknown inputs silently."""
    classes = any_server.client.get_json("/object_info")
    for node in load_prompt(api_file(name)).values():
        kinds = classes[node["class_type"]]["input"]
        unknown = set(node["inputs"]) - {*kinds.get("required", {}), *kinds.get("optional", {})}
        assert all(ADDED.get((node["class_type"], key)) == node["inputs"][key] for key in unknown), node


@pytest.mark.parametrize("name", NEEDING)
def test_nothing_but_its_files_is_missing(any_server: Server, name: str) -> None:
    with pytest.raises(PromptRejected) as rejected:
        any_server.client.queue(load_prompt(api_file(name)))
    if name in NEWER and version_of(any_server) == "0.16.3":
        note = note_of(graph_of(name))
        assert f"ComfyUI {NEWER[name]}" in note
        return
    found = sorted(
        (number, problem["type"], problem["extra_info"]["input_name"], problem["extra_info"]["received_value"])
        for number, node in rejected.value.body["node_errors"].items()
        for problem in node["errors"]
    )
    assert found == sorted((file.node, "value_not_in_list", file.input, file.name) for file in needed_files(name))


def test_a_file_is_found_in_the_folder_that_the_note_names(any_server: Server) -> None:
    """Every name, put as an empty file where the workflow says, becomes an option of the input that asks for it."""
    wanted = [(name, file) for name in NEEDING for file in needed_files(name)]
    for _, file in wanted:
        folder = any_server.base / "models" / file.directory
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).touch()
    try:
        classes = any_server.client.get_json("/object_info")
        for name, file in wanted:
            kinds = classes[load_prompt(api_file(name))[file.node]["class_type"]]["input"]
            (options, *more) = {**kinds.get("required", {}), **kinds.get("optional", {})}[file.input]
            assert file.name in (more[0]["options"] if options == "COMBO" else options), (name, file)
    finally:
        for _, file in wanted:
            (any_server.base / "models" / file.directory / file.name).unlink(missing_ok=True)


def test_the_blueprints_are_listed_and_given(any_server: Server) -> None:
    """What the front end's node library asks the host for."""
    files = {file.stem: file for file in (ROOT / "subgraphs").glob("*.json")}
    listed = any_server.client.get_json("/global_subgraphs")
    numbers = [n for n, entry in listed.items() if entry["info"]["node_pack"] == f"custom_nodes.{PACK}"]
    given = {entry["name"]: entry for entry in (any_server.client.get_json(f"/global_subgraphs/{n}") for n in numbers)}
    assert given.keys() == files.keys() and len(numbers) == len(BLUEPRINTS)
    classes = any_server.client.get_json("/object_info")
    for name, entry in given.items():
        graph = json.loads(entry["data"])
        assert graph == json.loads(files[name].read_text(encoding="utf-8"))
        (inside,) = graph["definitions"]["subgraphs"]
        assert {node["type"] for node in inside["nodes"]} <= set(classes)


@pytest.mark.parametrize("name", NEEDING)
def test_the_front_end_and_the_note_name_the_same_files(name: str) -> None:
    """The front end's notice of missing models reads `properties.models`."""
    graph = graph_of(name)
    _, note, _ = note_of(graph).split("\n\n")
    given = {
        (str(node["id"]), file["directory"], file["name"]): file["url"]
        for node in graph["nodes"]
        for file in node["properties"].get("models", [])
    }
    for file in needed_files(name):
        assert file.name in note and f"models/{file.directory}" in note
        url = given[file.node, file.directory, file.name]
        if file.name in OWN:
            assert url == "", "people train this one themselves"
        else:
            assert url.startswith("https://huggingface.co/") and url.partition("/resolve/")[0] in note
