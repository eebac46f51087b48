// What nodes said, by what they ran with: ComfyUI does not run again what is in its cache, and nothing is said then.
import { api } from "../../scripts/api.js";

const MOST = 1000; // keys that are kept
const spoken = new Map(); // a node's inputs and those of all before it -> the messages of its run

// What a prompt runs, {execution id: {class_type, inputs}}; undefined if this server does not know the prompt.
export async function promptOf(id) {
  const { queue_running: running } = await (await api.fetchApi("/queue")).json();
  const item = running.find(([, each]) => each === id);
  return (item ?? (await (await api.fetchApi(`/history/${id}`)).json())[id]?.prompt)?.[2];
}

// A node and all whose results it needs.
function behind(prompt, id, found = new Set()) {
  if (found.has(id) || !prompt[id]) return found;
  found.add(id);
  for (const input of Object.values(prompt[id].inputs)) {
    if (Array.isArray(input)) behind(prompt, String(input[0]), found);
  }
  return found;
}

function keyOf(prompt, id) {
  const parts = [...behind(prompt, id)].sort().map((each) => [each, prompt[each].class_type, prompt[each].inputs]);
  return JSON.stringify([id, parts]);
}

// The nodes whose results an output needs; the others do not run.
export function needed(prompt) {
  const found = new Set();
  for (const [id, { class_type: type }] of Object.entries(prompt)) {
    if (LiteGraph.registered_node_types[type]?.nodeData?.output_node) behind(prompt, id, found);
  }
  return found;
}

export const recall = (prompt, id) => spoken.get(keyOf(prompt, id)) ?? [];

// `messages` is execution id of a node that ran -> what it said.
export function remember(prompt, messages) {
  for (const [id, several] of messages) {
    if (!several.length) continue;
    spoken.delete(keyOf(prompt, id)); // the newest are last
    spoken.set(keyOf(prompt, id), several);
  }
  for (const key of spoken.keys()) if (spoken.size > MOST) spoken.delete(key);
}
