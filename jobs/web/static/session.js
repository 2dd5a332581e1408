// Asks for the server's token, once however many questions wait for it.

import { beginSession } from "./api.js";
import { byId } from "./dom.js";

let asking = null;

/**
 * Resolves to whether there is a session now.
 * @returns {Promise<boolean>}
 */
export function askForToken() {
  asking ??= ask().finally(() => (asking = null));
  return asking;
}

function ask() {
  const [dialog, field, problem] = [byId("token"), byId("token-field"), byId("token-problem")];
  let admitted = false;
  problem.hidden = true;
  field.value = "";
  dialog.showModal();
  byId("token-cancel").onclick = () => dialog.close();
  byId("token-form").onsubmit = async (event) => {
    event.preventDefault();
    const wrong = await beginSession(field.value).catch((error) => error.message);
    problem.textContent = wrong;
    problem.hidden = !wrong;
    admitted = !wrong;
    if (admitted) dialog.close();
    else field.select();
  };
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(admitted), { once: true }));
}
