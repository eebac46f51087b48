"""Workflows for models that are not at hand: the oldest and the newest host find nothing wrong but the missing files.

The host's own check of a prompt says so: classes, required inputs, kinds of links, options, ranges.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_client import PromptRejected, load_prompt
from live_pack import FOLDER as PACK
from live_pack import ROOT
from live_server import Server
from templates import NAMES, NEEDING, api_file, graph_of, needed_files

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module", params=["0.16.3", "0.30.0"])
def any_server(
    request: pytest.FixtureRequest, pinned_host: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with Server(pinned_host(request.param), tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_every_input_is_one_that_the_host_knows(any_server: Server, name: str) -> None:
    """The one thing that the host does not tell of."""
    classes = any_server.client.get_json("/object_info")
    for node in load_prompt(api_file(name)).values():
        kinds = classes[node["class_type"]]["input"]
        assert set(node["inputs"]) <= {*kinds.get("required", {}), *kinds.get("optional", {})}, node


@pytest.mark.parametrize("name", NEEDING)
def test_nothing_but_its_files_is_missing(any_server: Server, name: str) -> None:
    with pytest.raises(PromptRejected) as rejected:
        any_server.client.queue(load_prompt(api_file(name)))
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


def test_the_blueprint_is_listed_and_given(any_server: Server) -> None:
    """What the front end's node library asks the host for."""
    (file,) = (ROOT / "subgraphs").glob("*.json")
    listed = any_server.client.get_json("/global_subgraphs")
    (number,) = (n for n, entry in listed.items() if entry["info"]["node_pack"] == f"custom_nodes.{PACK}")
    entry = any_server.client.get_json(f"/global_subgraphs/{number}")
    assert entry["name"] == file.stem
    graph = json.loads(entry["data"])
    assert graph == json.loads(file.read_text(encoding="utf-8"))
    classes = any_server.client.get_json("/object_info")
    (inside,) = graph["definitions"]["subgraphs"]
    assert {node["type"] for node in inside["nodes"]} <= set(classes)


@pytest.mark.parametrize("name", NEEDING)
def test_the_front_end_and_the_note_name_the_same_files(name: str) -> None:
    """`properties.models` is where the front end's notice of missing models takes folders and addresses from."""
    graph = graph_of(name)
    (note,) = (node["widgets_values"][0].splitlines()[1] for node in graph["nodes"] if node["type"] == "Note")
    given = {
        (str(node["id"]), file["directory"], file["name"]): file["url"]
        for node in graph["nodes"]
        for file in node["properties"].get("models", [])
    }
    for file in needed_files(name):
        assert file.name in note and f"models/{file.directory}" in note
        url = given[file.node, file.directory, file.name]
        if file.name == "student.safetensors":
            assert url == "", "a student of one's own is not downloaded"
        else:
            assert url.startswith("https://huggingface.co/") and url.partition("/resolve/")[0] in note
