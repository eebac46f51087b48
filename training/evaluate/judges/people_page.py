"""The page that people judge on. CONTENT is replaced by JSON: see `people.write_page`."""

PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Which images still show it?</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5em auto; padding: 0 1em; max-width: 720px; color: #222;
       text-align: center }
#stage { height: 50vh; display: flex; align-items: center; justify-content: center; background: #f2f2f2 }
#stage img { max-width: 100%; max-height: 100%; min-height: 60%; object-fit: contain; image-rendering: auto }
#keys { display: grid; gap: .4em; margin: 1em 0; text-align: left }
button { font: inherit; padding: .45em .8em; border: 1px solid #999; border-radius: 6px; background: #fff;
         text-align: left; cursor: pointer }
button:hover { background: #eef4ff }
kbd { display: inline-block; min-width: 1.4em; text-align: center; border: 1px solid #999; border-radius: 4px;
      margin-right: .6em; background: #f2f2f2 }
#tools { display: flex; gap: .6em; justify-content: center; align-items: center }
progress { width: 100% }
.quiet { color: #666; font-size: 14px }
</style>
<p id="question"></p>
<div id="stage"><img id="picture" alt="the image to judge"></div>
<div id="keys"></div>
<progress id="bar" value="0"></progress>
<p class="quiet"><span id="count"></span> Answers stay in this browser until you save them.</p>
<div id="tools">
<button id="back"><kbd>&#9003;</kbd>Back</button>
<button id="save">Save answers</button>
<label class="quiet">Go on from a file: <input id="load" type="file" accept=".json"></label>
</div>
<script>
const content = CONTENT;
const items = content.items, store = "snoopi-" + content.images + "-" + content.order;
let answers = {};
const byId = id => document.getElementById(id);
const escape = text => { const e = document.createElement("span"); e.textContent = text; return e.innerHTML; };
function remember() { try { localStorage.setItem(store, JSON.stringify(answers)); } catch (e) { /* private window */ } }
function recall() { try { return JSON.parse(localStorage.getItem(store)) || {}; } catch (e) { return {}; } }
function current() { return items.findIndex(item => !(item.id in answers)); }
function show() {
  const n = current(), done = n < 0 ? items.length : n, item = items[done];
  byId("bar").max = items.length; byId("bar").value = Object.keys(answers).length;
  byId("count").textContent = Object.keys(answers).length + " of " + items.length + " judged.";
  byId("back").disabled = done === 0;
  byId("keys").replaceChildren();
  if (!item) {
    byId("question").textContent = "All images are judged. Save the answers, and thank you.";
    byId("picture").style.visibility = "hidden";
    return;
  }
  byId("picture").style.visibility = "hidden";  // until it is there: the one before must not be judged for it
  byId("picture").src = item.src;
  if (items[done + 1]) new Image().src = items[done + 1].src;
  byId("question").innerHTML = "Prompt: <b>" + escape(item.prompt) + "</b>. Unwanted: <b>" + escape(item.not) + "</b>.";
  for (const [key, text] of Object.entries(content.keys)) {
    const button = document.createElement("button");
    button.innerHTML = "<kbd>" + key + "</kbd>" + text.replace("{negative}", () => escape(item.not));
    button.onclick = () => answer(key);
    byId("keys").append(button);
  }
}
function seen() { return byId("picture").style.visibility === "visible"; }
byId("picture").onload = () => { byId("picture").style.visibility = "visible"; };
byId("picture").onerror = () => {
  byId("question").textContent = "The image " + byId("picture").src + " cannot be shown. Is the page where it was " +
    "written, and are the images? It cannot be judged unseen.";
};
function answer(key) {
  const n = current();
  if (n < 0 || !seen() || !(key in content.keys)) return;
  answers[items[n].id] = key;
  remember(); show();
}
function back() {
  const n = current(), last = (n < 0 ? items.length : n) - 1;
  if (last < 0) return;
  delete answers[items[last].id];
  remember(); show();
}
byId("back").onclick = back;
byId("save").onclick = () => {
  const text = JSON.stringify({ images: content.images, order: content.order, answers }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "answers.json"; link.click();
};
byId("load").onchange = async event => {
  try {
    const given = JSON.parse(await event.target.files[0].text());
    if (given.images !== content.images) throw new Error("they are about other images");
    Object.assign(answers, given.answers); remember(); show();
  } catch (error) { alert("These answers cannot be used: " + error.message); }
};
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;  // a key held down is one answer
  if (event.key === "Backspace") { event.preventDefault(); back(); } else answer(event.key);
});
answers = recall(); show();
</script>
</html>
"""
