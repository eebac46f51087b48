"""Write workflows/: each description as a template, its thumbnail and its API form, made by the real front end.

The front end itself turns the API form into a graph, sizes the nodes and writes the file, so the templates are what a
user would have saved. Then each workflow runs once, and its pictures become the thumbnail.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from host import find_host  # noqa: E402
from live_browser import front_end  # noqa: E402
from live_client import Client, Outcome  # noqa: E402
from live_server import Server  # noqa: E402
from workflow_descriptions import STUDENT, WORKFLOWS, Workflow, api_prompt  # noqa: E402

THUMBNAIL, SEAM = 512, 6
GAP = 48  # between nodes, in the canvas's pixels

# Loads the API form, sets sizes and columns, adds the note, and returns the file together with what the front end
# would send for it. Nodes without a size of their own get the front end's.
BUILD = """
async ({prompt, name, sizes, columns, note, gap}) => {
  await app.loadApiJson(prompt, name + '.json');
  const byKey = {};
  for (const [key, id] of Object.entries(columns.ids)) byKey[key] = app.graph.getNodeById(id);
  const text = LiteGraph.createNode('Note');
  text.title = 'What this shows';
  app.graph.add(text);
  text.widgets[0].value = note;
  text.setSize([400, 120]);
  byKey.note = text;
  for (const [key, node] of Object.entries(byKey)) {
    if (key === 'note') continue;
    node.setSize(sizes[key] ?? [Math.max(node.computeSize()[0], 250), node.computeSize()[1]]);
    // The menu beside a seed, whatever the node calls it: each run shows the next seed, and one can go back.
    for (const widget of node.widgets ?? [])
      if (widget.options?.values?.includes?.('increment')) widget.value = 'fixed';
  }
  let x = 0;
  for (const column of columns.order) {
    let y = 0;
    for (const key of column) {
      if (typeof key === 'number') { y = key; continue; }
      byKey[key].pos = [x, y];
      y += byKey[key].size[1] + LiteGraph.NODE_TITLE_HEIGHT + gap / 2;
    }
    x += Math.max(...column.map(key => byKey[key]?.size[0] ?? 0)) + gap;
  }
  // As text, as it is saved: values that are undefined are left out.
  return JSON.stringify({graph: app.graph.serialize(), sent: (await app.graphToPrompt()).output});
}
"""


def build(client: Client, workflow: Workflow) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the file for the UI, the file for the server) of one description."""
    prompt = api_prompt(workflow)
    arguments = {
        "prompt": prompt,
        "name": workflow.name,
        "sizes": {key: node.size for key, node in workflow.nodes.items() if node.size},
        "columns": {
            "ids": {key: number for number, key in enumerate(workflow.nodes, start=1)},
            "order": workflow.columns,
        },
        "note": workflow.note,
        "gap": GAP,
    }
    with front_end(client) as page:
        made = json.loads(page.evaluate(BUILD, arguments))
    for number, node in made["sent"].items():
        if (node["class_type"], node["inputs"]) != (prompt[number]["class_type"], prompt[number]["inputs"]):
            raise RuntimeError(f"{workflow.name}: node {number} came back as {node}, sent as {prompt[number]}")
    graph = made["graph"]
    # The same description gives the same file.
    graph["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"snoopi/{workflow.name}"))
    graph["extra"] = {}
    return graph, made["sent"]


def thumbnail(client: Client, outcome: Outcome) -> Image.Image:
    """A square mosaic, as the template browser's cards are: each result fills one column, a lone one both."""
    results = outcome.results
    columns = [results[0][:2], results[0][2:4]] if len(results) == 1 else [result[:2] for result in results]
    side = (THUMBNAIL - SEAM) // 2
    mosaic = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "white")
    for x, column in enumerate(columns):
        for y, image in enumerate(column):
            picture = Image.open(io.BytesIO(client.view(image))).convert("RGB")
            tile = picture.resize((side, side), Image.Resampling.LANCZOS)
            mosaic.paste(tile, (x * (side + SEAM), y * (side + SEAM)))
    return mosaic


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, help="a checkpoint to use instead of the bundled student")
    parser.add_argument("--out", type=Path, default=ROOT / "workflows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="snoopi-workflows-") as base, Server(find_host(), Path(base)) as server:
        if options.student:
            shutil.copy2(options.student, server.base / "models" / "checkpoints" / STUDENT)
        for workflow in WORKFLOWS:
            graph, prompt = build(server.client, workflow)
            outcome = server.client.run(prompt)
            if outcome.error:
                raise RuntimeError(f"{workflow.name} failed: {outcome.error['exception_message']}")
            write_json(options.out / f"{workflow.name}.json", graph)
            write_json(options.out / "api" / f"{workflow.name}.json", prompt)
            thumbnail(server.client, outcome).save(options.out / f"{workflow.name}.jpg", quality=90)
            print(f"{workflow.name}: {len(prompt)} nodes, ran in {outcome.seconds:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
