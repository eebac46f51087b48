"""Write workflows/ from the descriptions: each template, its thumbnail and its API form, and the subgraph blueprint.

The real front end turns the API form into a graph, sizes the nodes and serializes it, as if a user had saved it.
Each workflow is run once, and its pictures become the thumbnail; if its weights must be downloaded first,
the thumbnail is a screenshot of the graph.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import shutil
import sys
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from live_browser import front_end
from live_client import Client
from live_server import Server
from PIL import Image, ImageDraw, ImageFont, ImageOps
from playwright.sync_api import Page

from scripts import ROOT
from scripts.pictures.run import run
from scripts.setup.host import find_host
from scripts.workflows.blueprint import NAME, blueprint
from scripts.workflows.descriptions import STUDENT, WORKFLOWS
from scripts.workflows.parts import Workflow, api_prompt

THUMBNAIL, SEAM, LABEL = 512, 6, 26
GAP, COLLAPSED = 48, 150  # between columns, and a collapsed node's width, in the canvas's pixels
# Space below a node: NASA Apply grows by a line when it runs; in Nodes 2.0, buttons, error bars and rows take more.
BELOW, BELOW_COLLAPSED = 60, 24
NOTE, LETTERS, LINE = 400, 48, 16  # width of the note, letters per line, height of a line
NOTE_EDGE = 64  # its border, and what Nodes 2.0 adds
CARD_MARGIN, CARD_ZOOM = 20, 1.6

# Loads the API form, sets sizes and columns, adds the note, and returns the file and what the front end would send for
# it. Nodes without a given size get the front end's.
BUILD = """
async ({prompt, name, nodes, columns, note, noteSize, gap, below, belowCollapsed, collapsedWidth}) => {
  await app.loadApiJson(prompt, name + '.json');
  const byKey = {};
  nodes.forEach(({key}, index) => { byKey[key] = app.graph.getNodeById(index + 1); });
  const text = LiteGraph.createNode('Note');
  text.title = 'What this shows';
  app.graph.add(text);
  text.widgets[0].value = note;
  text.setSize(noteSize);
  byKey.note = text;
  for (const {key, size, collapsed, files} of nodes) {
    const node = byKey[key];
    node.setSize(size ?? [Math.max(node.computeSize()[0], 250), node.computeSize()[1]]);
    if (collapsed) node.flags.collapsed = true;
    if (files.length) node.properties.models = files;
    // The menu beside a seed, whatever the node calls it: each run shows the next seed, and one can go back.
    for (const widget of node.widgets ?? [])
      if (widget.options?.values?.includes?.('increment')) widget.value = 'fixed';
  }
  const width = node => node?.flags.collapsed ? collapsedWidth : node?.size[0] ?? 0;
  const height = node => node.flags.collapsed ? 0 : node.size[1];
  let x = 0;
  for (const column of columns) {
    let y = 0;
    for (const key of column) {
      if (typeof key === 'number') { y = key; continue; }
      byKey[key].pos = [x, y];
      const room = byKey[key].flags.collapsed ? belowCollapsed : below;
      y += height(byKey[key]) + LiteGraph.NODE_TITLE_HEIGHT + room;
    }
    x += Math.max(...column.map(key => width(byKey[key]))) + gap;
  }
  // As text, as it is saved: values that are undefined are left out.
  return JSON.stringify({graph: app.graph.serialize(), sent: (await app.graphToPrompt()).output});
}
"""


# Brings nodes into view with their title bars and returns their box on the page.
SHOW = """
async ({ids, margin, zoom}) => {
  const nodes = ids.map(id => app.graph.getNodeById(id)), canvas = app.canvas, title = LiteGraph.NODE_TITLE_HEIGHT;
  const left = Math.min(...nodes.map(n => n.pos[0])) - margin;
  const top = Math.min(...nodes.map(n => n.pos[1])) - title - margin;
  const right = Math.max(...nodes.map(n => n.pos[0] + n.size[0])) + margin;
  const bottom = Math.max(...nodes.map(n => n.pos[1] + n.size[1])) + margin;
  canvas.deselectAll?.();
  canvas.ds.scale = zoom;
  canvas.ds.offset[0] = 200 - left;
  canvas.ds.offset[1] = 60 - top;
  canvas.setDirty(true, true);
  await new Promise(done => setTimeout(done, 800));
  const box = canvas.canvas.getBoundingClientRect();
  return {
    x: box.x + 200 * zoom, y: box.y + 60 * zoom, width: (right - left) * zoom, height: (bottom - top) * zoom,
  };
}
"""


def build(page: Page, workflow: Workflow) -> tuple[dict[str, Any], dict[str, Any]]:
    """(file for the UI, file for the server) of one description.

    Raises:
        RuntimeError: the front end changed a node.
    """
    prompt = api_prompt(workflow.nodes)
    lines = sum(math.ceil(len(line) / LETTERS) for line in workflow.note)
    arguments = {
        "prompt": prompt,
        "name": workflow.name,
        "nodes": [{"key": key, **asdict(node)} for key, node in workflow.nodes.items()],
        "columns": workflow.columns,
        "note": "\n".join(workflow.note),
        "noteSize": [NOTE, lines * LINE + NOTE_EDGE],
        "gap": GAP,
        "below": BELOW,
        "belowCollapsed": BELOW_COLLAPSED,
        "collapsedWidth": COLLAPSED,
    }
    made = json.loads(page.evaluate(BUILD, arguments))
    for number, node in made["sent"].items():
        if (node["class_type"], node["inputs"]) != (prompt[number]["class_type"], prompt[number]["inputs"]):
            raise RuntimeError(f"{workflow.name}: node {number} came back as {node}, sent as {prompt[number]}")
    graph = made["graph"]
    # Fixed, so that the same description gives the same file.
    graph["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"snoopi/{workflow.name}"))
    graph["extra"] = {}
    return graph, made["sent"]


def thumbnail(prompt: dict[str, Any], results: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """A square picture, as the template browser shows it, of the results of the Save Image nodes.

    One result fills it with four pictures or its only one; two results get a column each, four a quarter each.
    """
    titles = [node["_meta"]["title"] for node in prompt.values() if node["class_type"] == "SaveImage"]
    if len(results) == 1 and len(results[0]) == 1:
        return ImageOps.pad(results[0][0], (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, color="white")
    if len(results) == 1:
        return _mosaic([results[0][0:2], results[0][2:4]], [])
    if len(results) == 2:
        return _mosaic([[results[0][0], results[1][0]], [results[0][1], results[1][1]]], [titles])
    firsts = [result[0] for result in results]
    return _mosaic([firsts[0:2], firsts[2:4]], [titles[0:2], titles[2:4]])


def _mosaic(rows: Sequence[Sequence[Image.Image]], titles: Sequence[Sequence[str]]) -> Image.Image:
    """Two rows of two pictures; rows of titles go below the last rows of pictures."""
    side = (THUMBNAIL - SEAM - LABEL * len(titles)) // 2
    left = (THUMBNAIL - SEAM - 2 * side) // 2
    page = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "white")
    draw, font, y = ImageDraw.Draw(page), ImageFont.load_default(18), 0
    labels = [[]] * (len(rows) - len(titles)) + list(titles)
    for row, names in zip(rows, labels, strict=True):
        for column, image in enumerate(row):
            page.paste(image.resize((side, side), Image.Resampling.LANCZOS), (left + column * (side + SEAM), y))
        y += side
        for column, name in enumerate(names):
            middle = (left + column * (side + SEAM) + side // 2, y + LABEL // 2)
            draw.text(middle, name, fill="black", font=font, anchor="mm")
        y += LABEL if names else SEAM
    return page


def card(page: Page, workflow: Workflow) -> Image.Image:
    """A readable screenshot of the graph's most important nodes (`Workflow.card`)."""
    numbers = {key: number for number, key in enumerate(workflow.nodes, start=1)}
    box = page.evaluate(
        SHOW, {"ids": [numbers[key] for key in workflow.card], "margin": CARD_MARGIN, "zoom": CARD_ZOOM}
    )
    picture = Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")
    return ImageOps.pad(picture, (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, color=picture.getpixel((2, 2)))


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make(client: Client, page: Page, workflow: Workflow, out: Path) -> None:
    """Write the three files of one workflow."""
    graph, prompt = build(page, workflow)
    write_json(out / f"{workflow.name}.json", graph)
    write_json(out / "api" / f"{workflow.name}.json", prompt)
    if workflow.card:
        image, done = card(page, workflow), "not run"
    else:
        results, seconds = run(client, prompt)
        image, done = thumbnail(prompt, results), f"ran in {seconds:.2f} s"
    image.save(out / f"{workflow.name}.jpg", quality=90)
    print(f"{workflow.name}: {len(prompt)} nodes, {done}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help='only these templates, or "blueprint"; all when none is given')
    parser.add_argument("--student", type=Path, help="a checkpoint to use instead of the bundled student")
    parser.add_argument("--out", type=Path, default=ROOT / "workflows")
    options = parser.parse_args()
    chosen = [workflow for workflow in WORKFLOWS if not options.names or workflow.name in options.names]
    with tempfile.TemporaryDirectory(prefix="snoopi-workflows-") as base, Server(find_host(), Path(base)) as server:
        if options.student:
            shutil.copy2(options.student, server.base / "models" / "checkpoints" / STUDENT)
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
