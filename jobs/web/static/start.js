// The page before any search: what the archive holds, some of its labels, searches to try, and the newest videos.

import * as api from "./api.js";
import { button, byId, make } from "./dom.js";
import { labels } from "./filters.js";
import { count, counted, length, size } from "./format.js";
import { keepTabbable, skeletons, videoCard } from "./grid.js";
import { showTrouble } from "./messages.js";

const SOME_LABELS = 12;
const EXAMPLES = 4;

let stop = new AbortController();

/**
 * Fills the start page.
 * @param {{search: function(string): void, label: function(string): void, open: function(string): void, link: function(string): void}} act
 */
export async function showStart(act) {
  stop.abort();
  stop = new AbortController();
  const { signal } = stop;
  const place = byId("start");
  if (!place.childElementCount) place.replaceChildren(make("ul", { class: "grid" }, ...skeletons(8)));
  try {
    const [stats, known, newest] = await Promise.all([api.stats(signal), labels(), api.videos({}, signal)]);
    place.replaceChildren(hero(stats), ...suggestions(known, act), ...videoList(newest, act));
    keepTabbable();
  } catch (error) {
    if (api.isStale(error)) return;
    place.replaceChildren();
    byId("results").hidden = false;
    showTrouble(error, () => (byId("results").hidden = true, showStart(act)));
  }
}

function hero(stats) {
  const facts = [
    [length(stats.footage_s), "of footage"], [count(stats.videos), stats.videos === 1 ? "video" : "videos"],
    [count(stats.clips), "searchable clips"], [size(stats.size_bytes), "archive"],
  ];
  return make("div", { class: "hero" },
    make("h1", { text: "Find the moment" }),
    make("p", { class: "lead", text: stats.clips ? "Describe what happens, or drop a picture." : "The archive is empty: “footage index VIDEOS ARCHIVE” fills it." }),
    make("dl", { class: "facts" }, ...facts.map(([value, name]) => make("div", {}, make("dt", { text: name }), make("dd", { text: value })))),
    make("p", { class: "faint", text: [stats.model && `Model ${stats.model}`, stats.indexed_at && `indexed ${when(stats.indexed_at)}`].filter(Boolean).join(" · ") }));
}

function when(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

function suggestions(known, act) {
  const names = [...new Set(known.map((row) => row.label))];
  if (!names.length) return [];
  const examples = [...names.slice(0, EXAMPLES - 1), ...(names.length > 1 ? [`${names[0]}, then ${names[1]}`] : [])];
  return [
    make("section", { class: "suggest" }, make("h2", { text: "Try" }), make("div", { class: "row" }, ...examples.map((text) =>
      button({ words: text, icon: "search", class: "chip", on: () => act.search(text) })))),
    make("section", { class: "suggest" }, make("h2", { text: "Labels" }), make("div", { class: "row" }, ...names.slice(0, SOME_LABELS).map((label) => {
      const node = button({ class: "chip", on: () => act.label(label) });
      const clips = known.filter((row) => row.label === label).reduce((sum, row) => sum + row.clips, 0);
      node.append(make("span", { text: label }), make("span", { class: "count", text: count(clips) }));
      return node;
    }))),
  ];
}

function videoList(first, act) {
  const grid = make("ul", { class: "grid" });
  const title = make("h2", { text: "Newest videos" });
  const field = make("input", { class: "field", type: "search", placeholder: "Find a video by name", "aria-label": "Find a video by name", autocomplete: "off" });
  const more = button({ words: "Show more videos", on: () => load(shown + 1) });
  let [shown, timer] = [1, 0];

  function put(page) {
    const cards = page.videos.map((video) => videoCard(video, (what) => (what === "open" ? act.open : act.link)(video.video_id)));
    if (page.page === 1) grid.replaceChildren(...cards);
    else grid.append(...cards);
    [shown, more.hidden] = [page.page, !page.has_more];
    title.textContent = field.value.trim() ? `${counted(page.total, "video")} of this name` : "Newest videos";
    keepTabbable();
  }

  async function load(page) {
    const asked = field.value;
    const found = await api.videos({ q: asked.trim(), page }).catch(() => null);
    if (found && asked === field.value) put(found);
  }

  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => load(1), 250);
  });
  put(first);
  return [make("div", { class: "section-head" }, title, field), grid, make("div", { class: "more" }, more)];
}
