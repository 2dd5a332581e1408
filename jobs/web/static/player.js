// The player: one video in a dialog, at a moment, with its timeline, its name, and places that look the same. Files
// that browsers cannot play are seen in stretches, and files that are gone by what the archive kept of them.

import * as api from "./api.js";
import { button, byId, make, picture } from "./dom.js";
import { clock, counted, span, timeCode } from "./format.js";
import { Playback } from "./playback.js";
import { drawTimeline, movePlayhead } from "./timeline.js";

const parts = {};
for (const name of ["player", "player-name", "player-uri", "video", "stand-in", "player-note", "time-code", "player-length", "timeline", "side"]) {
  parts[name] = byId(name);
}

/** The dialog that plays. `on` has what to do: closed(), moved(timeS), like(clipId), link(videoId, timeS), hitAt(videoId, timeS), other(videoId, timeS). */
export class Player {
  /**
   * @param {Object<string, Function>} on
   * @param {function(string): {shown: Object[], all: Promise<Object[]>}} momentsOf the search's moments of a video
   */
  constructor(on, momentsOf) {
    this.on = on;
    this.momentsOf = momentsOf;
    this.info = null;
    this.hits = [];
    this.id = "";
    this.playback = new Playback(parts.video, {
      time: (timeS) => this.#showTime(timeS),
      stretches: (why) => note(`${why}${this.#codec()}, so this is a small preview without sound.`),
      gone: () => this.#showGone(),
      failed: () => note("Neither the browser nor the server could play this part of the video."),
    });
    this.#listen();
  }

  #listen() {
    parts.player.addEventListener("close", () => {
      this.playback.stop();
      this.id = "";
      this.on.closed();
    });
    parts.player.addEventListener("click", (event) => event.target === parts.player && this.close()); // the backdrop
    byId("player-close").addEventListener("click", () => this.close());
    byId("player-like").addEventListener("click", () => this.like());
    byId("player-link").addEventListener("click", () => this.link());
  }

  get isOpen() {
    return parts.player.open;
  }

  /**
   * Opens a video at a time.
   * @param {string} id
   * @param {number|null} atS
   */
  async open(id, atS) {
    if (this.isOpen && this.id === id && this.info) return this.seek(atS ?? 0);
    this.id = id;
    this.#clear();
    if (!this.isOpen) parts.player.showModal();
    parts["player-name"].focus();
    try {
      const info = await api.video(id);
      if (this.id === id) this.#show(info, atS ?? 0);
    } catch (error) {
      if (this.id === id) this.#showTrouble(error);
    }
  }

  close() {
    if (this.isOpen) parts.player.close();
  }

  toggle() {
    this.playback.toggle();
  }

  /** @param {number} timeS */
  seek(timeS) {
    this.playback.seek(timeS, true);
    this.#showTime(timeS);
    this.on.moved(timeS);
  }

  /** @param {number} byS */
  step(byS) {
    this.playback.seek(this.playback.timeS + byS);
  }

  /** @param {number} way 1 for the next moment, -1 for the one before */
  jump(way) {
    const starts = this.hits.map((hit) => hit.start_s).sort((a, b) => way * (a - b));
    const here = this.timeS;
    const next = starts.find((startS) => (way > 0 ? startS > here + 0.05 : startS < here - 1));
    if (next !== undefined) this.seek(next);
  }

  get timeS() {
    return this.shownS ?? 0;
  }

  like() {
    const clip = this.#clipAt(this.timeS);
    if (clip) this.on.like(clip.clip_id);
  }

  link() {
    if (this.info) this.on.link(this.id, this.timeS);
  }

  #codec() {
    return this.info?.codec ? ` (${this.info.codec})` : "";
  }

  #clipAt(timeS) {
    const clips = this.info?.clips ?? [];
    return clips.find((clip) => timeS >= clip.start_s && timeS < clip.end_s) ?? clips.at(-1) ?? null;
  }

  #clear() {
    this.playback.stop();
    this.info = null;
    this.hits = [];
    this.shownS = 0;
    note("");
    parts["player-name"].textContent = "Loading …";
    parts["player-uri"].textContent = parts["time-code"].textContent = parts["player-length"].textContent = "";
    parts.timeline.replaceChildren();
    parts.side.replaceChildren();
    parts.video.hidden = false;
    parts["stand-in"].hidden = true;
  }

  async #show(info, atS) {
    this.info = info;
    parts["player-name"].textContent = info.name;
    parts["player-uri"].textContent = info.uri;
    parts["player-uri"].title = info.uri;
    parts["player-length"].textContent = `/ ${timeCode(info.duration_s)}`;
    const moments = this.momentsOf(info.video_id);
    this.#mark(moments.shown);
    this.#tell(atS);
    this.playback.show(info, atS);
    this.#showTime(atS);
    const all = await moments.all;
    if (this.info !== info || all.length === moments.shown.length) return;
    this.#mark(all);
    if (!moments.shown.length) this.#tell(atS); // a link was opened before its search was over
  }

  #tell(atS) {
    const hit = this.on.hitAt(this.info.video_id, atS);
    parts.side.replaceChildren(...sideOf(this.info, hit, this.on.other, (timeS) => this.seek(timeS)));
  }

  #mark(hits) {
    this.hits = hits;
    drawTimeline(parts.timeline, this.info, hits, (timeS) => this.seek(timeS));
    this.#showTime(this.timeS);
  }

  #showTime(timeS) {
    this.shownS = timeS;
    parts["time-code"].textContent = timeCode(timeS);
    if (!this.info) return;
    movePlayhead(parts.timeline, timeS, this.info.duration_s);
    if (!parts["stand-in"].hidden) this.#showStill(timeS);
  }

  #showGone() {
    note("The file is not where the archive last saw it: it was moved, renamed or deleted. "
      + "Pictures and tags are still here; after the next “footage index” the archive knows where it went.");
    parts.video.hidden = true;
    parts["stand-in"].hidden = false;
    this.#showStill(this.timeS);
  }

  #showStill(timeS) {
    const clip = this.#clipAt(timeS);
    if (parts["stand-in"].dataset.clip === clip?.clip_id && parts["stand-in"].firstChild) return;
    parts["stand-in"].dataset.clip = clip?.clip_id ?? "";
    parts["stand-in"].replaceChildren(picture(clip?.thumbnail ?? null));
  }

  #showTrouble(error) {
    parts["player-name"].textContent = error.status === 404 ? "This video is not in the archive" : "The video could not be opened";
    note(error.status === 404 ? "The link may be older than the archive, or the video was taken out of it." : error.message);
    parts.video.hidden = true;
  }
}

function note(text) {
  parts["player-note"].textContent = text;
  parts["player-note"].hidden = text === "";
}

function sideOf(info, hit, other, seek) {
  const facts = [clock(info.duration_s), `${info.width} × ${info.height}`, info.codec, counted(info.clips.length, "clip")];
  const sections = [make("p", { class: "faint", text: facts.filter(Boolean).join(" · ") })];
  if (hit?.folded.length) {
    sections.push(make("h3", { text: "Places that look the same" }), make("ul", { class: "places" }, ...hit.folded.map((same) => place(
      `/thumbnails/${same.clip_id}`, same.name, span(same), () => other(same.video_id, same.start_s)))));
  }
  if (info.clips.length) {
    sections.push(make("h3", { text: "The whole video" }), make("ul", { class: "places strip" }, ...info.clips.map((clip) => place(
      clip.thumbnail, "", clock(clip.start_s), () => seek(clip.start_s)))));
  }
  return sections;
}

function place(image, name, when, on) {
  const open = button({ class: "place", on, label: name ? undefined : `Go to ${when}` });
  open.append(make("span", { class: "frame" }, picture(image)), make("span", { class: "place-text" },
    name ? make("span", { class: "card-name", text: name }) : null, make("span", { class: "code faint", text: when })));
  return make("li", {}, open);
}
