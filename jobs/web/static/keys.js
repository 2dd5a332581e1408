// Keys, as tables from a key to what it does: one for the page, one for the player. Typing into a field stays typing.

const TYPED = "input:not([type=file]), textarea, select";

const isTyping = (target) => target instanceof Element && target.matches(TYPED);
const isButton = (target) => target instanceof Element && target.matches("button, a, summary");

/**
 * Listens for keys. An action returns false where it did not apply, and the browser goes on with the key.
 * @param {Object<string, function(): (boolean|void)>} page
 * @param {Object<string, function(): (boolean|void)>} player
 * @param {{isPlaying: function(): boolean, escape: function(Element): boolean, down: function(Element): boolean}} ask
 */
export function startKeys(page, player, ask) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
    const act = actionFor(event, page, player, ask);
    if (act && act() !== false) event.preventDefault();
  }, true);
}

function actionFor(event, page, player, ask) {
  const { key, target } = event;
  const otherDialog = document.querySelector("dialog[open]:not(#player)");
  if (otherDialog) return null; // it closes itself
  if (ask.isPlaying()) return key === " " && isButton(target) ? null : player[key];
  if (key === "Escape") return () => ask.escape(target);
  if (!isTyping(target)) return page[key];
  return key === "ArrowDown" ? () => ask.down(target) : null;
}
