"use strict";
// Data comes from files of this folder and reaches the page as text and attributes only, never as HTML.
const PAGE = 24;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const images = window.IMAGES;
const byId = new Map(images.map((image, place) => [image.id, place]));
const chunks = new Map();
const waiting = new Map();
const layers = Object.fromEntries([...document.querySelectorAll("[data-layer]")].map((box) => [box.dataset.layer, box]));
const comparing = images.some((image) => image.changed !== null);
const hasTexts = images.some((image) => image.said.length);
const hasTruth = images.some((image) => image.missed !== null);
let shown = [];
let page = 0;
let open = null;

window.loaded = (chunk, part) => {
  chunks.set(chunk, part);
  waiting.get(chunk)?.resolve(part);
};

function details(image) {
  if (chunks.has(image.chunk)) return Promise.resolve(chunks.get(image.chunk)[image.id]);
  if (!waiting.has(image.chunk)) {
    const entry = {};
    entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    waiting.set(image.chunk, entry);
    const script = document.createElement("script");
    script.src = `data/images-${String(image.chunk).padStart(4, "0")}.js`;
    script.onerror = () => entry.reject(new Error(`${script.src} is missing`));
    document.head.append(script);
  }
  return waiting.get(image.chunk).promise.then((part) => part[image.id]);
}

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

function picture(image, masks, truth, label) {
  const frame = node("div", { class: "frame" });
  if (!image.src) {
    frame.append(node("p", { class: "placeholder" }, image.trouble || "no photograph"));
    return frame;
  }
  const svg = shape("svg", { viewBox: `0 0 ${image.w} ${image.h}`, role: "img", "aria-label": label }, frame);
  shape("image", { href: image.src, width: image.w, height: image.h, preserveAspectRatio: "none" }, svg);
  const radius = Math.max(image.w, image.h) / 110;
  masks.forEach((mask, rank) => {
    if (layers.soft.checked && mask.soft) {
      shape("image", { href: mask.soft, width: image.w, height: image.h, preserveAspectRatio: "none", class: "soft", "data-rank": rank }, svg);
    }
  });
  for (let rank = masks.length - 1; rank >= 0; rank--) {
    const mask = masks[rank];
    const about = { "data-rank": rank };
    if (layers.masks.checked) {
      const path = shape("path", { ...about, class: "mask", d: mask.d, fill: mask.color, stroke: mask.color }, svg);
      if (mask.texts) shape("title", {}, path).textContent = spoken(mask);
    }
    if (layers.boxes.checked) {
      const [x, y, width, height] = mask.box;
      shape("rect", { ...about, class: "box", x, y, width, height, stroke: mask.color }, svg);
    }
    if (layers.seeds.checked && mask.seed) shape("circle", { ...about, class: "seed", cx: mask.seed[0], cy: mask.seed[1], r: radius, fill: mask.color }, svg);
  }
  if (truth && layers.truth.checked) {
    for (const one of truth) {
      const path = shape("path", { class: one.iou ? "truth" : "truth missed", d: one.d }, svg);
      shape("title", {}, path).textContent = `${one.label}: ${one.iou ? `found, IoU ${one.iou}` : "missed"}`;
    }
  }
  return frame;
}

function sides(image, detail) {
  const count = (masks) => `${masks.length} masks on ${image.name}`;
  const made = node("div", { class: "sides" }, picture(image, detail.masks, detail.truth, count(detail.masks)));
  if (comparing) {
    const other = detail.other;
    made.append(
      other
        ? picture(image, other, detail.truth, `the other data set: ${count(other)}`)
        : node("div", { class: "frame" }, node("p", { class: "placeholder" }, detail.change.note)),
    );
  }
  return made;
}

function spoken(mask) {
  return (mask.texts ?? []).map((one) => (one.score === null ? one.text : `${one.text} (${one.score.toFixed(3)})`)).join(" · ");
}

function summary(image) {
  const parts = [image.status === "ok" ? `${image.n} mask${image.n === 1 ? "" : "s"}, best ${image.score.toFixed(2)}` : image.status];
  if (image.changed !== null) parts.push(`change ${image.changed.toFixed(2)}`);
  if (image.missed !== null) parts.push(`${image.missed} missed`);
  return parts.join(" · ");
}

function choose() {
  const text = $("search").value.trim().toLowerCase();
  const [least, score, area] = ["least", "score", "area"].map((id) => Number($(id).value) || 0);
  const status = $("status").value;
  const key = $("sort").value;
  shown = images.filter(
    (image) =>
      (!text || image.name.toLowerCase().includes(text) || image.id === text || image.said.some((said) => said.toLowerCase().includes(text))) &&
      (!status || image.status === status) &&
      image.n >= least && image.score >= score && image.area >= area,
  );
  if (key === "name") shown.sort((a, b) => a.name.localeCompare(b.name));
  else if (key) shown.sort((a, b) => (b[key] ?? -1) - (a[key] ?? -1));
}

async function draw() {
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  const here = shown.slice(page * PAGE, (page + 1) * PAGE);
  $("found").textContent = `${shown.length} of ${images.length} images`;
  $("page").textContent = `${page + 1} / ${pages}`;
  $("previous").disabled = page === 0;
  $("next").disabled = page === pages - 1;
  const cards = here.map((image) => {
    const place = node("div", { class: "sides" });
    const text = node("div", { class: "text" }, node("span", { class: "name", title: image.name }, image.name), summary(image));
    if (image.said.length) text.append(node("span", { class: "said", title: image.said.join("\n") }, image.said.join(" · ")));
    const card = node("li", {}, node("a", { href: `#/image/${image.id}` }, place, text));
    details(image).then(
      (detail) => place.replaceWith(sides(image, detail)),
      (error) => place.replaceWith(node("p", { class: "placeholder" }, error.message)),
    );
    return card;
  });
  $("grid").replaceChildren(...cards);
  $("grid").classList.toggle("two", comparing);
}

async function show(image) {
  open = image;
  $("view-title").textContent = `${image.name} (${image.id})`;
  const detail = await details(image);
  if (open !== image) return;
  const drawn = sides(image, detail);
  $("stage").replaceChildren(drawn);
  const truth = detail.truth ? `, ${detail.truth.length} annotated objects` : "";
  $("told").textContent = `${image.w} × ${image.h}, ${summary(image)}${truth}${image.trouble && image.src ? `, ${image.trouble}` : ""}`;
  $("masks").tBodies[0].replaceChildren(
    ...detail.masks.map((mask, rank) => {
      const key = node("span", { class: "key first", style: `background:${mask.color}` });
      const row = node("tr", { tabindex: "0" }, node("td", {}, key, `${rank}`));
      for (const value of [mask.score.toFixed(3), mask.raw?.toFixed(3) ?? "", `${(100 * mask.area).toFixed(2)} %`, mask.scale ?? ""]) row.append(node("td", {}, `${value}`));
      if (hasTexts) row.append(node("td", { class: "said" }, spoken(mask)));
      const first = drawn.firstElementChild;
      const light = (on) => first.querySelectorAll("[data-rank]").forEach((part) => part.classList.toggle("faint", on && part.dataset.rank !== `${rank}`));
      for (const [event, on] of [["mouseenter", true], ["focus", true], ["mouseleave", false], ["blur", false]]) row.addEventListener(event, () => light(on));
      return row;
    }),
  );
  const place = shown.indexOf(image);
  $("before").disabled = place <= 0;
  $("after").disabled = place < 0 || place === shown.length - 1;
  if (!$("view").open) $("view").showModal();
}

function step(by) {
  const next = shown[shown.indexOf(open) + by];
  if (next) location.hash = `#/image/${next.id}`;
}

function route() {
  const found = location.hash.match(/^#\/image\/(-?\d+)$/);
  const place = found ? byId.get(found[1]) : undefined;
  if (place !== undefined) show(images[place]);
  else {
    open = null;
    if ($("view").open) $("view").close();
  }
}

function close() {
  if (open) history.replaceState(null, "", "#gallery");
  route();
}

function redraw() {
  draw();
  if (open) show(open);
}

for (const id of ["search", "status", "least", "score", "area", "sort"]) {
  $(id).addEventListener("input", () => { page = 0; choose(); draw(); });
}
for (const box of Object.values(layers)) box.addEventListener("change", redraw);
document.querySelector("#masks th.said").hidden = !hasTexts;
layers.truth.parentElement.hidden = !hasTruth;
$("previous").addEventListener("click", () => { page--; draw(); });
$("next").addEventListener("click", () => { page++; draw(); });
$("before").addEventListener("click", () => step(-1));
$("after").addEventListener("click", () => step(1));
$("close").addEventListener("click", close);
$("view").addEventListener("close", close);
addEventListener("hashchange", route);
addEventListener("keydown", (event) => {
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  const layer = { m: "masks", b: "boxes", s: "seeds", h: "soft", t: "truth" }[event.key];
  if (layer) { layers[layer].checked = !layers[layer].checked; redraw(); }
  else if (open && event.key === "ArrowRight") step(1);
  else if (open && event.key === "ArrowLeft") step(-1);
  else if (!open && event.key === "n" && !$("next").disabled) { page++; draw(); }
  else if (!open && event.key === "p" && !$("previous").disabled) { page--; draw(); }
  else if (!open && event.key === "/") { event.preventDefault(); $("search").focus(); }
});
choose();
draw();
route();
