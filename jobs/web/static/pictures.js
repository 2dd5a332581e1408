// A picture to search with: chosen, dropped anywhere on the page, or pasted.

import { byId } from "./dom.js";
import { toast } from "./messages.js";

const KINDS = ["image/png", "image/jpeg", "image/webp"];
const MOST_BYTES = 10 * 2 ** 20;

/** @param {function(File): void} onPicture */
export function startPictures(onPicture) {
  const field = byId("picture");
  const take = (file) => file && isFit(file) && onPicture(file);
  byId("choose-picture").addEventListener("click", () => field.click());
  field.addEventListener("change", () => {
    take(field.files[0]);
    field.value = ""; // the same picture can be chosen again
  });
  document.addEventListener("paste", (event) => take([...(event.clipboardData?.files ?? [])][0]));
  startDropping(take);
}

function isFit(file) {
  if (!KINDS.includes(file.type)) toast("This is no picture that can be searched with: choose a PNG, JPEG or WebP.");
  else if (file.size > MOST_BYTES) toast("The picture is too large: choose one of at most 10 MB.");
  else return true;
  return false;
}

function startDropping(take) {
  const cover = byId("drop");
  const hasFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    cover.hidden = false;
  });
  document.addEventListener("dragleave", (event) => (cover.hidden = event.relatedTarget === null || cover.hidden));
  document.addEventListener("drop", (event) => {
    cover.hidden = true;
    if (!hasFile(event)) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
}
