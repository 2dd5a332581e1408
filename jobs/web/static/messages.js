// What the page says in words: how many moments there are, that nothing was found and what may help, and what is wrong.

import { button, byId, make } from "./dom.js";
import { count, counted } from "./format.js";

let toastTimer = 0;

/** Says something to screen readers only. */
export function announce(text) {
  byId("live").textContent = text;
}

/** Says something for a while. */
export function toast(text) {
  const place = byId("toast");
  place.textContent = text;
  place.classList.add("is-shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => place.classList.remove("is-shown"), 4000);
}

/**
 * Says that the server is busy and is asked again; 0 seconds takes it back.
 * @param {number} seconds
 */
export function noteWait(seconds) {
  const place = byId("wait-note");
  place.textContent = seconds ? `The server is busy. Asking again in ${Math.ceil(seconds)} s …` : "";
  place.hidden = !seconds;
}

/**
 * A sentence above the moments.
 * @param {Object} answer as /search tells it
 * @param {number} shown moments so far
 */
export function summaryOf(answer, shown) {
  const held = answer.left_out ? ` · ${counted(answer.left_out, "more moment")} of the same videos left out` : "";
  const all = answer.has_more ? `The first ${counted(shown, "moment")}` : counted(shown, "moment");
  return `${all} for “${answer.query}” · ${counted(answer.searched, "clip")} in ${count(Math.round(answer.took_s * 1000))} ms${held}`;
}

/**
 * Puts a message where the moments would be; without a title there is none.
 * @param {string} title
 * @param {string[]} lines
 * @param {{words: string, on: Function}[]} ways out
 */
export function showMessage(title = "", lines = [], ways = []) {
  const place = byId("message");
  place.hidden = title === "";
  place.replaceChildren();
  if (!title) return;
  place.append(make("h2", { text: title }), ...lines.map((text) => make("p", { text })),
    make("div", { class: "row" }, ...ways.map(({ words, on }, rank) => button({ words, on, class: rank ? "button" : "button primary" }))));
}

/**
 * Says that there is nothing, and what may help.
 * @param {{filtered: boolean, clear: Function, home: Function}} about
 */
export function showNothing({ filtered, clear, home }) {
  const lines = filtered
    ? ["No moment passes all filters. Without them there is likely something."]
    : ["Try fewer or plainer words: say what is seen and how it moves, as in “a red circle moves to the left”.",
       "What is only heard or written on a sign is not searched."];
  const ways = filtered ? [{ words: "Remove the filters", on: clear }, { words: "Start page", on: home }] : [{ words: "Start page", on: home }];
  showMessage("No moments found", lines, ways);
}

const TOLD = {
  0: ["The server does not answer", "It may have been stopped, or the network is down. If you run it yourself: footage serve ARCHIVE."],
  401: ["This server asks for a token", "Without it nothing of the archive is shown."],
  413: ["This is too large", "Choose a picture of at most 10 MB."],
  429: ["The server is busy", "Others are searching too. It was asked several times."],
  503: ["The server is busy", "The answer took too long. A narrower filter makes it quicker."],
};

/**
 * Says what is wrong.
 * @param {import("./api.js").Trouble} trouble
 * @param {Function} again
 */
export function showTrouble(trouble, again) {
  const [title, advice] = TOLD[trouble.status] ?? ["This could not be searched", ""];
  const detail = trouble.status in TOLD && trouble.status !== 413 ? "" : trouble.message;
  showMessage(title, [advice, detail].filter(Boolean), [{ words: "Try again", on: again }]);
  announce(`${title}. ${detail}`);
}
