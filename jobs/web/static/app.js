// The page's one loop: a state comes from the address or from what the user does, and is shown. `go` is the only way to
// change it; everything else is told what to show. Newer questions end older ones.

import * as api from "./api.js";
import { byId } from "./dom.js";
import { closePanel, showFilters, showWhereProblem, startFilters } from "./filters.js";
import { counted } from "./format.js";
import { focusCard, focusFirst, focusedCard, keepTabbable, momentCard, move, skeletons } from "./grid.js";
import { startKeys } from "./keys.js";
import { announce, noteWait, showMessage, showNothing, showTrouble, summaryOf, toast } from "./messages.js";
import { startPictures } from "./pictures.js";
import { Player } from "./player.js";
import { askForToken } from "./session.js";
import { showStart } from "./start.js";
import { NOTHING, fromAddress, isFiltered, isSearch, searchKey, toAddress } from "./state.js";
import { parameters, quoted } from "./where.js";

const REST_MS = 250; // between the last letter and the question
const TOP = 24;

let state = NOTHING;
let picture = null;
let found = { key: null, hits: [], answer: null, page: 0 };
let question = new AbortController();
let searching = Promise.resolve(); // the last search, until it is over
let typing = 0;
let opener = null; // what had the focus before the player

const field = byId("q");
const player = new Player({
  closed: playerClosed,
  moved: (timeS) => go({ at: timeS }, "replace"),
  like: (clipId) => findLike(clipId),
  link: (videoId, timeS) => copyLink(videoId, timeS),
  hitAt,
  other: (videoId, timeS) => go({ video: videoId, at: timeS }, "replace"),
}, momentsOf);

// --- the state

/**
 * Changes the state and shows it. An entry of the history knows whether it opened the player: closing takes it back.
 * @param {Partial<import("./state.js").State>} parts
 * @param {"push"|"replace"} how the address changes
 */
function go(parts, how = "push") {
  const before = toAddress(state);
  state = { ...state, ...parts };
  const address = toAddress(state);
  const opens = how === "push" ? Boolean(parts.video) : Boolean(window.history.state?.opens);
  if (address !== before) window.history[`${how}State`]({ opens }, "", address);
  show();
}

/** A change of what is looked for: it begins at the first page, with the player closed. What was just typed is kept. */
function look(parts, how = "push") {
  const justTyped = typing ? { q: field.value.trim() } : {};
  rest();
  go({ page: 1, video: "", at: null, ...justTyped, ...parts }, how);
}

function rest() {
  clearTimeout(typing);
  typing = 0;
}

function show() {
  if (document.activeElement !== field || field.value.trim() !== state.q.trim()) field.value = state.q;
  showFilters(state, picture, () => setPicture(null));
  document.title = state.q ? `${state.q} – footage` : "footage";
  showMoments();
  if (state.video) openPlayer();
  else player.close();
}

function setPicture(file) {
  picture = file;
  found.key = null;
  look({ like: "" }, "replace");
}

// --- moments

function showMoments() {
  const asks = isSearch(state) || picture !== null;
  byId("start").hidden = asks;
  byId("results").hidden = !asks;
  if (!asks) return showBeginning();
  const key = searchKey(state);
  if (found.key === key && found.page >= state.page) return;
  searching = search(key);
}

function showBeginning() {
  question.abort();
  showWhereProblem(null);
  busy(false);
  const isNew = found.key !== "";
  found = { key: "", hits: [], answer: null, page: 0 };
  if (!isNew) return;
  showMessage();
  showStart({
    search: (q) => look({ q }),
    label: (label) => look({ labels: [label] }),
    open: (video) => go({ video, at: 0 }),
    link: (video) => copyLink(video, 0),
  });
  if (isFiltered(state)) announce("Filters are set: say what to look for.");
}

async function search(key) {
  question.abort();
  question = new AbortController();
  const { signal } = question;
  if (found.key !== key) begin(key);
  busy(true);
  try {
    while (found.page < state.page) {
      const answer = await api.search(parameters(state, { page: found.page + 1, top: TOP }), { picture, signal });
      if (signal.aborted) return;
      add(answer);
      if (!answer.has_more) break;
    }
    showWhereProblem(null);
  } catch (error) {
    if (!api.isStale(error)) failed(error);
  } finally {
    if (!signal.aborted) busy(false);
  }
}

function begin(key) {
  found = { key, hits: [], answer: null, page: 0 };
  showMessage();
  byId("more").hidden = true;
  byId("summary").textContent = "Searching …";
  if (!byId("grid").querySelector(".card:not(.skeleton)")) byId("grid").replaceChildren(...skeletons(12));
}

function busy(yes) {
  byId("progress").hidden = !yes;
  byId("grid").setAttribute("aria-busy", String(yes));
  byId("grid").classList.toggle("is-stale", yes && found.page === 0);
}

function add(answer) {
  const hadFocus = document.activeElement === byId("more");
  found = { ...found, answer, page: answer.page, hits: [...found.hits, ...answer.hits] };
  const cards = answer.hits.map((hit) => momentCard(hit, shareOf(hit), (what) => act(what, hit)));
  if (answer.page === 1) byId("grid").replaceChildren(...cards);
  else byId("grid").append(...cards);
  byId("more").hidden = !answer.has_more;
  byId("summary").textContent = found.hits.length ? summaryOf(answer, found.hits.length) : "";
  announce(found.hits.length ? `${counted(found.hits.length, "moment")} found` : "No moments found");
  if (!found.hits.length) showNothing({ filtered: isFiltered(state), clear: clearFilters, home: () => look(NOTHING) });
  keepTabbable();
  if (hadFocus && cards.length) focusCard(cards[0].querySelector(".card-open"));
}

/** How long the bar of a score is: from a tenth for the last of the first page to all for the best. */
function shareOf(hit) {
  const scores = found.hits.slice(0, TOP).map((each) => each.score);
  const [most, least] = [Math.max(...scores), Math.min(...scores)];
  const share = most > least ? (hit.score - least) / (most - least) : 1;
  return Math.min(1, Math.max(0, share)) * 0.9 + 0.1;
}

function failed(error) {
  const key = found.key;
  found = { key: null, hits: [], answer: null, page: 0 };
  byId("summary").textContent = "";
  byId("more").hidden = true;
  byId("grid").replaceChildren();
  if (error.columns?.length) {
    showWhereProblem(error);
    showMessage("The condition cannot be used", ["What is wrong with it stands under Advanced, with the columns there are."], [{ words: "Remove the condition", on: () => look({ where: "" }) }]);
    announce(`The condition cannot be used: ${error.message}`);
    return;
  }
  showTrouble(error, () => search(key));
}

function clearFilters() {
  look({ labels: [], min: null, max: null, where: "", q: state.q || state.labels[0] || "" });
}

function findLike(clipId) {
  picture = null;
  look({ ...NOTHING, like: clipId });
  window.scrollTo({ top: 0 });
}

/** The moments of a video that are shown, and, when the search is over, all that are as good as those of any video. */
function momentsOf(videoId) {
  return { shown: shownOf(videoId), all: searching.then(() => allOf(videoId)) };
}

const withShare = (hits) => hits.map((hit) => ({ ...hit, share: shareOf(hit) }));
const shownOf = (videoId) => withShare(found.hits.filter((hit) => hit.video_id === videoId));

async function allOf(videoId) {
  if (!found.hits.length || picture) return shownOf(videoId);
  const least = Math.min(...found.hits.map((hit) => hit.score));
  const asked = { top: 100, more: [`video_id = ${quoted(videoId)}`], extra: { per_video: 0, min_score: least } };
  const answer = await api.search(parameters(state, asked)).catch(() => null);
  return answer?.hits.length ? withShare(answer.hits) : shownOf(videoId);
}

// --- the player

function openPlayer() {
  if (player.isOpen && player.id === state.video) return;
  if (!player.isOpen) opener = document.activeElement;
  player.open(state.video, state.at);
}

/** The moment that is shown of a video at a time. */
function hitAt(videoId, timeS) {
  const holds = (hit) => timeS >= hit.start_s - 0.01 && timeS < hit.end_s;
  return found.hits.find((hit) => hit.video_id === videoId && holds(hit)) ?? null;
}

function playerClosed() {
  if (state.video) {
    if (window.history.state?.opens) window.history.back();
    else go({ video: "", at: null }, "replace");
  }
  if (opener?.isConnected) opener.focus({ preventScroll: true });
}

function act(what, hit) {
  const acts = {
    open: () => go({ video: hit.video_id, at: hit.start_s }),
    like: () => findLike(hit.clip_id),
    link: () => copyLink(hit.video_id, hit.start_s),
  };
  acts[what]();
}

async function copyLink(video, at) {
  const address = new URL(toAddress({ ...state, video, at }), window.location.origin).href;
  try {
    await navigator.clipboard.writeText(address);
    toast("Link to this moment copied");
  } catch {
    toast(address); // without a safe connection browsers do not let pages copy
  }
}

// --- what the user does

function typed() {
  clearTimeout(typing);
  typing = setTimeout(ask, REST_MS);
}

function ask() {
  rest();
  const q = field.value.trim();
  if (q === state.q) return;
  look({ q }, isSearch(state) && q ? "replace" : "push"); // one entry a search, not one a letter
}

function escape(target) {
  if (closePanel()) return true;
  if (target === field && !field.value) return field.blur();
  if (!isSearch(state) && !picture) return false;
  picture = null;
  look(NOTHING);
  field.focus();
  return true;
}

function onCard(what) {
  const card = focusedCard();
  card?.dispatchEvent(new CustomEvent("card-act", { detail: what }));
  return Boolean(card);
}

function showKeys() {
  byId("keys").showModal();
}

function start() {
  api.listen({ wait: noteWait, token: askForToken });
  startFilters((parts) => look(parts));
  startPictures(setPicture);
  startKeys(
    {
      "/": () => (field.focus(), field.select()), "?": showKeys,
      m: () => onCard("like"), c: () => onCard("link"),
      ArrowLeft: () => move("ArrowLeft"), ArrowRight: () => move("ArrowRight"),
      ArrowUp: () => move("ArrowUp"), ArrowDown: () => move("ArrowDown"),
    },
    {
      " ": () => player.toggle(), k: () => player.toggle(), "?": showKeys,
      ArrowLeft: () => player.step(-1), ArrowRight: () => player.step(1), j: () => player.step(-10), l: () => player.step(10),
      n: () => player.jump(1), p: () => player.jump(-1), m: () => player.like(), c: () => player.link(),
    },
    { isPlaying: () => player.isOpen, escape, down: (target) => target === field && focusFirst() },
  );
  field.addEventListener("input", typed);
  byId("search").addEventListener("submit", (event) => (event.preventDefault(), ask()));
  byId("more").addEventListener("click", () => go({ page: state.page + 1 }, "replace"));
  byId("show-keys").addEventListener("click", showKeys);
  byId("home").addEventListener("click", (event) => (event.preventDefault(), (picture = null), look(NOTHING)));
  window.addEventListener("popstate", restore);
  restore();
}

function restore() {
  const before = searchKey(state);
  state = fromAddress(window.location.search);
  if (searchKey(state) !== before) picture = null;
  show();
}

start();
