"""Write workflows/ from the descriptions: each template, its thumbnail and its API form, and the subgraph blueprints.

The real front end turns the API form into a graph, sizes the nodes and serializes it, as if a user had saved it.
Those that run with the bundled models get a seed (seeds.py), are run once, and their pictures go into the thumbnails.
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
from scripts.workflows.blueprint import BLUEPRINTS, content
from scripts.workflows.canvas import FINISH, HIDDEN, LOAD, PLACE
from scripts.workflows.card import card
from scripts.workflows.descriptions import SEARCHES, WORKFLOWS
from scripts.workflows.parts import LOADER, NOTE, Workflow, api_prompt
from scripts.workflows.room import room
from scripts.workflows.seeds import with_seeds, with_shipped_seeds
from scripts.workflows.subgraphs import fixed_ids, flat, fold, name_pack, without_previews

HEADINGS = ("What", "Download", "Turn")
OTHER_FILE = "(a file of another name or precision works too: choose it in its loader)"
LETTER, LINE, NOTE_EDGE = 5.2, 16, 46  # a letter's width, a line's height, what borders take of the note's height


def markdown(note: tuple[str, str, str]) -> str:
    """The note: three paragraphs under headings; a list, which is one of files, begins on its own line."""
    return "\n\n".join(
        f"**{heading}** {OTHER_FILE}\n{text}" if text.startswith("- ") else f"**{heading}** {text}"
        for heading, text in zip(HEADINGS, note, strict=True)
    )


def note_size(workflow: Workflow) -> tuple[int, int]:
    """In pixels; as wide as the columns that it lies in. The addresses of links are not shown."""
    first, *others = [column for column in workflow.columns if NOTE in column]
    sizes = [workflow.drawn[key].size for key in first if key in workflow.drawn]
    width = max([LOADER[0], *(size[0] for size in sizes if size)]) + len(others) * (layout.COLLAPSED + layout.GAP)
    letters, lines = int((width - 40) / LETTER), 0.0
    for line in markdown(workflow.note).splitlines():
        shown = "".join(part.partition(")")[2] if number else part for number, part in enumerate(line.split("](")))
        lines += math.ceil(len(shown) / (letters - 4 * line.startswith("- "))) if line else 0.7
    return width, round(lines * LINE) + NOTE_EDGE


def build(page: Page, workflow: Workflow) -> tuple[dict[str, Any], dict[str, Any]]:
    """(file for the UI, file for the server) of one description.

    Raises:
        RuntimeError: the front end changed a node, or a wire passes behind one.
    """
    prompt, nodes = api_prompt(workflow.nodes), workflow.drawn
    described = [{"key": key, **asdict(node)} for key, node in workflow.nodes.items()]
    content = {"prompt": prompt, "name": workflow.name, "nodes": described, "note": markdown(workflow.note)}
    sizes = page.evaluate(LOAD, {**content, "noteSize": note_size(workflow)})
    fold(page, workflow, sizes)
    heights = room(workflow.nodes, {key: height for key, (_, height) in sizes.items()}, workflow.subgraphs)
    places, edges = layout.place(workflow.columns, nodes, sizes, heights)
    # Frames leave room for texts and previews; wires only for texts, since not all front ends have previews.
    texts, previews = (
        {key: (sizes[key][0], heights[key]) for key in nodes if nodes[key].type == kind}
        for kind in ("SnoopiNASAApply", "SnoopiOneStepSampler")
    )
    grown = {} if workflow.tight else texts | previews
    around = layout.groups(nodes, layout.boxes(nodes, places, sizes | grown))
    found = page.evaluate(
        PLACE,
        {
            "places": places,
            "sizes": sizes,
            "colours": {key: colour for key in nodes if (colour := layout.colour_of(key))},
            "groups": {title: astuple(box) for title, box in around.items()},
        },
    )
    dots = layout.dots(layout.wires(found), edges, layout.boxes(nodes, places, sizes | texts) | layout.titles(around))
    made = json.loads(page.evaluate(FINISH, {str(link): points for link, points in dots.items()}))
    if hidden := page.evaluate(HIDDEN):
        raise RuntimeError(f"{workflow.name}: wires behind nodes (node / from / to): {hidden}")
    sent = flat(made["sent"])
    if sent.keys() != prompt.keys():
        raise RuntimeError(f"{workflow.name}: nodes {sorted(prompt)} came back as {sorted(sent)}")
    for number, node in sent.items():
        if (node["class_type"], node["inputs"]) != (prompt[number]["class_type"], prompt[number]["inputs"]):
            raise RuntimeError(f"{workflow.name}: node {number} came back as {node}, sent as {prompt[number]}")
    without_previews(made["graph"])
    name_pack(made["graph"])
    graph = fixed_ids(made["graph"], workflow.name)
    # Fixed, so that the same description gives the same file.
    graph["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"snoopi/{workflow.name}"))
    graph["extra"] = {key: value for key, value in graph["extra"].items() if key in ("reroutes", "linkExtensions")}
    return graph, {number: sent[number] for number in prompt}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make(client: Client, page: Page, workflow: Workflow, out: Path, *, only_graph: bool) -> None:
    """Write the three files of one workflow, or leave its thumbnail as it is."""
    graph, prompt = build(page, workflow)
    write_json(out / f"{workflow.name}.json", graph)
    write_json(out / "api" / f"{workflow.name}.json", prompt)
    if only_graph:
        print(f"{workflow.name}: {len(prompt)} nodes", flush=True)
        return
    pictures = [] if workflow.needs_files else shown(client, prompt)
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
    parser.add_argument("--graphs", action="store_true", help="run nothing: keep the seeds and the thumbnails")
    parser.add_argument("--out", type=Path, default=ROOT / "workflows")
    parser.add_argument("--weak", action="store_true", help="also where no seed shows what the negative does")
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
        if options.graphs:
            chosen = with_shipped_seeds(chosen)
        else:
            chosen = with_seeds(server.client, chosen, SEARCHES, weak=options.weak)
        with front_end(server.client) as page:
            for workflow in chosen:
                make(server.client, page, workflow, options.out, only_graph=options.graphs)
        if not options.names or "blueprint" in options.names:
            for blueprint in BLUEPRINTS:
                # a new one: it keeps the values of a graph's widgets for the next
                with front_end(server.client) as page:
                    write_json(ROOT / "subgraphs" / f"{blueprint.name}.json", content(page, blueprint))
    if not options.names and options.out == ROOT / "workflows":  # another folder may hold other files
        delete_others(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
