// What the page shows, as a value, and that value as the address of the page: whoever opens the address sees the same.
// A picture that was searched with stays out of it, since no address can hold it.

/**
 * @typedef {Object} State
 * @property {string} q what to look for
 * @property {string[]} labels any of which a moment has
 * @property {number|null} min shortest video in seconds
 * @property {number|null} max longest video in seconds
 * @property {string} where a condition of the user's own
 * @property {string} like id of a clip that moments are like
 * @property {number} page how many pages of moments are shown
 * @property {string} video id of the video that is open
 * @property {number|null} at where it is open, in seconds
 */

/** @type {State} */
export const NOTHING = Object.freeze({
  q: "", labels: [], min: null, max: null, where: "", like: "", page: 1, video: "", at: null,
});

/**
 * The state that an address's query tells; what it does not tell, or tells wrongly, is as in NOTHING.
 * @param {string} query
 * @returns {State}
 */
export function fromAddress(query) {
  const given = new URLSearchParams(query);
  const text = (name) => given.get(name) ?? "";
  return {
    q: text("q"),
    labels: [...new Set(given.getAll("label"))].filter(Boolean),
    min: number(given.get("min")),
    max: number(given.get("max")),
    where: text("where"),
    like: text("like"),
    page: Math.min(80, Math.max(1, Math.floor(number(given.get("page")) ?? 1))),
    video: text("v"),
    at: number(given.get("t")),
  };
}

function number(text) {
  const value = text === null || text.trim() === "" ? NaN : Number(text);
  return Number.isFinite(value) && value >= 0 ? value : null;
}

/**
 * The address of a state, from the root of the server.
 * @param {State} state
 * @returns {string}
 */
export function toAddress(state) {
  const told = new URLSearchParams();
  const add = (name, value) => value !== "" && value !== null && told.append(name, String(value));
  add("q", state.q.trim());
  state.labels.forEach((label) => add("label", label));
  add("min", state.min);
  add("max", state.max);
  add("where", state.where.trim());
  add("like", state.like);
  add("page", state.page > 1 ? state.page : "");
  add("v", state.video);
  add("t", state.video && state.at !== null ? Math.round(state.at * 100) / 100 : "");
  const query = told.toString();
  return query ? `/?${query}` : "/";
}

/**
 * A state but for its pages and its open video: two states of one key have the same moments.
 * @param {State} state
 * @returns {string}
 */
export function searchKey(state) {
  return toAddress({ ...state, page: 1, video: "", at: null });
}

/**
 * Whether a state narrows what is found.
 * @param {State} state
 */
export function isFiltered(state) {
  return state.labels.length > 0 || state.min !== null || state.max !== null || state.where.trim() !== "";
}

/**
 * Whether there is something to look for. Labels alone are: they are looked for by their own words.
 * @param {State} state
 */
export function isSearch(state) {
  return state.q.trim() !== "" || state.like !== "" || state.labels.length > 0;
}
