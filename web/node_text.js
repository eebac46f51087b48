// Text and warnings of the last run on the nodes that they are about; snoopi_core/host/front_end.py sends them.
// They are not saved with the workflow, and not sent with the prompt.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const WIDGET = "snoopi_text"; // name of the widget
const MARGIN = 6; // of the text in its widget
const LOWEST = 40; // pixels of height that a text may always have: two lines
const HIGHEST = 200; // pixels; more text is scrolled
const STYLE =
  "box-sizing: border-box; padding: 2px 6px; font: 12px/1.4 sans-serif; color: var(--input-text, #ddd); " +
  "overflow: hidden auto; overflow-wrap: anywhere; white-space: pre-wrap; user-select: text;";
const WARNING_STYLE = "border-left: 3px solid #e8a33d; padding-left: 6px; margin-bottom: 3px;";

// The nodes that ran, until it is known in which workflow: the event that a node runs does not say it, but texts do.
let run = { begun: new Set(), entries: undefined };

// {workflow: its id, tab, entries: execution id of a node -> {text, warnings: text -> execution id of the node that was
// running}}. Not kept on the nodes, because opening a workflow or undoing a change makes new ones. A template that is
// open twice has the same id in both tabs.
const kept = [];
const queuedIn = new Map(); // workflow id -> the tab that queued it last
const toasts = new Set(); // warnings of this run and the one before that had a toast
const heights = new WeakMap(); // node -> {text: height of its text, without: of the node without one}

const rootGraph = () => app.rootGraph ?? app.graph;
const widgetOf = (node) => node.widgets?.find((widget) => widget.name === WIDGET);

const rawTab = (tab) => tab?.__v_raw ?? tab; // Vue wraps the same object in several ways
const openTab = () => rawTab(app.extensionManager.workflow?.activeWorkflow);

function tabOf(workflow) {
  if (queuedIn.has(workflow)) return queuedIn.get(workflow);
  if (workflow === rootGraph()?.id) return openTab();
  return rawTab(app.extensionManager.workflow?.openWorkflows?.find((tab) => tab.activeState?.id === workflow));
}

function entriesOf(workflow, tab) {
  let found = kept.find((each) => each.workflow === workflow && each.tab === tab);
  if (!found) kept.push((found = { workflow, tab, entries: new Map() }));
  return found.entries;
}

const allEntries = () => kept.map(({ entries }) => entries);
const shownEntries = () => entriesOf(rootGraph()?.id, openTab());

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
  const entries = shownEntries();
  for (const [id, { text, warnings }] of entries) {
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
    const paths = [...entries].map(([id, { warnings }]) => [pathTo(id), warnings]);
    if (frames > 0 && !paths.every(([path]) => path.every(isPlaced))) {
      requestAnimationFrame(() => place(frames - 1));
      return;
    }
    for (const [path, warnings] of paths) if (!path.map(fit).some(Boolean)) [...warnings.keys()].forEach(toast);
  };
  requestAnimationFrame(() => requestAnimationFrame(() => place(120)));
}

function toast(text) {
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

// The front end opens a tab some frames after its graph is loaded.
function followTab(frames, before = openTab()) {
  const now = openTab();
  if (now !== before) drawSoon();
  if (frames > 0) requestAnimationFrame(() => followTab(frames - 1, now));
}

function receive({ kind, text, node, source, workflow }) {
  const id = workflow ?? rootGraph()?.id;
  const entries = entriesOf(id, tabOf(id));
  if (source && !run.entries && (run.begun.has(source) || run.begun.has(node))) {
    run.entries = entries;
    for (const id of run.begun) forget(id, [entries]);
  }
  if (!entries.has(node)) entries.set(node, { text: "", warnings: new Map() });
  const { warnings } = entries.get(node);
  if (kind === "text") entries.get(node).text = text;
  else if (!warnings.has(text)) warnings.set(text, source);
  if (kind === "warning" && entries !== shownEntries()) toast(text);
  drawSoon();
}

// A node that runs again says everything again, and all samplers behind it run again too.
function forget(id, several) {
  for (const entries of several) {
    entries.delete(id);
    for (const { warnings } of entries.values()) {
      for (const [text, source] of warnings) if (source === id) warnings.delete(text);
    }
  }
}

function begin(id) {
  run.begun.add(id);
  if (run.entries) forget(id, [run.entries]);
  drawSoon();
}

// A warning that this run did not repeat has a toast when it comes again.
function end() {
  // No node said anything, so that the run may be any workflow's.
  if (!run.entries) for (const id of run.begun) forget(id, allEntries());
  run = { begun: new Set(), entries: undefined };
  const said = new Set();
  for (const entries of allEntries()) {
    for (const { warnings } of entries.values()) for (const text of warnings.keys()) said.add(text);
  }
  for (const text of toasts) if (!said.has(text)) toasts.delete(text);
  drawSoon();
}

app.registerExtension({
  name: "snoopi.nodeText",
  setup() {
    api.addEventListener("snoopi.node_text", ({ detail }) => receive(detail));
    // Older front ends (1.39) have the second alone, which may come after the first text.
    for (const event of ["promptQueueing", "promptQueued"])
      api.addEventListener(event, () => queuedIn.set(rootGraph()?.id, openTab()));
    api.addEventListener("executing", ({ detail }) => (detail ? begin(String(detail)) : end()));
  },
  afterConfigureGraph() {
    drawSoon();
    followTab(120);
  },
});
