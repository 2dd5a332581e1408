// Filters as a condition of the server's language, and a state as the parameters of /search. Pure: no page needed.

/** @typedef {import("./state.js").State} State */

/**
 * A text as a constant of SQL.
 * @param {string} text
 */
export function quoted(text) {
  return `'${text.replaceAll("'", "''")}'`;
}

/**
 * The condition that all filters of a state make together; empty where there are none.
 *
 * A label counts where it is a clip's first, as in the counts that the label browser shows.
 * @param {State} state
 * @param {...string} more further conditions
 * @returns {string}
 */
export function condition(state, ...more) {
  const parts = [];
  if (state.labels.length) parts.push(`label in (${state.labels.map(quoted).join(", ")}) and rank = 1`);
  if (state.min !== null) parts.push(`duration_s >= ${state.min}`);
  if (state.max !== null) parts.push(`duration_s <= ${state.max}`);
  if (state.where.trim()) parts.push(state.where.trim());
  parts.push(...more);
  return parts.length > 1 ? parts.map((part) => `(${part})`).join(" and ") : parts.join("");
}

/**
 * The parameters of /search for a state. Labels without a text are the text.
 * @param {State} state
 * @param {{page?: number, top?: number, more?: string[], extra?: Object<string, string|number>}} asked
 * @returns {URLSearchParams}
 */
export function parameters(state, { page = 1, top = 24, more = [], extra = {} } = {}) {
  const told = new URLSearchParams();
  const text = state.q.trim();
  const texts = text ? [text] : state.like ? [] : state.labels;
  texts.forEach((each, place) => told.append(place ? "and" : "q", each));
  if (state.like) told.append("like_clip", state.like);
  const where = condition(state, ...more);
  if (where) told.append("where", where);
  for (const [name, value] of Object.entries({ top, page, ...extra })) told.append(name, String(value));
  return told;
}
