// Errors of our nodes in our own words. The front end says "threw an error" or "rejected the value", and keeps the
// sentence that says what to do behind a button.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const PACK = /[\\/]snoopi_core[\\/]/; // the folder of the pack in a line of a traceback
const LIFE = 30000; // ms
const POLL = 200; // ms
const LONGEST = 300000; // ms that checking a prompt may take
const FOLDERS = { ckpt_name: "models/checkpoints", lora_name: "models/loras" }; // input -> where its files are

const isOurs = (type) => type?.startsWith("Snoopi");
const nameOf = (type) => LiteGraph.registered_node_types[type]?.nodeData?.display_name ?? type;

let toasts = []; // each takes the toast of one error away

function show(type, text) {
  const summary = nameOf(type);
  const whole = text.replace(/^Execution Blocked: /, "").trim();
  const detail = whole.startsWith(`${summary}: `) ? whole.slice(summary.length + 2) : whole;
  const { toast } = app.extensionManager;
  if (toast.dismiss) {
    const id = toast.error(summary, { description: detail, duration: LIFE, closable: true });
    toasts.push(() => toast.dismiss(id));
  } else {
    const message = { severity: "error", summary, detail, life: LIFE };
    toast.add(message);
    toasts.push(() => toast.remove(message));
  }
}

// While a sampler runs, NASA raises its errors inside it: then the last line of the traceback is in the pack.
function onExecutionError({ detail }) {
  const { node_type: type, exception_message: text = "", traceback = [] } = detail;
  const isBlocked = text.startsWith("Execution Blocked: NASA Scale Sweep: ");
  if (isOurs(type) || isBlocked || PACK.test(traceback.at(-1))) show(type, text);
}

// A sentence of locales/LANGUAGE/main.json with its {words} filled in; in English, where the language has none.
// Undefined if the texts cannot be had.
async function translated(key, words) {
  const texts = await api.getCustomNodesI18n().catch(() => ({}));
  const language = app.extensionManager.setting.get("Comfy.Locale");
  const text = texts[language]?.snoopi?.[key] ?? texts.en?.snoopi?.[key];
  return text?.replace(/\{(\w+)\}/g, (_, word) => words[word]);
}

// Of a check in a node's validate_inputs, our sentence stands behind the input's name.
async function sentence({ type, message, details, extra_info: info }) {
  if (type === "custom_validation_failed") return details.replace(/^\w+ - /, "");
  if (type === "value_not_in_list") {
    const folder = FOLDERS[info?.input_name];
    const words = { input: info?.input_name, given: JSON.stringify(info?.received_value), folder };
    const text = await translated(folder ? "fileNotInList" : "notInList", words);
    if (text) return text;
  }
  return [message, details].filter(Boolean).join(": ");
}

async function showRejected(errors) {
  for (const { class_type: type, errors: several } of Object.values(errors ?? {})) {
    if (isOurs(type)) for (const text of new Set(await Promise.all(several.map(sentence)))) show(type, text);
  }
}

// No event says that a prompt was rejected, but the front end keeps the reasons, as a new object each time. That of
// ComfyUI 0.16.3 has `promptQueued` after it; newer ones only `promptQueueing` before it.
let before = null; // the reasons when the prompt was queued
let isShown = false; // the reasons of this prompt, or of one of several that were queued together
let timer;

function look() {
  const errors = app.lastNodeErrors;
  if (isShown || !errors || errors === before) return;
  isShown = true;
  clearInterval(timer);
  showRejected(errors);
}

function onQueueing() {
  for (const remove of toasts) remove();
  toasts = [];
  clearInterval(timer);
  before = app.lastNodeErrors;
  isShown = false;
  const end = Date.now() + LONGEST;
  timer = setInterval(() => (Date.now() > end ? clearInterval(timer) : look()), POLL);
}

app.registerExtension({
  name: "snoopi.errors",
  setup() {
    api.addEventListener("execution_error", onExecutionError);
    api.addEventListener("promptQueueing", onQueueing);
    api.addEventListener("promptQueued", () => {
      look(); // a prompt may be accepted in part
      clearInterval(timer);
      isShown = false;
    });
  },
});
