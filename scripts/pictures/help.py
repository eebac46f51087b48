"""Write the pictures of our nodes in the help pages: screenshots of the real front end with a shipped workflow.

Nodes that show a picture themselves are added to that workflow and run. before_after.py makes the other pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from live_browser import front_end
from live_server import Server
from playwright.sync_api import Page

from scripts import ROOT
from scripts.setup.host import find_host
from scripts.workflows.bundled import FIRST
from scripts.workflows.canvas import SHOW

WORKFLOW = ROOT / "workflows" / f"{FIRST.name}.json"
PLAIN = ("SnoopiPGSBLoader", "SnoopiNASAApply", "SnoopiOneStepSampler")
# Nodes that show what they made, and their inputs in that workflow: (class or title of a node, output) or a value.
SHOWING = {
    "SnoopiNASAScaleSweep": {
        "model": ("SnoopiPGSBLoader", 0), "positive": ("Prompt", 0), "negative": ("Negative prompt", 0),
        "latent_image": ("EmptyLatentImage", 0), "vae": ("SnoopiPGSBLoader", 2), "alphas": "0, 0.25, 0.5, 0.75, 1",
        "seed": 1, "timesteps": "auto", "preset": "auto",
    },
    "SnoopiNASAInspect": {
        "model": ("SnoopiNASAApply", 0), "positive": ("Prompt", 0), "latent_image": ("EmptyLatentImage", 0), "seed": 1,
        "preset": "auto",
    },
}  # fmt: skip
SIZES = {"SnoopiNASAScaleSweep": (620, 850), "SnoopiNASAInspect": (700, 740)}
OUT = ROOT / "web" / "docs" / "images"
ZOOM, MARGIN = 1.5, 24  # of the canvas; in its pixels

# Finds a node by its type and moves the nodes close below it away; returns the node's number.
ALONE = """
type => {
  const node = app.graph.nodes.find(node => node.type === type);
  for (const other of app.graph.nodes)
    if (other.pos[1] > node.pos[1] && Math.abs(other.pos[0] - node.pos[0]) < 10) other.pos[1] += 200;
  return node.id;
}
"""


# Loads a prompt, resizes one of its nodes, runs it and waits until the node shows its result.
RUN = """
async ({prompt, id, size}) => {
  await app.loadApiJson(prompt, 'help.json');
  const node = app.graph.getNodeById(id);
  node.setSize(size);
  for (const widget of node.widgets ?? [])
    if (widget.options?.values?.includes?.('increment')) widget.value = 'fixed';
  await app.queuePrompt(0);
  for (let waited = 0; !node.imgs?.some(image => image.src.includes('/view')); waited += 200) {
    if (waited > 60000) throw new Error('the node shows nothing');
    await new Promise(done => setTimeout(done, 200));
  }
}
"""


def prompt_with(type_name: str) -> tuple[dict[str, Any], int]:
    """(the workflow in the server's format with one node in place of its results, the number of that node)."""
    prompt = json.loads((WORKFLOW.parent / "api" / WORKFLOW.name).read_text(encoding="utf-8"))
    results = {"SnoopiOneStepSampler", "VAEDecode", "ImageScale", "SaveImage"}
    prompt = {number: node for number, node in prompt.items() if node["class_type"] not in results}
    numbers = {node["class_type"]: number for number, node in prompt.items()}
    numbers |= {node["_meta"]["title"]: number for number, node in prompt.items() if "_meta" in node}
    inputs = {
        name: [numbers[value[0]], value[1]] if isinstance(value, tuple) else value
        for name, value in SHOWING[type_name].items()
    }
    # Another number for each type: the front end keeps the pictures of a number until the next result arrives.
    number = max(map(int, prompt)) + 1 + list(SHOWING).index(type_name)
    return {**prompt, str(number): {"class_type": type_name, "inputs": inputs}}, number


def cut_out(page: Page, type_name: str) -> None:
    number = page.evaluate(ALONE, type_name)
    clip = page.evaluate(SHOW, {"ids": [number], "margin": MARGIN, "zoom": ZOOM})
    path = OUT / f"{type_name}.jpg"
    page.screenshot(path=str(path), clip=clip, type="jpeg", quality=90)
    print(path.relative_to(ROOT))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.pictures.help", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=(*PLAIN, *SHOWING), default=(*PLAIN, *SHOWING), help="nodes")
    wanted = parser.parse_args(arguments).only
    OUT.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="snoopi-help-") as base,
        Server(find_host(), Path(base)) as server,
        front_end(server.client, size=(1920, 1600)) as page,
    ):
        page.evaluate("async text => { await app.loadGraphData(JSON.parse(text)); }", WORKFLOW.read_text("utf-8"))
        for type_name in (name for name in PLAIN if name in wanted):
            cut_out(page, type_name)
        for type_name in (name for name in SHOWING if name in wanted):
            prompt, number = prompt_with(type_name)
            page.evaluate(RUN, {"prompt": prompt, "id": number, "size": SIZES[type_name]})
            cut_out(page, type_name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
