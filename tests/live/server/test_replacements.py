"""A node that was renamed: workflows with its old name run. None was, so a copy of the pack is given one."""

from __future__ import annotations

import copy
from io import BytesIO
from pathlib import Path

import pytest
from live_client import load_prompt
from live_pack import install_pack
from live_server import Server
from PIL import Image
from templates import FIRST, api_file

pytestmark = [pytest.mark.server, pytest.mark.slow]

MAIN = api_file(FIRST)
RENAMED = """
REPLACEMENTS = (
    io.NodeReplace(
        new_node_id="SnoopiNASAApply",
        old_node_id="SnoopiNASAOld",
        old_widget_ids=["strength"],
        input_mapping=[
            *({"new_id": name, "old_id": name} for name in ("model", "negative")),
            {"new_id": "alpha", "old_id": "strength"},
            {"new_id": "start_percent", "set_value": 0.0},
            {"new_id": "end_percent", "set_value": 1.0},
            {"new_id": "blocks", "set_value": "all"},
        ],
        output_mapping=[{"new_idx": 0, "old_idx": 0}],
    ),
)
"""


def install_renamed(base: Path) -> Path:
    pack = install_pack(base)
    with (pack / "nodes" / "replacements.py").open("a", encoding="utf-8") as file:
        file.write(RENAMED)
    return pack


def test_no_node_was_renamed_so_far(server: Server) -> None:
    assert not [old for old in server.client.get_json("/node_replacements") if "Snoopi" in old], "ids are frozen"


@pytest.mark.full
def test_a_workflow_with_an_old_name_gives_the_same_pictures(host_path: Path, tmp_path: Path) -> None:
    with Server(host_path, tmp_path / "base", install=install_renamed) as server:
        (known,) = server.client.get_json("/node_replacements")["SnoopiNASAOld"]
        assert known["new_node_id"] == "SnoopiNASAApply"

        prompt = load_prompt(MAIN)
        old = copy.deepcopy(prompt)
        node = next(node for node in old.values() if node["class_type"] == "SnoopiNASAApply")
        inputs = node["inputs"]
        node["class_type"] = "SnoopiNASAOld"
        node["inputs"] = {"model": inputs["model"], "negative": inputs["negative"], "strength": inputs["alpha"]}
        made = []
        for each in (old, prompt):
            outcome = server.client.run(each)
            assert outcome.status == "success", outcome.error
            made.append([server.client.view(image) for image in outcome.images])
        assert made[0] and [len(files) for files in made] == [4, 4]
        # Compared without the metadata, in which the prompts differ.
        first, second = ([Image.open(BytesIO(data)).tobytes() for data in files] for files in made)
        assert first == second
