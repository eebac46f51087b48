// Nodes that show a picture are added at a size at which it can be read; a node's schema has no place for that.
import { app } from "../../scripts/app.js";

const SIZES = {
  SnoopiNASAScaleSweep: [560, 760],
  SnoopiNASAInspect: [620, 720],
};

app.registerExtension({
  name: "snoopi.nodeSizes",
  nodeCreated(node) {
    const size = SIZES[node.comfyClass];
    if (size) node.setSize([...size]);
  },
});
