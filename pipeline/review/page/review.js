"use strict";
// What comes from the data set reaches the page as text and attributes only, never as HTML.
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const tabs = new BroadcastChannel("saliency-prompt review");
const undo = [];
let total = 0;
let image = null;
let chosen = ""; // key of a mask, empty for the image
let work = Promise.resolve();

function shape(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function tell(sentence) {
  $("error").hidden = !sentence;
  $("error").textContent = sentence;
}

// One thing after another: keys pressed in haste are not lost, and each knows what the one before it left.
function queue(task) {
  work = work.then(task).catch((error) => tell(error.message));
  return work;
}

async function get(path) {
  const answer = await fetch(path);
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function tally(found) {
  total = found.images;
  $("progress").textContent = `${found.images} images: ${found.image_accept} accepted, ${found.image_reject} rejected; masks: ${found.mask_accept} accepted, ${found.mask_reject} rejected`;
  $("known").replaceChildren(...found.tags.map((tag) => node("option", { value: tag })));
}

async function open(place) {
  image = await get(`image/${place}`);
  chosen = "";
  history.replaceState(null, "", `#/image/${image.id}`);
  draw();
}

function draw() {
  const picture = $("picture");
  picture.replaceChildren();
  picture.setAttribute("viewBox", `0 0 ${image.w} ${image.h}`);
  const photograph = shape("image", { href: `photograph/${image.place}.jpg`, width: image.w, height: image.h, preserveAspectRatio: "none" }, picture);
  $("trouble").hidden = true;
  photograph.addEventListener("error", trouble);
  for (const mask of [...image.masks].sort((a, b) => b.area - a.area)) { // the small ones can be clicked
    const path = shape("path", { class: "mask", d: mask.d, fill: mask.color, stroke: mask.color, "data-key": mask.key }, picture);
    path.addEventListener("click", () => choose(mask.key));
  }
  $("place").textContent = `${image.place + 1} of ${total}: ${image.name}`;
  mark();
}

async function trouble() {
  const answer = await fetch(`photograph/${image.place}.jpg`);
  if (answer.ok) return;
  $("trouble").textContent = (await answer.json()).error;
  $("trouble").hidden = false;
}

function row(key, words, color) {
  const said = image.said[key];
  const made = node("li", { role: "option", "data-key": key, "aria-selected": key === chosen });
  if (color) made.append(node("span", { class: "key" }));
  if (color) made.firstChild.style.background = color;
  made.append(words);
  if (said.tags.length) made.append(node("span", { class: "tag" }, said.tags.join(", ")));
  if (said.verdict) made.append(node("span", { class: `verdict ${said.verdict}` }, `${said.verdict}ed`));
  made.addEventListener("click", () => choose(key));
  return made;
}

// What was said, on the picture and in the list.
function mark() {
  const rows = image.masks.map((mask, rank) => row(mask.key, `${rank + 1}  ${mask.label ?? "mask"} ${mask.score.toFixed(2)}, ${(100 * mask.area).toFixed(1)} %`, mask.color));
  $("items").replaceChildren(row("", "the image"), ...rows);
  $("stage").className = image.said[""].verdict ?? "";
  for (const path of $("picture").querySelectorAll(".mask")) {
    path.classList.toggle("chosen", path.dataset.key === chosen);
    path.classList.toggle("reject", image.said[path.dataset.key].verdict === "reject");
  }
  if (document.activeElement !== $("tags")) $("tags").value = image.said[chosen].tags.join(", ");
}

function choose(key) {
  chosen = key;
  mark();
  $("items").querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
}

async function say(target, mask, verdict, tags) {
  const before = target.said[mask];
  if (before.verdict === verdict && `${before.tags}` === `${tags}`) return true;
  const answer = await fetch("say", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ place: target.place, id: target.id, mask, verdict, tags, seen: before.version }),
  });
  const content = await answer.json();
  if (content.said) target.said[mask] = content.said;
  tell(answer.ok ? "" : content.error);
  if (answer.ok) {
    undo.push({ target, mask, before });
    tally(content);
    tabs.postMessage(target.id);
  }
  if (target === image) mark();
  return answer.ok;
}

const judge = (mask, verdict) => say(image, mask, verdict, image.said[mask].tags);

async function back() {
  const last = undo.pop();
  if (!last) return;
  if (last.target.id !== image.id) await open(last.target.place);
  chosen = last.mask;
  if (await say(image, last.mask, last.before.verdict, last.before.tags)) undo.pop(); // which is no step of its own
}

async function step(by) {
  const query = new URLSearchParams({ from: image.place + by, step: by, show: $("show").value, name: $("name").value });
  const { place } = await get(`find?${query}`);
  tell(place === null ? `There is no ${by > 0 ? "further" : "earlier"} image of this choice.` : "");
  if (place !== null) await open(place);
}

async function keepTags() {
  const tags = [...new Set($("tags").value.split(",").map((tag) => tag.trim()).filter(Boolean))];
  await say(image, chosen, image.said[chosen].verdict, tags);
}

// The image as others have left it meanwhile.
async function refresh() {
  const found = await get(`image/${image.place}`);
  if (found.id !== image.id) return;
  image.said = found.said;
  mark();
  tally(await get("about"));
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !image) return;
  if (event.target.id === "tags" && event.key === "Escape") event.target.blur();
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (/^(BUTTON|SUMMARY)$/.test(event.target.tagName) && event.key === " ") return;
  const all = ["", ...image.masks.map((mask) => mask.key)];
  const at = all.indexOf(chosen);
  const tasks = {
    a: () => judge(chosen, "accept"),
    r: () => judge(chosen, "reject"),
    c: () => judge(chosen, null),
    " ": async () => { if (await judge("", "accept")) await step(1); },
    x: async () => { if (await judge("", "reject")) await step(1); },
    z: back,
    ArrowRight: () => step(1), j: () => step(1),
    ArrowLeft: () => step(-1), k: () => step(-1),
    ArrowDown: () => choose(all[Math.min(at + 1, all.length - 1)]),
    ArrowUp: () => choose(all[Math.max(at - 1, 0)]),
    Escape: () => choose(""),
    m: () => $("stage").classList.toggle("bare"),
    t: () => $("tags").focus(),
  };
  const digit = /^[0-9]$/.test(event.key) ? all[Number(event.key)] : undefined;
  const task = digit === undefined ? tasks[event.key] : () => choose(digit);
  if (!task) return;
  event.preventDefault();
  queue(task);
}

async function begin() {
  const about = await get("about");
  $("where").textContent = `${about.dataset}, verdicts in ${about.file}`;
  tally(about);
  const wanted = location.hash.match(/^#\/image\/(\d+)$/);
  const found = wanted ? (await get(`find?id=${wanted[1]}`)).place : null;
  await open(found ?? (await get("find?show=open&from=0")).place ?? 0);
  addEventListener("keydown", pressed);
  $("before").addEventListener("click", () => queue(() => step(-1)));
  $("after").addEventListener("click", () => queue(() => step(1)));
  $("show").addEventListener("change", () => queue(first));
  $("name").addEventListener("change", () => queue(first));
  $("choice").addEventListener("submit", (event) => event.preventDefault());
  $("tagging").addEventListener("submit", (event) => {
    event.preventDefault();
    $("tags").blur();
  });
  $("tags").addEventListener("change", () => queue(keepTags));
  tabs.addEventListener("message", (event) => { if (event.data === image.id) queue(refresh); });
  addEventListener("focus", () => queue(refresh));
}

async function first() {
  const query = new URLSearchParams({ from: 0, show: $("show").value, name: $("name").value });
  const { place } = await get(`find?${query}`);
  tell(place === null ? "There is no image of this choice." : "");
  if (place !== null) await open(place);
}

queue(begin);
