// The player's video element, whatever it plays: the file itself where browsers can, else stretches of it that the
// server makes small and silent, one after the other. Times are those of the file either way.

import { isThere } from "./api.js";

const STRETCH_S = 20;

/** Plays one video at a time in an element. */
export class Playback {
  /**
   * @param {HTMLVideoElement} element
   * @param {{time: function(number): void, stretches: function(string): void, gone: function(): void,
   *          failed: function(): void}} tell what happens; `stretches` says why
   */
  constructor(element, tell) {
    this.element = element;
    this.tell = tell;
    this.info = null;
    element.addEventListener("timeupdate", () => this.#tick());
    element.addEventListener("seeked", () => this.#tick());
    element.addEventListener("error", () => this.#failed());
    element.addEventListener("ended", () => this.#ended());
  }

  /**
   * Shows a video at a time, and plays on if the browser lets it.
   * @param {Object} info as /videos/{id} tells it
   * @param {number} atS
   */
  show(info, atS) {
    this.stop();
    this.info = info;
    this.fromS = null; // of the stretch; null while it is the file
    if (info.gone) return this.tell.gone();
    if (!info.plays) return this.#beginStretches(atS, "The browser cannot play this kind of file");
    this.#load(info.media, atS, true);
  }

  /** Lets go of the video. */
  stop() {
    this.info = null;
    this.element.pause();
    this.element.removeAttribute("src");
    this.element.load();
  }

  /** Where it is, in seconds of the file. */
  get timeS() {
    return this.wantedS ?? (this.fromS ?? 0) + this.element.currentTime;
  }

  /** @param {number} timeS */
  seek(timeS, play = !this.element.paused) {
    if (!this.info) return;
    const aimS = Math.min(Math.max(0, timeS), Math.max(0, this.info.duration_s - 0.04));
    const inStretch = this.fromS !== null && aimS >= this.fromS && aimS < this.fromS + STRETCH_S;
    if (this.fromS !== null && !inStretch) return this.#loadStretch(aimS, play);
    if (this.wantedS !== null) this.wantedS = aimS; // it is still loading
    else this.element.currentTime = aimS - (this.fromS ?? 0);
    if (play) this.play();
  }

  play() {
    this.element.play().catch(() => {}); // a browser may want a click first
  }

  toggle() {
    if (this.element.paused) this.play();
    else this.element.pause();
  }

  #beginStretches(atS, why) {
    this.tell.stretches(why);
    this.#loadStretch(atS, true);
  }

  #loadStretch(atS, play) {
    this.fromS = Math.max(0, Math.floor(atS));
    const asked = new URLSearchParams({ start_s: String(this.fromS), length_s: String(STRETCH_S) });
    this.#load(`${this.info.preview}?${asked}`, atS, play);
  }

  #load(address, atS, play) {
    const { element } = this;
    this.wantedS = atS;
    element.src = address;
    element.onloadedmetadata = () => {
      element.currentTime = this.wantedS - (this.fromS ?? 0);
      this.wantedS = null;
    };
    this.tell.time(atS);
    if (play) this.play();
  }

  #tick() {
    if (this.info && this.wantedS === null) this.tell.time(this.timeS);
  }

  async #failed() {
    const { info } = this;
    if (!info || !this.element.getAttribute("src")) return;
    const atS = this.wantedS ?? this.timeS;
    if (!(await isThere(info.media))) return this.info === info && this.tell.gone();
    if (this.info !== info) return;
    if (this.fromS !== null) return this.tell.failed();
    this.#beginStretches(atS, "The browser could not play this file");
  }

  #ended() {
    const nextS = this.fromS === null ? Infinity : this.fromS + STRETCH_S;
    if (this.info && nextS < this.info.duration_s) this.#loadStretch(nextS, true);
  }
}
