"""Write the help pages' pictures: each node of ours in a workflow that is shipped, cut out of the real front end.

Run it after make_workflows.py: the picture of what NASA does is that workflow's thumbnail.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from host import find_host  # noqa: E402
from live_browser import front_end  # noqa: E402
from live_server import Server  # noqa: E402

WORKFLOW = ROOT / "workflows" / "one_step_with_negative_prompt.json"
OUT = ROOT / "web" / "docs" / "images"
SCALE, MARGIN = 1.5, 24  # of the canvas; in its pixels

# Puts one node of a type into view, its title bar included, and says where it is on the page.
SHOW = """
async ({type, scale, margin}) => {
  const node = app.graph.nodes.find(node => node.type === type);
  const canvas = app.canvas, title = LiteGraph.NODE_TITLE_HEIGHT;
  canvas.deselectAll?.();
  canvas.ds.scale = scale;
  canvas.ds.offset[0] = 300 - node.pos[0];
  canvas.ds.offset[1] = 150 - node.pos[1];
  canvas.setDirty(true, true);
  await new Promise(done => setTimeout(done, 800));
  const box = canvas.canvas.getBoundingClientRect();
  return {
    x: box.x + (300 - margin) * scale, y: box.y + (150 - title - margin) * scale,
    width: (node.size[0] + 2 * margin) * scale, height: (node.size[1] + title + 2 * margin) * scale,
  };
}
"""


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / "workflows" / "with_and_without_negative.jpg", OUT / "with_and_without.jpg")
    with (
        tempfile.TemporaryDirectory(prefix="snoopi-help-") as base,
        Server(find_host(), Path(base)) as server,
        front_end(server.client) as page,
    ):
        page.evaluate("async text => { await app.loadGraphData(JSON.parse(text)); }", WORKFLOW.read_text("utf-8"))
        for type_name in ("SnoopiPGSBLoader", "SnoopiNASAApply", "SnoopiOneStepSampler"):
            clip = page.evaluate(SHOW, {"type": type_name, "scale": SCALE, "margin": MARGIN})
            path = OUT / f"{type_name}.jpg"
            page.screenshot(path=str(path), clip=clip, type="jpeg", quality=90)
            print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
