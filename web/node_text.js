// Text and warnings of a tab's last run on the nodes that they are about; snoopi_core/host/front_end.py sends them.
// They are not saved with the workflow, and not sent with the prompt.
import { app } from "../../scripts/app.js";
import { followRuns, openTab, rootGraph, saidHere } from "./runs.js";

const WIDGET = "snoopi_text"; // name of the widget
const MARGIN = 6; // of the text in its widget
const LOWEST = 40; // pixels of height that a text may always have: two lines
const HIGHEST = 200; // pixels; more text is scrolled
const STYLE =
  "box-sizing: border-box; padding: 2px 6px; font: 12px/1.4 sans-serif; color: var(--input-text, #ddd); " +
  "overflow: hidden auto; overflow-wrap: anywhere; white-space: pre-wrap; user-select: text;";
const WARNING_STYLE = "border-left: 3px solid #e8a33d; padding-left: 6px; margin-bottom: 3px;";

const heights = new WeakMap(); // node -> {text: height of its text, without: of the node without one}

const widgetOf = (node) => node.widgets?.find((widget) => widget.name === WIDGET);

// The node with this execution id, after the subgraph nodes around it: "12:5" is node 5 in the subgraph of node 12.
// Empty for nodes of others and for nodes that are gone.
function pathTo(id) {
  const path = [];
  let graph = rootGraph();
  for (const part of id.split(":")) {
    const node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    if (!node) return [];
    path.push(node);
    graph = node.subgraph;
  }
  return path.at(-1).comfyClass?.startsWith("Snoopi") ? path : [];
}

// Height of an element at this width; measured beside the canvas, since its node may not have been drawn yet.
function measure(element, width) {
  const copy = element.cloneNode(true);
  copy.removeAttribute("class");
  copy.style.cssText += `position: absolute; visibility: hidden; height: auto; width: ${width}px;`;
  app.canvas.canvas.parentElement.append(copy);
  const height = copy.offsetHeight;
  copy.remove();
  return height;
}

function addWidget(node) {
  const element = document.createElement("div");
  element.style.cssText = `${STYLE} max-height: ${LOWEST}px;`;
  let measured = {};
  const height = () => {
    if (!element.hasChildNodes()) return 0;
    const key = `${node.size[0]} ${element.style.maxHeight} ${element.innerHTML}`;
    if (measured.key !== key) measured = { key, height: measure(element, node.size[0] - 2 * MARGIN) };
    return measured.height + 2 * MARGIN;
  };
  const widget = node.addDOMWidget(WIDGET, WIDGET, element, {
    getValue: () => element.textContent,
    setValue: () => {},
    getMinHeight: height,
    getMaxHeight: height, // else it takes half the room of a picture below it
    hideOnZoom: false,
    margin: MARGIN,
    serialize: false, // not in the prompt
  });
  widget.serialize = false; // not in the workflow
  if (node.widgets?.includes(widget)) return widget;
  widget.onRemove?.(); // in older front ends, subgraph nodes have no widgets of their own
  node.snoopiNoWidget = true;
  return null;
}

// `lines` is text -> whether it is a warning.
function draw(node, lines) {
  const widget = widgetOf(node) ?? (lines.size && !node.snoopiNoWidget ? addWidget(node) : null);
  if (!widget) return;
  const ownName = new RegExp(`^${node.constructor.nodeData?.display_name}:? `);
  const parts = [...lines].map(([text, isWarning]) => {
    const part = document.createElement("div");
    part.textContent = text.replace(ownName, "");
    if (isWarning) part.style.cssText = WARNING_STYLE;
    return part;
  });
  widget.element.replaceChildren(...parts);
  widget.element.title = parts.map((part) => part.textContent).join("\n");
  resize(node, widget);
}

// A front end makes a node taller for its widgets, but never lower again.
function resize(node, widget) {
  const before = heights.get(node)?.text ?? 0;
  const after = widget.options.getMinHeight();
  const without = before ? heights.get(node).without : node.size[1];
  heights.set(node, { text: after, without });
  if (after < before && !LiteGraph.vueNodesMode) {
    node.setSize([node.size[0], Math.max(without, node.size[1] - before + after)]);
  }
  node.setDirtyCanvas(true, true);
}

const isOpen = (node) => node.graph === (app.canvas.graph ?? rootGraph()) && !node.flags?.collapsed;

// Give the text the room down to the next node; returns whether all of it can be read.
function fit(node) {
  const widget = widgetOf(node);
  if (!isOpen(node) || !widget?.element.isConnected) return false;
  const { scale, offset } = app.canvas.ds;
  const place = widget.element.parentElement.getBoundingClientRect();
  const whole = widget.element.closest("[data-node-id]")?.getBoundingClientRect(); // in Nodes 2.0
  const canvasTop = app.canvas.canvas.getBoundingClientRect().top;
  const top = whole ? (place.top - canvasTop) / scale - offset[1] : node.pos[1] + widget.y + MARGIN;
  const footer = whole ? (whole.bottom - place.bottom) / scale : MARGIN;
  const below = node.graph.nodes
    .filter((other) => other.pos[0] < node.pos[0] + node.size[0] && node.pos[0] < other.pos[0] + other.size[0])
    .map((other) => other.pos[1] - LiteGraph.NODE_TITLE_HEIGHT)
    .filter((start) => start > top);
  const room = Math.min(...below) - top - footer - MARGIN;
  widget.element.style.maxHeight = `${Math.min(Math.max(room, LOWEST), HIGHEST)}px`;
  resize(node, widget);
  return measure(widget.element, widget.element.clientWidth) + 1 >= widget.element.scrollHeight;
}

function drawAll() {
  const lines = new Map();
  const said = saidHere();
  for (const [id, { text, warnings }] of said.entries) {
    for (const node of pathTo(id)) {
      if (!lines.has(node)) lines.set(node, new Map());
      for (const warning of warnings.keys()) lines.get(node).set(warning, true);
      if (text) lines.get(node).set(text, false);
    }
  }
  const drawn = (graph) =>
    (graph?.nodes ?? []).flatMap((node) => [...(widgetOf(node) ? [node] : []), ...drawn(node.subgraph)]);
  for (const node of new Set([...lines.keys(), ...drawn(rootGraph())])) draw(node, lines.get(node) ?? new Map());
  // The front end places widgets some frames later.
  const isPlaced = (node) => !isOpen(node) || !widgetOf(node) || widgetOf(node).element.isConnected;
  const place = (frames) => {
    if (said !== saidHere()) return;
    const paths = [...said.entries].map(([id, { warnings }]) => [pathTo(id), warnings]);
    if (frames > 0 && !paths.every(([path]) => path.every(isPlaced))) {
      requestAnimationFrame(() => place(frames - 1));
      return;
    }
    for (const [path, warnings] of paths) {
      if (!path.map(fit).some(Boolean)) for (const text of warnings.keys()) toast(text, said);
    }
  };
  requestAnimationFrame(() => requestAnimationFrame(() => place(120)));
}

function toast(text, { toasts }) {
  if (toasts.has(text)) return;
  toasts.add(text);
  app.extensionManager.toast.add({ severity: "warn", summary: "SNOOPI", detail: text, life: 20000 });
}

let isWaiting = false;
function drawSoon() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    drawAll();
  });
}

function followTab(frames, before = openTab()?.changeTracker) {
  const now = openTab()?.changeTracker;
  if (now !== before) drawSoon();
  if (frames > 0) requestAnimationFrame(() => followTab(frames - 1, now));
}

app.registerExtension({
  name: "snoopi.nodeText",
  setup() {
    followRuns(drawSoon, toast);
  },
  afterConfigureGraph() {
    drawSoon();
    followTab(120);
  },
});
