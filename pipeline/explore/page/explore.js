"use strict";
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const sliders = ["tau", "coefficient", "short"];
const layer = {};
let about = null;
let state = null;
let place = [0.5, 0.5];
let asking = false;
let again = false;

function shape(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

async function get(path, parameters = {}) {
  const answer = await fetch(`${path}?${new URLSearchParams(parameters)}`);
  const content = await answer.json();
  $("error").hidden = answer.ok;
  if (!answer.ok) {
    $("error").textContent = content.error;
    throw new Error(content.error);
  }
  return content;
}

const settings = () => ({ image: $("image").value, ...Object.fromEntries(sliders.map((id) => [id, $(id).value])) });

async function compute() {
  $("busy").hidden = false;
  try {
    state = await get("state", settings());
  } finally {
    $("busy").hidden = true;
  }
  const picture = $("picture");
  picture.setAttribute("viewBox", `0 0 ${state.width} ${state.height}`);
  picture.replaceChildren();
  shape("image", { href: `photograph/${$("image").value}.jpg`, width: state.width, height: state.height, preserveAspectRatio: "none" }, picture);
  layer.map = shape("image", { id: "map", width: state.width, height: state.height, preserveAspectRatio: "none" }, picture);
  layer.survivors = shape("g", {}, picture);
  state.survivors.forEach((one, rank) => shape("path", { class: "survivor", d: one.d, stroke: one.color, fill: one.color, "fill-opacity": 0, "data-rank": rank }, layer.survivors));
  layer.own = shape("path", { class: "own" }, picture);
  layer.cell = shape("rect", { class: "cell" }, picture);
  const chosen = $("scale").value;
  $("scale").replaceChildren(...state.scales.map((one, index) => new Option(`${one.scale || "grid"}: ${one.rows} × ${one.columns} seeds`, index)));
  $("scale").value = chosen && chosen < state.scales.length ? chosen : 0;
  $("all").textContent = `${state.seeds} seeds on a ${state.grid[0]} × ${state.grid[1]} grid gave ${state.candidates} masks; ${state.survivors.length} are kept. Computed in ${state.seconds.toFixed(2)} s.`;
  $("command").textContent = [about.command, ...state.departs.map((one) => `--set ${one}`)].join(" ");
  layers();
  await ask();
}

async function ask() {
  if (!state) return;
  if (asking) { again = true; return; }
  asking = true;
  try {
    do {
      again = false;
      const answer = await get("seed", { ...settings(), x: place[0], y: place[1], scale: $("scale").value || 0 });
      tell(answer);
    } while (again);
  } finally {
    asking = false;
  }
}

function tell(answer) {
  layer.map.setAttribute("href", answer.map);
  layer.own.setAttribute("d", answer.d);
  const [x, y, width, height] = answer.box;
  for (const [key, value] of Object.entries({ x, y, width, height })) layer.cell.setAttribute(key, value);
  const fate = answer.fate;
  const told = fate.kind === "survivor" || fate.iou > 0 ? fate.rank : null;
  for (const path of layer.survivors.children) path.classList.toggle("told", Number(path.dataset.rank) === told);
  const words = {
    survivor: `It is survivor ${fate.rank}.`,
    low: "Its maskness is below the score that the end demands: it is left out before NMS.",
    swallowed: "NMS lowered its score, since better masks overlap it.",
    filtered: "NMS left it, but it is beyond the number of masks, or filtered by its place or size.",
    "no mask": "Too few cells are above the threshold: no mask.",
  };
  const nearest = fate.iou > 0 ? ` Survivor ${fate.rank} shows most of it (IoU ${fate.iou}).` : "";
  $("seed").textContent = `Cell ${answer.cell.join(", ")}: ${answer.cells} cells above the threshold, maskness ${answer.maskness.toFixed(3)}, after NMS ${answer.score.toFixed(3)}. ${words[fate.kind]}${nearest}`;
  $("seed").dataset.seed = answer.seed;
}

function layers() {
  layer.map.style.display = $("with-map").checked ? "" : "none";
  layer.own.style.display = $("with-mask").checked ? "" : "none";
  layer.survivors.style.display = $("with-survivors").checked ? "" : "none";
}

function values() {
  for (const id of sliders) $(`${id}-is`).textContent = $(id).value;
}

function point(event) {
  if (!state) return;
  const inside = new DOMPoint(event.clientX, event.clientY).matrixTransform($("picture").getScreenCTM().inverse());
  place = [inside.x / state.width, inside.y / state.height].map((v) => Math.min(Math.max(v, 0), 0.99999));
  ask().catch(() => {});
}

function move(event) {
  const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!by || !state) return;
  event.preventDefault();
  const scale = state.scales[$("scale").value];
  place = [place[0] + by[0] / scale.columns, place[1] + by[1] / scale.rows].map((v) => Math.min(Math.max(v, 0), 0.99999));
  ask().catch(() => {});
}

async function begin() {
  about = await get("about");
  $("image").replaceChildren(...about.images.map((name, index) => new Option(name, index)));
  for (const id of sliders) $(id).value = about[id];
  $("coefficient-label").hidden = !about.matrix;
  values();
  $("picture").addEventListener("pointermove", point);
  $("picture").addEventListener("pointerdown", point);
  $("stage").addEventListener("keydown", move);
  $("scale").addEventListener("change", () => ask().catch(() => {}));
  $("image").addEventListener("change", () => compute().catch(() => {}));
  for (const id of sliders) {
    $(id).addEventListener("input", values);
    $(id).addEventListener("change", () => compute().catch(() => {}));
  }
  for (const id of ["with-map", "with-mask", "with-survivors"]) $(id).addEventListener("change", layers);
  $("copy").addEventListener("click", () => navigator.clipboard.writeText($("command").textContent));
  await compute();
}

begin().catch((error) => {
  $("error").hidden = false;
  $("error").textContent = error.message;
});
