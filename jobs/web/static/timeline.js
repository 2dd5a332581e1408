// A video as lanes over time: the moments that the search found, and below them the tags, a lane a label. Everything on
// it is a button that goes there; the bare ground of it goes where it is clicked.

import { button, make } from "./dom.js";
import { clock, span } from "./format.js";

const FEW_LANES = 6;
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];

/**
 * Draws the timeline of a video.
 * @param {HTMLElement} place
 * @param {{duration_s: number, tags: Object[]}} info
 * @param {Object[]} hits moments of this video, of the search, each with the `share` of its score
 * @param {function(number): void} seek
 */
export function drawTimeline(place, info, hits, seek) {
  const lengthS = Math.max(info.duration_s, 0.001);
  const lanes = tagLanes(info.tags, lengthS, seek);
  const shown = lanes.slice(0, FEW_LANES);
  const body = make("div", { class: "lanes" },
    scale(lengthS),
    lane(hits.length ? "Found" : "Found: none", "lane found", hits.map((hit) => hitBar(hit, lengthS, seek))),
    ...shown,
    make("span", { class: "playhead", "aria-hidden": "true" }));
  const more = lanes.length > shown.length
    ? button({ words: `All ${lanes.length} labels`, class: "text-button", on: (event) => (body.append(...lanes.slice(FEW_LANES)), event.currentTarget.remove()) })
    : null;
  body.addEventListener("click", (event) => {
    const track = event.target.closest(".track");
    if (!track || event.target.closest(".bar")) return;
    const box = track.getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * lengthS);
  });
  place.replaceChildren(body, ...(more ? [more] : []));
}

/**
 * Moves the playhead, and marks the moment it is in.
 * @param {HTMLElement} place
 * @param {number} timeS
 * @param {number} lengthS
 */
export function movePlayhead(place, timeS, lengthS) {
  place.style.setProperty("--at", String(Math.min(1, timeS / Math.max(lengthS, 0.001))));
  for (const bar of place.querySelectorAll(".bar")) {
    bar.classList.toggle("is-now", timeS >= Number(bar.dataset.start) && timeS < Number(bar.dataset.end));
  }
}

function lane(name, className, bars) {
  return make("div", { class: className, role: "group", "aria-label": name },
    make("span", { class: "lane-name", text: name, title: name, "aria-hidden": "true" }), make("div", { class: "track" }, ...bars));
}

function bar(piece, lengthS, { label, className, strength, seek }) {
  const start = Math.min(1, piece.start_s / lengthS);
  const vars = { start, width: Math.max(0, Math.min(1, piece.end_s / lengthS) - start), strength };
  return make("button", {
    type: "button", class: `bar ${className}`, "aria-label": label, title: label, vars,
    "data-start": piece.start_s, "data-end": piece.end_s, on: { click: () => seek(piece.start_s) },
  });
}

function hitBar(hit, lengthS, seek) {
  return bar(hit, lengthS, { label: `${span(hit)}, score ${hit.score.toFixed(1)}`, className: "hit", strength: hit.share, seek });
}

function tagLanes(tags, lengthS, seek) {
  const byLabel = Map.groupBy ? Map.groupBy(tags, (tag) => tag.label) : grouped(tags);
  const surest = (group) => Math.max(...group.map((tag) => tag.probability ?? 0));
  return [...byLabel]
    .sort((a, b) => surest(b[1]) - surest(a[1]) || a[0].localeCompare(b[0]))
    .map(([label, group]) => lane(label, "lane", group.map((tag) => tagBar(tag, lengthS, seek))));
}

function grouped(tags) {
  const groups = new Map();
  tags.forEach((tag) => groups.set(tag.label, [...(groups.get(tag.label) ?? []), tag]));
  return groups;
}

function tagBar(tag, lengthS, seek) {
  const sure = tag.probability === null ? "" : `, ${Math.round(tag.probability * 100)} %`;
  const label = `${tag.label}${sure}, ${span(tag)}`;
  return bar(tag, lengthS, { label, className: "tag", strength: 0.35 + 0.65 * (tag.probability ?? 1), seek });
}

function scale(lengthS) {
  const step = STEPS_S.find((each) => lengthS / each <= 6) ?? lengthS / 5;
  const marks = Array.from({ length: Math.floor(lengthS / step) + 1 }, (_, place) => place * step);
  const ticks = marks
    .filter((mark) => mark / lengthS < 0.97 || mark === 0)
    .map((mark) => make("span", { class: "tick code", text: clock(mark), vars: { start: mark / lengthS } }));
  return make("div", { class: "lane scale", "aria-hidden": "true" }, make("span", { class: "lane-name" }), make("div", { class: "track" }, ...ticks));
}
