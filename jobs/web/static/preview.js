// A moment moves on its card while it is pointed at or focused: muted, after a while of rest, and only where the ending
// of the file says that browsers play it. What did not play once is not tried again.

import { make } from "./dom.js";

const REST_MS = 300;
const PLAYED = /\.(mp4|m4v|mov|webm)$/i;
const refused = new Set();
const still = window.matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Makes a card show its moment moving.
 * @param {HTMLElement} card
 * @param {{video_id: string, uri: string, start_s: number, end_s: number}} hit
 */
export function attachPreview(card, hit) {
  let timer = 0;
  let video = null;

  function begin() {
    clearTimeout(timer);
    if (video || still.matches || refused.has(hit.video_id) || !PLAYED.test(hit.uri)) return;
    timer = setTimeout(() => (video = play(card, hit, end)), REST_MS);
  }

  function end() {
    clearTimeout(timer);
    if (!video) return;
    video.removeAttribute("src"); // lets go of the connection
    video.load();
    video.remove();
    video = null;
  }

  const leave = () => card.matches(":hover") || card.contains(document.activeElement) || end();
  card.addEventListener("pointerenter", begin);
  card.addEventListener("focusin", begin);
  card.addEventListener("pointerleave", () => card.querySelector(":focus-visible") || end());
  card.addEventListener("focusout", () => setTimeout(leave));
}

function play(card, hit, end) {
  const video = make("video", { class: "moving", playsinline: true, preload: "auto", "aria-hidden": "true", tabindex: -1 });
  video.muted = true;
  video.addEventListener("loadedmetadata", () => (video.currentTime = hit.start_s), { once: true });
  video.addEventListener("playing", () => video.classList.add("is-moving"), { once: true });
  video.addEventListener("timeupdate", () => {
    if (video.currentTime >= hit.end_s) video.currentTime = hit.start_s;
  });
  video.addEventListener("error", () => {
    if (!video.getAttribute("src")) return; // ours: the preview is over
    refused.add(hit.video_id);
    end();
  });
  card.querySelector(".frame").append(video);
  video.src = `/media/${encodeURIComponent(hit.video_id)}`;
  video.play().catch(() => {}); // over before it began
  return video;
}
