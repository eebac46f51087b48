"""Write workflows/ from the descriptions: each template, its thumbnail and its API form, and the subgraph blueprint.

The real front end turns the API form into a graph, sizes the nodes and serializes it, as if a user had saved it.
Each workflow that needs no download is run once, and its pictures go into its thumbnail.
Files of templates that no description has are deleted, unless only some are made.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import tempfile
import uuid
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from live_browser import front_end
from live_client import Client
from live_server import Server
from PIL import Image
from playwright.sync_api import Page

from scripts import ROOT
from scripts.pictures.run import run
from scripts.setup.host import find_host
from scripts.workflows import layout
from scripts.workflows.blueprint import NAME, blueprint
from scripts.workflows.canvas import FINISH, HIDDEN, LOAD, PLACE
from scripts.workflows.card import card
from scripts.workflows.descriptions import WORKFLOWS
from scripts.workflows.parts import Workflow, api_prompt

HEADINGS = ("What", "Download", "Turn")
NOTE, LETTERS, LINE, NOTE_EDGE = 320, 50, 15, 56  # the note's width, letters in a line, height of a line; borders


def markdown(note: tuple[str, str, str]) -> str:
    """The note: three paragraphs under headings; a list begins on its own line."""
    return "\n\n".join(
        f"**{heading}**{chr(10) if text.startswith('- ') else ' '}{text}"
        for heading, text in zip(HEADINGS, note, strict=True)
    )


def note_height(note: str) -> int:
    """In pixels; the addresses of links are not shown."""
    lines = 0.0
    for line in note.splitlines():
        shown = "".join(part.partition(")")[2] if number else part for number, part in enumerate(line.split("](")))
        lines += math.ceil(len(shown) / (LETTERS - 4 * line.startswith("- "))) if line else 0.7
    return round(lines * LINE) + NOTE_EDGE


def build(page: Page, workflow: Workflow) -> tuple[dict[str, Any], dict[str, Any]]:
    """(file for the UI, file for the server) of one description.

    Raises:
        RuntimeError: the front end changed a node, or a wire passes behind one.
    """
    prompt, nodes, note = api_prompt(workflow.nodes), workflow.nodes, markdown(workflow.note)
    described = [{"key": key, **asdict(node)} for key, node in nodes.items()]
    content = {"prompt": prompt, "name": workflow.name, "nodes": described, "note": note}
    sizes = page.evaluate(LOAD, {**content, "noteSize": [NOTE, note_height(note)]})
    places, edges = layout.place(workflow.columns, nodes, sizes)
    drawn = layout.boxes(nodes, places, sizes)
    around = layout.groups(nodes, drawn)
    wires = page.evaluate(
        PLACE,
        {
            "places": places,
            "sizes": sizes,
            "colours": {key: colour for key in nodes if (colour := layout.colour_of(key))},
            "groups": {title: astuple(box) for title, box in around.items()},
        },
    )
    ends = [{**wire, "start": tuple(wire["start"]), "end": tuple(wire["end"])} for wire in wires]
    dots = layout.dots([layout.Wire(**wire) for wire in ends], edges, drawn)
    made = json.loads(page.evaluate(FINISH, {str(link): points for link, points in dots.items()}))
    if hidden := page.evaluate(HIDDEN):
        raise RuntimeError(f"{workflow.name}: wires behind nodes (node / from / to): {hidden}")
    for number, node in made["sent"].items():
        if (node["class_type"], node["inputs"]) != (prompt[number]["class_type"], prompt[number]["inputs"]):
            raise RuntimeError(f"{workflow.name}: node {number} came back as {node}, sent as {prompt[number]}")
    graph = made["graph"]
    # Fixed, so that the same description gives the same file.
    graph["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"snoopi/{workflow.name}"))
    graph["extra"] = {key: value for key, value in graph["extra"].items() if key in ("reroutes", "linkExtensions")}
    return graph, made["sent"]


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make(client: Client, page: Page, workflow: Workflow, out: Path) -> None:
    """Write the three files of one workflow."""
    graph, prompt = build(page, workflow)
    write_json(out / f"{workflow.name}.json", graph)
    write_json(out / "api" / f"{workflow.name}.json", prompt)
    needs = any(node.files for node in workflow.nodes.values())
    pictures = [] if needs else shown(client, prompt)
    card(workflow, pictures).save(out / f"{workflow.name}.jpg", quality=90)
    print(f"{workflow.name}: {len(prompt)} nodes, {len(pictures)} pictures on its card", flush=True)


def shown(client: Client, prompt: dict[str, Any]) -> list[Image.Image]:
    """The first picture of each result; where a negative acts on the only one, the same without it comes first."""
    first = [pictures[0] for pictures in run(client, prompt)[0]]
    steered = [number for number, node in prompt.items() if node["class_type"] == "SnoopiNASAApply"]
    if len(first) > 1 or not steered or "SnoopiNASAInspect" in [node["class_type"] for node in prompt.values()]:
        return first
    off = copy.deepcopy(prompt)
    for number in steered:
        off[number]["inputs"]["alpha"] = 0.0
    return [run(client, off)[0][0][0], *first]


def delete_others(out: Path) -> None:
    """Delete the files of templates that were renamed or left out."""
    names = {workflow.name for workflow in WORKFLOWS}
    for path in (*out.glob("*.json"), *out.glob("*.jpg"), *out.glob("api/*.json")):
        if path.stem not in names:
            path.unlink()
            print(f"deleted {path.relative_to(out)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help='only templates whose name begins so, or "blueprint"; all without one')
    parser.add_argument("--out", type=Path, default=ROOT / "workflows")
    options = parser.parse_args()
    begins = tuple(options.names) or ("",)
    chosen = [workflow for workflow in WORKFLOWS if workflow.name.startswith(begins)]
    if not chosen and "blueprint" not in options.names:
        parser.error(f"no template's name begins with {options.names}; they are: {[each.name for each in WORKFLOWS]}")
    with tempfile.TemporaryDirectory(prefix="snoopi-workflows-") as base, Server(find_host(), Path(base)) as server:
        # These files are empty, but the front end would mark nodes with missing files in red.
        for file in {file for workflow in chosen for node in workflow.nodes.values() for file in node.files}:
            (server.base / "models" / file.directory).mkdir(exist_ok=True)
            (server.base / "models" / file.directory / file.name).touch()
        with front_end(server.client) as page:
            for workflow in chosen:
                make(server.client, page, workflow, options.out)
        if not options.names or "blueprint" in options.names:
            with front_end(server.client) as page:  # a new one: it keeps the values of a graph's widgets for the next
                write_json(ROOT / "subgraphs" / f"{NAME}.json", blueprint(page))
    if not options.names and options.out == ROOT / "workflows":  # another folder may hold other files
        delete_others(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
