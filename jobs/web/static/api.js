// The server's API: one function a question. Errors are `Trouble`, with what the server said of them. A server that is
// busy (429, 503) is asked again when it said so; one that wants a token (401) is asked again once there is one.

const TRIES = 5;
const LONGEST_WAIT_S = 30;

/** An answer that was none. `status` is 0 where the server did not answer at all. */
export class Trouble extends Error {
  /**
   * @param {number} status
   * @param {string} detail
   * @param {string[]} columns what a condition may name, where the condition is at fault
   */
  constructor(status, detail, columns = []) {
    super(detail);
    this.status = status;
    this.columns = columns;
  }
}

const heard = { wait: () => {}, token: async () => false };

/**
 * Who is told of waits, in seconds (0 when over), and who gets a token: resolves to whether there is one now.
 * @param {{wait: function(number): void, token: function(): Promise<boolean>}} listeners
 */
export function listen(listeners) {
  Object.assign(heard, listeners);
}

/**
 * Whether an error only says that a newer question took the place of this one.
 * @param {Error} error
 */
export function isStale(error) {
  return error.name === "AbortError";
}

async function ask(address, options = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const response = await send(address, options);
    if (response.ok) return response;
    if (response.status === 401 && (await heard.token())) continue;
    if (![429, 503].includes(response.status) || attempt === TRIES) throw await trouble(response);
    await pause(retryAfter(response, attempt), options.signal);
  }
}

async function send(address, options) {
  try {
    return await fetch(address, { ...options, headers: { accept: "application/json", ...options.headers } });
  } catch (error) {
    if (isStale(error)) throw error;
    throw new Trouble(0, "The server does not answer.");
  }
}

async function trouble(response) {
  const said = await response.json().catch(() => ({}));
  return new Trouble(response.status, said.detail ?? `The server answered ${response.status}.`, said.columns ?? []);
}

function retryAfter(response, attempt) {
  const told = Number(response.headers.get("retry-after"));
  return Math.min(LONGEST_WAIT_S, told > 0 ? told * attempt : 2 ** attempt / 2);
}

function pause(seconds, signal) {
  heard.wait(seconds);
  return new Promise((resolve, reject) => {
    const end = (settle) => () => {
      heard.wait(0);
      settle();
    };
    const timer = setTimeout(end(resolve), seconds * 1000);
    const stop = end(() => reject(new DOMException("a newer question", "AbortError")));
    signal?.addEventListener("abort", () => (clearTimeout(timer), stop()), { once: true });
  });
}

const get = async (address, signal) => (await ask(address, { signal })).json();

/**
 * Moments for the parameters of `where.parameters`, and for a picture if there is one.
 * @param {URLSearchParams} parameters
 * @param {{picture?: File|null, signal?: AbortSignal}} more
 */
export async function search(parameters, { picture = null, signal } = {}) {
  if (!picture) return get(`/search?${parameters}`, signal);
  const body = new FormData();
  parameters.forEach((value, name) => body.append(name, value));
  body.append("image", picture);
  return (await ask("/search", { method: "POST", body, signal })).json();
}

/** @param {{q?: string, page?: number, top?: number}} asked */
export function videos({ q = "", page = 1, top = 12 } = {}, signal) {
  return get(`/videos?${new URLSearchParams({ q, page: String(page), top: String(top) })}`, signal);
}

/** @param {string} id of a video */
export function video(id, signal) {
  return get(`/videos/${encodeURIComponent(id)}`, signal);
}

export const labels = (signal) => get("/labels", signal);
export const stats = (signal) => get("/stats", signal);

/**
 * Whether the file of a video is where the archive says. True where the server cannot tell.
 * @param {string} address as `media` of a video
 */
export async function isThere(address) {
  const response = await fetch(address, { headers: { range: "bytes=0-0" } }).catch(() => null);
  await response?.body?.cancel();
  return response?.status !== 404;
}

/**
 * Begins a session.
 * @param {string} token
 * @returns {Promise<string>} what is wrong with the token, or nothing
 */
export async function beginSession(token) {
  const headers = { "content-type": "application/json" };
  const response = await send("/session", { method: "POST", body: JSON.stringify({ token }), headers });
  return response.ok ? "" : (await trouble(response)).message;
}
