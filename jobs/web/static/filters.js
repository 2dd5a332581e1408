// Filters: three panels that set them, and chips that show and remove what is set. A filter is a part of the state; the
// panels call `change` with the parts to change, and `show` makes them agree with the state again.

import * as api from "./api.js";
import { button, byId, icon, make } from "./dom.js";
import { count } from "./format.js";

const MOST_SHOWN = 200; // labels at once: more than that is for the filter box
const PRESETS = [
  { words: "under 30 s", min: null, max: 30 },
  { words: "30 s to 5 min", min: 30, max: 300 },
  { words: "over 5 min", min: 300, max: null },
  { words: "any", min: null, max: null },
];
const PANELS = ["labels", "duration", "where"];

let known = null; // labels with counts, once asked for
let change = () => {};
let shownState = null;

/**
 * Brings the filters to life.
 * @param {function(Object): void} onChange gets the parts of the state to change
 */
export function startFilters(onChange) {
  change = onChange;
  for (const name of PANELS) byId(`open-${name}`).addEventListener("click", () => toggle(name));
  byId("label-filter").addEventListener("input", listLabels);
  byId("duration-presets").append(...PRESETS.map(({ words, min, max }) => button({ words, class: "chip", on: () => change({ min, max }) })));
  byId("duration-form").addEventListener("submit", (event) => {
    event.preventDefault();
    change({ min: seconds("duration-min"), max: seconds("duration-max") });
  });
  byId("where-form").addEventListener("submit", (event) => {
    event.preventDefault();
    change({ where: byId("where").value.trim() });
  });
}

function seconds(id) {
  const { value } = byId(id);
  return value === "" || Number(value) < 0 ? null : Number(value);
}

/** Opens a panel and closes the others, or closes it. */
export function toggle(name, open = byId(`panel-${name}`).hidden) {
  for (const each of PANELS) {
    const shown = each === name && open;
    byId(`panel-${each}`).hidden = !shown;
    byId(`open-${each}`).setAttribute("aria-expanded", String(shown));
  }
  if (!open) return;
  if (name === "labels") loadLabels();
  if (name === "where") loadColumns();
  byId(`panel-${name}`).querySelector("input")?.focus();
}

/** Closes the panel that is open; whether there was one. The focus goes back to what opened it. */
export function closePanel() {
  const open = PANELS.find((name) => !byId(`panel-${name}`).hidden);
  if (!open) return false;
  const inside = byId(`panel-${open}`).contains(document.activeElement);
  toggle(open, false);
  if (inside) byId(`open-${open}`).focus();
  return true;
}

/** The labels of the archive, asked for once. Rejects with a Trouble. */
export async function labels() {
  known ??= (await api.labels()).labels;
  return known;
}

async function loadLabels() {
  try {
    await labels();
    listLabels();
  } catch (error) {
    byId("label-note").textContent = error.message;
  }
}

function listLabels() {
  if (!known) return;
  const wanted = byId("label-filter").value.trim().toLowerCase();
  const fit = merged(known).filter(({ label }) => label.toLowerCase().includes(wanted));
  byId("label-list").replaceChildren(...fit.slice(0, MOST_SHOWN).map(labelButton));
  byId("label-note").textContent = labelNote(fit.length);
}

/** One row a label: it may be of several label sets, and a filter by its name finds them all. */
function merged(rows) {
  const clips = new Map();
  rows.forEach((row) => clips.set(row.label, (clips.get(row.label) ?? 0) + row.clips));
  return [...clips].map(([label, number]) => ({ label, clips: number }));
}

function labelNote(fitting) {
  if (!known.length) return "No clip has a label yet: “footage tag ARCHIVE LABELS” gives them some.";
  if (!fitting) return "No label has these letters.";
  return fitting > MOST_SHOWN ? `and ${count(fitting - MOST_SHOWN)} more: type some letters of the one you mean` : "";
}

function labelButton({ label, clips }) {
  const chosen = shownState.labels.includes(label);
  const on = () => change({ labels: chosen ? shownState.labels.filter((each) => each !== label) : [...shownState.labels, label] });
  const node = button({ class: "chip", on, "aria-pressed": String(chosen) });
  node.append(make("span", { text: label }), make("span", { class: "count", text: count(clips) }));
  return make("li", {}, node);
}

async function loadColumns() {
  if (byId("columns").childElementCount) return;
  try {
    showColumns((await api.stats()).columns);
  } catch {
    // a condition can be written without the list; a wrong one comes back with it
  }
}

function showColumns(columns) {
  byId("columns").replaceChildren(...columns.map((column) => make("li", {}, button({ words: column, class: "chip code", on: () => insert(column) }))));
}

function insert(column) {
  const field = byId("where");
  field.setRangeText(column, field.selectionStart, field.selectionEnd, "end");
  field.focus();
}

/**
 * Tells what is wrong with the condition, or nothing.
 * @param {{message: string, columns: string[]}|null} trouble
 */
export function showWhereProblem(trouble) {
  const place = byId("where-problem");
  place.textContent = briefly(trouble?.message ?? "");
  place.hidden = !trouble;
  byId("where").setAttribute("aria-invalid", String(Boolean(trouble)));
  if (!trouble) return;
  showColumns(trouble.columns);
  if (byId("panel-where").hidden) toggle("where", true);
}

/** What the server says of a condition, without the name of the option and the columns, which are listed below it. */
function briefly(detail) {
  return detail.replace(/^--where /, "").replace(/ on columns of videos: [^]*$/, ".");
}

/**
 * Makes chips and panels agree with a state.
 * @param {import("./state.js").State} state
 * @param {File|null} picture that is searched with
 * @param {function(): void} dropPicture
 */
export function showFilters(state, picture, dropPicture) {
  const before = shownState;
  shownState = state;
  listLabels();
  // Only what changed: a search that begins while a condition is typed must leave the field to who types.
  for (const [id, name] of [["where", "where"], ["duration-min", "min"], ["duration-max", "max"]]) {
    if (before?.[name] !== state[name]) byId(id).value = state[name] ?? "";
  }
  const chips = [
    picture && chip(`like ${picture.name}`, dropPicture, thumb(URL.createObjectURL(picture), true)),
    state.like && chip("like this moment", () => change({ like: "" }), thumb(`/thumbnails/${encodeURIComponent(state.like)}`)),
    ...state.labels.map((label) => chip(label, () => change({ labels: state.labels.filter((each) => each !== label) }))),
    (state.min !== null || state.max !== null) && chip(durationWords(state), () => change({ min: null, max: null })),
    state.where && chip(state.where, () => change({ where: "" }), null, "code"),
  ].filter(Boolean);
  byId("chips").replaceChildren(...chips);
}

function durationWords({ min, max }) {
  if (min === null) return `up to ${max} s`;
  return max === null ? `from ${min} s` : `${min} to ${max} s`;
}

function thumb(address, ours = false) {
  const image = make("img", { class: "chip-picture", src: address, alt: "" });
  if (ours) image.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
  return image;
}

function chip(words, remove, image = null, more = "") {
  const node = make("button", { type: "button", class: `chip active ${more}`, "aria-label": `Remove filter ${words}`, title: words, on: { click: remove } },
    image, make("span", { class: "chip-words", text: words }), icon("close"));
  return make("li", {}, node);
}
