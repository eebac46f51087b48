// Whose run says what: the texts of each tab's last run. node_text.js draws them.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { itemOf, needed, recall, remember } from "./cached_texts.js";

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
let settled = Promise.resolve(); // when all ended runs are settled
let changed; // is called when what was said has changed
let warned; // is called with a warning of another tab's run, and what was said in that tab

export const rootGraph = () => app.rootGraph ?? app.graph;
export const openTab = () => app.extensionManager.workflow?.activeWorkflow;
const shown = () => saidIn(openTab());

function saidIn(tab) {
  const said = kept.get(tab?.changeTracker) ?? { entries: new Map(), toasts: new Set() };
  if (tab?.changeTracker) kept.set(tab.changeTracker, said);
  return said;
}

// What was said in the open tab, if the graph is that tab's: the front end opens a tab some frames after its graph is
// loaded.
export function saidHere() {
  return shown().workflow === rootGraph()?.id ? shown() : saidIn();
}

function tabOf(workflow) {
  if ((workflow ?? rootGraph()?.id) === rootGraph()?.id) return openTab();
  return app.extensionManager.workflow?.openWorkflows?.find((tab) => tab.activeState?.id === workflow);
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
  run.begun.forEach((id) => forget(id));
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
  if (kind === "warning" && run.said !== shown()) warned(text, run.said);
  changed();
}

function put({ entries }, { kind, text, node, source }) {
  if (!entries.has(node)) entries.set(node, { text: "", warnings: new Map() });
  const { warnings } = entries.get(node);
  if (kind === "text") entries.get(node).text = text;
  else if (!warnings.has(text)) warnings.set(text, source);
}

// A node that runs again says everything again, and all samplers behind it run again too.
function forget(id) {
  const { entries } = run.said;
  entries.delete(id);
  for (const { warnings } of entries.values()) {
    for (const [text, source] of warnings) if (source === id) warnings.delete(text);
  }
}

function begin(id) {
  if (run.said) forget(id);
  else run.begun.add(id);
  run.messages.set(id, []);
  changed();
}

// A warning that this run did not repeat has a toast when it comes again.
function end() {
  if (!run.said && !queued.has(run.prompt)) know(shown()); // over before the queue was asked
  const { entries, toasts } = run.said ?? saidIn();
  const repeated = new Set([...entries.values()].flatMap(({ warnings }) => [...warnings.keys()]));
  for (const text of toasts) if (!repeated.has(text)) toasts.delete(text);
  queued.delete(run.prompt);
  const ended = run;
  if (ended.prompt && speakers.size) settled = settled.then(() => settle(ended)).catch(console.error);
  run = { begun: new Set(), messages: new Map() };
  changed();
}

// Leave in the tab what the prompt's nodes say: those that ran, now, those in ComfyUI's cache, when they ran with the
// same inputs. If that is not known, as after a reload of the page, they say nothing; nor does a node that no output
// needs. A next run of the tab may have begun meanwhile.
async function settle({ prompt: id, said: own, messages }) {
  const item = await itemOf(id);
  if (!item) return;
  const [, , prompt, extra] = item;
  for (const [node, several] of messages) if (speakers.has(node)) remember(prompt, node, several);
  const workflow = extra.extra_pnginfo?.workflow?.id;
  const said = own ?? saidIn(tabOf(workflow));
  said.workflow = workflow ?? said.workflow;
  said.entries.clear();
  for (const node of needed(item)) {
    if (speakers.has(node)) for (const each of messages.get(node) ?? recall(prompt, node)) put(said, each);
  }
  if (run.said === said) for (const several of run.messages.values()) for (const each of several) put(said, each);
  changed();
}

export function followRuns(onChange, onWarning) {
  changed = onChange;
  warned = onWarning;
  api.addEventListener("snoopi.node_text", ({ detail }) => receive(detail));
  api.addEventListener("promptQueueing", ({ detail }) => queueing.set(detail.requestId, shown()));
  api.addEventListener("promptQueued", ({ detail }) => {
    followQueue(queueing.get(detail?.requestId) ?? shown());
    queueing.delete(detail?.requestId);
  });
  followQueue();
  api.addEventListener("execution_start", ({ detail }) => start(detail));
  api.addEventListener("graphCleared", () => shown().entries.clear());
  api.addEventListener("executing", ({ detail }) => (detail ? begin(String(detail)) : end()));
}
