// Moments and videos as cards, and moving among cards with the arrow keys. One card at a time is in the tab order: a
// page of two hundred of them is left with one Tab.

import { button, make, picture } from "./dom.js";
import { clock, counted, span } from "./format.js";
import { attachPreview } from "./preview.js";

/**
 * A card. `act` is called with "open", "like" or "link".
 * @param {{title: string, label: string, image: string|null, badge: string, extra?: Node[], more?: Node[]}} shown
 * @param {function(string): void} act
 */
function card(shown, act) {
  const open = make(
    "button",
    { type: "button", class: "card-open", "aria-label": shown.label, tabindex: -1, on: { click: () => act("open") } },
    make("span", { class: "frame" }, picture(shown.image), make("span", { class: "badge code", text: shown.badge })),
    make("span", { class: "card-text" }, make("span", { class: "card-name", text: shown.title }), ...(shown.extra ?? [])),
  );
  const node = make("li", { class: "card" }, open, ...(shown.more ?? []));
  node.addEventListener("card-act", (event) => act(event.detail));
  return node;
}

/**
 * The card of a moment.
 * @param {Object} hit as /search tells it
 * @param {number} share of the score bar, 0 to 1
 * @param {function(string): void} act
 */
export function momentCard(hit, share, act) {
  const score = hit.score.toFixed(1);
  const bar = make("span", { class: "score", title: `Score ${score}; the bar compares it with the other moments`, vars: { share } },
    make("span", { class: "score-bar", "aria-hidden": "true" }), make("span", { class: "score-number code", text: score }));
  const alike = hit.folded.length ? make("span", { class: "alike", text: `+${hit.folded.length} alike` }) : null;
  const shown = {
    title: hit.name,
    label: `${hit.name}, ${span(hit)}, score ${score}${hit.folded.length ? `, ${hit.folded.length} places alike` : ""}`,
    image: hit.thumbnail,
    badge: span(hit),
    extra: [make("span", { class: "card-line" }, bar, alike)],
    more: [make("div", { class: "card-acts" },
      button({ icon: "like", label: "More like this (m)", class: "quiet on-picture", on: () => act("like"), tabindex: -1 }),
      button({ icon: "link", label: "Copy link (c)", class: "quiet on-picture", on: () => act("link"), tabindex: -1 }))],
  };
  const node = card(shown, act);
  attachPreview(node, hit);
  return node;
}

/**
 * The card of a video.
 * @param {Object} video as /videos tells it
 * @param {function(string): void} act
 */
export function videoCard(video, act) {
  const about = `${counted(video.clip_count, "clip")} · ${video.width} × ${video.height}`;
  return card({
    title: video.name,
    label: `${video.name}, ${clock(video.duration_s)}`,
    image: video.thumbnail,
    badge: clock(video.duration_s),
    extra: [make("span", { class: "card-line faint", text: about })],
  }, act);
}

/**
 * Cards that stand for moments on their way.
 * @param {number} number
 */
export function skeletons(number) {
  return Array.from({ length: number }, () => make("li", { class: "card skeleton", "aria-hidden": "true" },
    make("span", { class: "frame" }), make("span", { class: "line" }), make("span", { class: "line brief" })));
}

const cards = () => [...document.querySelectorAll(".card-open")].filter((each) => each.offsetParent !== null);

/** The card that has the focus, or null. */
export function focusedCard() {
  return document.activeElement?.closest(".card:not(.skeleton)") ?? null;
}

/** Lets Tab reach one card: the first, unless one of them is reached already. */
export function keepTabbable() {
  const all = cards();
  if (all.length && !all.some((each) => each.tabIndex === 0)) setTabbable(all[0]);
}

function setTabbable(open) {
  document.querySelectorAll(".card button[tabindex='0']").forEach((each) => (each.tabIndex = -1));
  open.closest(".card").querySelectorAll("button").forEach((each) => (each.tabIndex = 0));
}

/** Puts the focus on a card. */
export function focusCard(open) {
  setTabbable(open);
  open.focus({ preventScroll: true });
  open.scrollIntoView({ block: "nearest" });
}

/** Puts the focus on the first card; whether there is one. */
export function focusFirst() {
  const [first] = cards();
  if (first) focusCard(first);
  return Boolean(first);
}

// How far along an arrow's way b is from a, and how far off it.
const across = (sign) => ({ along: (a, b) => sign * (b.x - a.x), off: (a, b) => Math.abs(a.y - b.y), reach: 0.5 });
const down = (sign) => ({ along: (a, b) => sign * (b.y - a.y), off: (a, b) => Math.abs(a.x - b.x), reach: Infinity });
const WAYS = { ArrowLeft: across(-1), ArrowRight: across(1), ArrowUp: down(-1), ArrowDown: down(1) };

/**
 * Moves the focus to the nearest card that way; along a row, past its end to the next one.
 * @param {string} key
 * @returns {boolean} whether there was a card to go to
 */
export function move(key) {
  const all = cards();
  const from = focusedCard()?.querySelector(".card-open");
  if (!from) return key === "ArrowDown" || key === "ArrowRight" ? focusFirst() : false;
  const target = nearest(all, from, WAYS[key]) ?? beyondRow(all, from, key);
  if (target) focusCard(target);
  return Boolean(target);
}

function nearest(all, from, { along, off, reach }) {
  const middle = (each) => {
    const box = each.getBoundingClientRect();
    return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
  };
  const [here, height] = [middle(from), from.getBoundingClientRect().height];
  const ahead = all
    .map((each) => ({ each, on: along(here, middle(each)), off: off(here, middle(each)) }))
    .filter((place) => place.on > 4 && place.off < reach * height);
  const least = Math.min(...ahead.map((place) => place.on));
  const next = ahead.filter((place) => place.on < least + height / 2); // one row, or one column
  return next.sort((a, b) => a.off - b.off || a.on - b.on)[0]?.each ?? null;
}

function beyondRow(all, from, key) {
  if (key === "ArrowRight") return all[all.indexOf(from) + 1] ?? null;
  if (key === "ArrowLeft") return all[all.indexOf(from) - 1] ?? null;
  return null;
}

document.addEventListener("focusin", (event) => {
  const open = event.target.closest?.(".card")?.querySelector(".card-open");
  if (open) setTabbable(open);
});
