"""Files in the repository: nodes have texts, workflows their files; no file is too big or contains local paths."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from templates import FIRST, NAMES, graph_of, note_of

from scripts.workflows.bundled import STUDENT
from scripts.workflows.room import TALLEST
from snoopi_core.formats.checkpoint import read_metadata

HEADINGS = ["What", "Download", "Turn"]  # of a workflow's note
REACH = 33  # letters of a name that a search compares: Fuse.js, threshold 0.33, distance 100
WIDTH = 1450  # of a template, in units of the canvas
# The zoom at which a window of 1280 x 720 shows a template as a whole; below 0.6 the front end writes no text.
ZOOM = 0.69
LARGER = {"5 ": 0.6, "6 ": 0.57, "7 ": 0.58, "FLUX": 0.61, "Qwen": 0.64, "LTX": 0.57, "Wan": 0.57}
# What Fit View fills of the window, its margin, a title bar's height, half of a wire's dot.
FILLED, EDGE, TITLE, DOT = 0.75, 10, 30, 10
MODELS_LIMIT = 55 * 1000**2  # two worlds; one student is packed (tests/live/install/test_archive.py)
# Local folders of one machine. Split in two, so that this file does not match itself.
MACHINE_PATHS = re.compile(
    "|".join("/" + rest for rest in ("home/[a-z]", "root/", "Users/[a-z]", "work/", "tmp/[a-z]"))
)


@pytest.fixture(scope="module")
def schemas(pack: Any) -> list[Any]:
    """The schema of every node, from the extension that the host loads."""
    import asyncio

    async def ask() -> list[Any]:
        extension = await pack.comfy_entrypoint()
        return [node.GET_SCHEMA() for node in await extension.get_node_list()]

    return asyncio.run(ask())


@pytest.mark.host
def test_every_node_has_a_help_page_and_texts(pack_root: Path, schemas: list[Any]) -> None:
    for schema in schemas:
        page = (pack_root / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8")
        assert schema.display_name and schema.description
        listed = re.findall(r"^- ((?:`\w+`(?:, )?)+)", page.partition("\n## Inputs\n")[2].partition("\n## ")[0], re.M)
        described = [name for names in listed for name in re.findall(r"\w+", names)]
        assert sorted(described) == sorted(item.id for item in schema.inputs), f"{schema.node_id}'s help page"
        for item in schema.inputs:
            assert item.tooltip, f"{schema.node_id}.{item.id} has no tooltip"


@pytest.mark.host
def test_a_help_page_begins_with_what_a_newcomer_needs(pack_root: Path, schemas: list[Any]) -> None:
    """Five lines in short, a picture, links; then the inputs. Its readers have no shell and no clone."""
    for schema in schemas:
        page = (pack_root / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8")
        title, short, *others = page.split("\n## ")
        assert title.strip() == f"# {schema.display_name}" and others[0].startswith("Inputs\n"), schema.node_id
        lines = [line for line in short.splitlines() if line.startswith("- ")]
        assert short.startswith("In short\n") and len(lines) == 5, schema.node_id
        assert "https://arxiv.org/abs/2412.02687" in short and "#readme" in short and "Browse Templates" in short
        assert not re.search(r"python -m|pytest |pip install|git clone|`make ", page), schema.node_id


@pytest.mark.host
def test_the_help_pages_pictures_exist(pack_root: Path, schemas: list[Any]) -> None:
    for schema in schemas:
        page = pack_root / "web" / "docs" / f"{schema.node_id}.md"
        pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
        assert pictures, f"{page.name} has no picture"
        for picture in pictures:
            assert (page.parent / picture).is_file(), f"{page.name}: {picture}"


def test_every_workflow_has_a_thumbnail_and_an_api_file(pack_root: Path) -> None:
    folder = pack_root / "workflows"
    names = sorted(path.stem for path in folder.glob("*.json"))
    assert len(names) >= 2
    assert names == sorted(path.stem for path in folder.glob("*.jpg"))
    assert names == sorted(path.stem for path in (folder / "api").glob("*.json"))
    for name in names:
        with Image.open(folder / f"{name}.jpg") as picture:
            assert min(picture.size) >= 256


def test_comfy_test_is_told_of_every_template_that_needs_no_download(pack_root: Path) -> None:
    settings = tomllib.loads((pack_root / "comfy-test.toml").read_text(encoding="utf-8"))
    assert settings["test"]["workflows"]["cpu"] == [
        name for name in NAMES if name == FIRST or name.endswith("no download")
    ]


def test_the_template_browsers_search_finds_every_workflow(pack_root: Path) -> None:
    """It looks at the beginning of names only, and the front end puts names into addresses as they are."""
    names = sorted(path.stem for path in (pack_root / "workflows").glob("*.json"))
    assert FIRST == names[0] == min(names, key=len), "of equal matches, newer front ends show the shortest name first"
    for name in names:
        model = name.partition(" - ")[0]
        assert all(0 <= name.find(word) <= REACH for word in ("SNOOPI", "NASA", "negative prompt", model)), name
        assert re.fullmatch(r"[\w .,-]+", name, re.ASCII), name


def test_a_small_window_shows_templates_large_enough() -> None:
    for name in NAMES:
        graph = graph_of(name)
        boxes = [group["bounding"] for group in graph["groups"]]
        for node in graph["nodes"]:
            (x, y), (width, height) = node["pos"], (225, 0) if node["flags"].get("collapsed") else node["size"]
            boxes.append((x, y - TITLE, width, height + TITLE))
        boxes += [(x, y - DOT, 0, 2 * DOT) for x, y in (dot["pos"] for dot in graph["extra"].get("reroutes", []))]
        width = max(x + width for x, _, width, _ in boxes) - min(x for x, _, _, _ in boxes)
        height = max(y + height for _, y, _, height in boxes) - min(y for _, y, _, _ in boxes)
        assert width <= WIDTH, f"{name} is {width} wide"
        zoom = FILLED * min(1280 / (width + 2 * EDGE), 720 / (height + 2 * EDGE))
        least = next((least for begins, least in LARGER.items() if name.startswith(begins)), ZOOM)
        assert zoom >= least, f"{name} is {width} x {height}: {zoom:.3f}"


def test_texts_and_previews_stay_in_their_group() -> None:
    """Two lines of NASA Apply's text, a sampler's preview; a small window has no room for that in Wan's template."""
    for name in NAMES:
        graph = graph_of(name)
        frames = [group["bounding"] for group in graph["groups"]]
        for node in graph["nodes"]:
            grows = node["type"] in ("SnoopiNASAApply", "SnoopiOneStepSampler") and not node["flags"].get("collapsed")
            if grows and not name.startswith("Wan"):
                (x, y), bottom = node["pos"], node["pos"][1] + TALLEST[node["type"]]
                around = [top + height for left, top, width, height in frames if left < x < left + width and top < y]
                assert around and bottom <= max(around), f"{name}: {node['type']}"


def test_our_nodes_name_the_pack(pack_root: Path) -> None:
    """Without it, the front end cannot say which pack a workflow misses."""
    name = tomllib.loads((pack_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    for file in (*(pack_root / "workflows").glob("*.json"), *(pack_root / "subgraphs").glob("*.json")):
        graph = json.loads(file.read_text(encoding="utf-8"))
        parts = [graph, *graph.get("definitions", {}).get("subgraphs", [])]
        ours = [node for part in parts for node in part["nodes"] if node["type"].startswith("Snoopi")]
        assert ours and {node["properties"].get("cnr_id") for node in ours} == {name}, file.name


def test_both_files_of_a_workflow_have_the_same_nodes(pack_root: Path) -> None:
    for file in (pack_root / "workflows").glob("*.json"):
        graph = json.loads(file.read_text(encoding="utf-8"))
        prompt = json.loads((file.parent / "api" / file.name).read_text(encoding="utf-8"))
        inside = {each["id"]: each["nodes"] for each in graph.get("definitions", {}).get("subgraphs", [])}
        nodes = [each for node in graph["nodes"] for each in inside.get(node["type"], [node])]
        shown = {str(node["id"]): node["type"] for node in nodes}
        note = note_of(graph)
        assert [part.partition("**")[2].partition("**")[0] for part in note.split("\n\n")] == HEADINGS, file.name
        assert {n: kind for n, kind in shown.items() if kind != "MarkdownNote"} == {
            n: e["class_type"] for n, e in prompt.items()
        }


def test_the_workflows_use_the_students_own_alpha(pack_root: Path) -> None:
    student = pack_root / "models" / STUDENT
    recommended = read_metadata(student).recommended_alpha
    used = {}
    for file in (pack_root / "workflows" / "api").glob("*.json"):
        prompt = json.loads(file.read_text(encoding="utf-8"))
        if student.name in [node["inputs"].get("ckpt_name") for node in prompt.values()]:
            steered = [node["inputs"] for node in prompt.values() if node["class_type"] == "SnoopiNASAApply"]
            used |= {(file.name, number): inputs["alpha"] for number, inputs in enumerate(steered)}
    assert len(used) >= 5 and set(used.values()) == {recommended}, used


def test_the_bundled_models_are_small(pack_root: Path) -> None:
    files = [path for path in (pack_root / "models").rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert sum(path.stat().st_size for path in files) <= MODELS_LIMIT


def test_no_tracked_file_contains_a_local_path(pack_root: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=pack_root, capture_output=True, check=True)
    found = []
    for name in filter(None, listed.stdout.decode().split("\0")):
        content = (pack_root / name).read_bytes() if (pack_root / name).is_file() else b"\0"
        if b"\0" in content:  # binary
            continue
        for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
            if MACHINE_PATHS.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
