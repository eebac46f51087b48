// Text and warnings of a tab's last run on the nodes that they are about; snoopi_core/host/front_end.py sends them.
// They are not saved with the workflow, and not sent with the prompt.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { needed, promptOf, recall, remember } from "./cached_texts.js";

const WIDGET = "snoopi_text"; // name of the widget
const MARGIN = 6; // of the text in its widget
const LOWEST = 40; // pixels of height that a text may always have: two lines
const HIGHEST = 200; // pixels; more text is scrolled
const STYLE =
  "box-sizing: border-box; padding: 2px 6px; font: 12px/1.4 sans-serif; color: var(--input-text, #ddd); " +
  "overflow: hidden auto; overflow-wrap: anywhere; white-space: pre-wrap; user-select: text;";
const WARNING_STYLE = "border-left: 3px solid #e8a33d; padding-left: 6px; margin-bottom: 3px;";

// What was said in a tab: {entries: execution id of a node -> {text, warnings: text -> execution id of the node that
// was running}, toasts: warnings of its last two runs that had a toast, workflow: its id}. Not kept on the nodes,
// because opening a workflow or undoing a change makes new ones; nor by the workflow's id, because a template that is
// open twice has the same id in both tabs. The key is the tab's change tracker, which the front end drops when the tab
// is closed.
const kept = new WeakMap();
const queued = new Map(); // id of a prompt -> what was said in the tab that queued it
const queueing = new Map(); // id of a request to queue prompts, not in ComfyUI 0.16.3 -> the same

// The prompt that runs. What was said in its tab is not known if another page queued it, as before this one was
// reloaded; messages then say in which workflow, but nodes that ran before the first one wait in `begun`. `messages` is
// execution id of a node that ran -> what it said.
let run = { begun: new Set(), messages: new Map() };
const speakers = new Set(); // execution ids of nodes that have said something, in any tab
let settled = Promise.resolve(); // when what ended runs leave behind is in place
const heights = new WeakMap(); // node -> {text: height of its text, without: of the node without one}

const rootGraph = () => app.rootGraph ?? app.graph;
const widgetOf = (node) => node.widgets?.find((widget) => widget.name === WIDGET);
const openTab = () => app.extensionManager.workflow?.activeWorkflow;
const shown = () => saidIn(openTab());

function saidIn(tab) {
  const said = kept.get(tab?.changeTracker) ?? { entries: new Map(), toasts: new Set() };
  if (tab?.changeTracker) kept.set(tab.changeTracker, said);
  return said;
}

// The same, if the graph is that tab's: the front end opens a tab some frames after its graph is loaded.
function saidHere() {
  return shown().workflow === rootGraph()?.id ? shown() : saidIn();
}

function tabOf(workflow) {
  if ((workflow ?? rootGraph()?.id) === rootGraph()?.id) return openTab();
  return app.extensionManager.workflow?.openWorkflows?.find((tab) => tab.activeState?.id === workflow);
}

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

// No event has the id of a prompt and the tab that queues it, and wrapping `api.queuePrompt` would be in other packs'
// way: prompts in the queue that are new after this page queued some went from that tab. Those of other pages may be
// among them, but never begin here. Called without a tab when the page opens: what is queued then stays unknown.
async function followQueue(said) {
  const before = [...queued.keys()];
  const queue = await (await api.fetchApi("/queue")).json();
  const ids = [...queue.queue_running, ...queue.queue_pending].map(([, id]) => id);
  for (const id of ids) if (!queued.has(id)) queued.set(id, said);
  for (const id of before) if (!ids.includes(id)) queued.delete(id);
  if (!run.said && queued.get(run.prompt)) know(queued.get(run.prompt));
}

function know(said) {
  run.said = said;
  for (const id of run.begun) forget(id);
}

function start({ prompt_id: prompt }) {
  run = { prompt, said: queued.get(prompt), begun: new Set(), messages: new Map() };
}

function receive(message) {
  const { kind, text, source, workflow } = message;
  if (!run.said) know(saidIn(tabOf(workflow)));
  run.said.workflow = workflow ?? rootGraph()?.id;
  if (!run.messages.has(source)) run.messages.set(source, []);
  run.messages.get(source).push(message);
  speakers.add(source);
  put(run.said, message);
  if (kind === "warning" && run.said !== shown()) toast(text, run.said);
  drawSoon();
}

function put({ entries }, { kind, text, node, source }) {
  if (!entries.has(node)) entries.set(node, { text: "", warnings: new Map() });
  const { warnings } = entries.get(node);
  if (kind === "text") entries.get(node).text = text;
  else if (!warnings.has(text)) warnings.set(text, source);
}

// A node that runs again says everything again, and all samplers behind it run again too.
function forget(id, { entries } = run.said) {
  entries.delete(id);
  for (const { warnings } of entries.values()) {
    for (const [text, source] of warnings) if (source === id) warnings.delete(text);
  }
}

function begin(id) {
  if (run.said) forget(id);
  else run.begun.add(id);
  run.messages.set(id, []);
  drawSoon();
}

// Do something with what a run's prompt was, after what was to be done for the runs before it.
function settle(mine, act) {
  const all = async () => {
    const prompt = await promptOf(mine.prompt);
    if (prompt) act(prompt, mine.said ?? shown());
    drawSoon();
  };
  settled = settled.then(all).catch(console.error);
}

// These nodes are in the cache, perhaps with other inputs than this tab's last run had.
function takeFromCache({ nodes }) {
  const ids = nodes.map(String).filter((id) => speakers.has(id));
  const mine = run;
  if (!ids.length) return;
  settle(mine, (prompt, said) => {
    for (const id of ids) forget(id, said);
    for (const id of ids) for (const message of recall(prompt, id)) put(said, message);
    for (const several of mine.messages.values()) for (const message of several) put(said, message);
  });
}

// Keep what was said, and take the texts of nodes away that were bypassed, or that no output needs.
function settleAll(mine) {
  if (!mine.said?.entries.size) return;
  settle(mine, (prompt, { entries }) => {
    remember(prompt, mine.messages);
    for (const id of entries.keys()) if (!needed(prompt).has(id)) entries.delete(id);
  });
}

// A warning that this run did not repeat has a toast when it comes again.
function end() {
  if (!run.said && !queued.has(run.prompt)) know(shown()); // over before the queue was asked
  const { entries, toasts } = run.said ?? saidIn();
  const repeated = new Set([...entries.values()].flatMap(({ warnings }) => [...warnings.keys()]));
  for (const text of toasts) if (!repeated.has(text)) toasts.delete(text);
  queued.delete(run.prompt);
  settleAll(run);
  run = { begun: new Set(), messages: new Map() };
  drawSoon();
}

app.registerExtension({
  name: "snoopi.nodeText",
  setup() {
    api.addEventListener("snoopi.node_text", ({ detail }) => receive(detail));
    api.addEventListener("promptQueueing", ({ detail }) => queueing.set(detail.requestId, shown()));
    api.addEventListener("promptQueued", ({ detail }) => {
      followQueue(queueing.get(detail?.requestId) ?? shown());
      queueing.delete(detail?.requestId);
    });
    followQueue();
    api.addEventListener("execution_start", ({ detail }) => start(detail));
    api.addEventListener("execution_cached", ({ detail }) => takeFromCache(detail));
    api.addEventListener("graphCleared", () => shown().entries.clear());
    api.addEventListener("executing", ({ detail }) => (detail ? begin(String(detail)) : end()));
  },
  afterConfigureGraph() {
    drawSoon();
    followTab(120);
  },
});
