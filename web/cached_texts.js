// What nodes said, by what they ran with: ComfyUI does not run again what is in its cache, and nothing is said then.
import { api } from "../../scripts/api.js";

const MOST = 200; // keys that are kept
const spoken = new Map(); // a node's inputs and those of all before it -> the messages of its last run with them

// [number, id, {execution id: {class_type, inputs}}, {extra_pnginfo ...}, outputs to run] of a prompt that runs or has
// run; undefined if the server does not know it.
export async function itemOf(id) {
  const { queue_running: running } = await (await api.fetchApi("/queue")).json();
  const item = running.find(([, each]) => each === id);
  return item ?? (await (await api.fetchApi(`/history/${id}`)).json())[id]?.prompt;
}

// All nodes whose results a node needs, each after those that it needs, and last itself.
function behind(prompt, id, found = new Set()) {
  if (found.has(id) || !prompt[id]) return found;
  for (const input of Object.values(prompt[id].inputs)) {
    if (Array.isArray(input)) behind(prompt, String(input[0]), found);
  }
  return found.add(id);
}

function keyOf(prompt, id) {
  const parts = [...behind(prompt, id)].map((each) => [each, prompt[each].class_type, prompt[each].inputs]);
  return JSON.stringify(parts);
}

// The nodes whose results an output needs, in an order in which they can run; the others do not. A prompt may ask for
// some of its outputs only.
export function needed([, , prompt, , asked]) {
  const found = new Set();
  const isOutput = ({ class_type: type }) => LiteGraph.registered_node_types[type]?.nodeData?.output_node;
  for (const id of [...asked, ...Object.keys(prompt).filter((each) => isOutput(prompt[each]))]) {
    behind(prompt, id, found);
  }
  return found;
}

export const recall = (prompt, id) => spoken.get(keyOf(prompt, id)) ?? [];

export function remember(prompt, id, messages) {
  const key = keyOf(prompt, id);
  spoken.delete(key); // the newest are last
  if (messages.length) spoken.set(key, messages);
  for (const oldest of spoken.keys()) if (spoken.size > MOST) spoken.delete(oldest);
}
