// Elements, made the one way that is safe with names that strangers chose: text goes in as text, never as markup.
// What depends on data for its size or place goes through CSS variables, which the content security policy lets pass.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element by its id; the page is broken without it.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return found;
}

/**
 * A new element.
 * @param {string} tag
 * @param {{class?: string, text?: string, on?: Object<string, Function>, vars?: Object<string, string|number>}} about
 *   every other key is an attribute; null and false leave it out
 * @param {...(Node|string|null)} children
 * @returns {HTMLElement}
 */
export function make(tag, about = {}, ...children) {
  const node = document.createElement(tag);
  const { class: className, text, on = {}, vars = {}, ...attributes } = about;
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) setAttribute(node, name, value);
  for (const [name, heard] of Object.entries(on)) node.addEventListener(name, heard);
  for (const [name, value] of Object.entries(vars)) node.style.setProperty(`--${name}`, String(value));
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) return;
  node.setAttribute(name, value === true ? "" : String(value));
}

/**
 * One of the icons drawn in index.html.
 * @param {string} name
 * @returns {SVGElement}
 */
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("class", "icon");
  drawing.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  drawing.append(use);
  return drawing;
}

/**
 * A button with words, an icon, or both.
 * @param {{words?: string, icon?: string, label?: string, class?: string, on: Function, tabindex?: number}} about
 *   `label` names a button without words, and is its tooltip
 * @returns {HTMLButtonElement}
 */
export function button({ words, icon: drawn, label, class: className = "button", on, ...more }) {
  const names = label ? { "aria-label": label, title: label } : {};
  const parts = [drawn ? icon(drawn) : null, words ? make("span", { text: words }) : null];
  return make("button", { type: "button", class: className, on: { click: on }, ...names, ...more }, ...parts);
}

/**
 * The picture of a clip; a dark ground is left where there is none.
 * @param {string|null} address
 * @returns {HTMLElement}
 */
export function picture(address) {
  if (!address) return make("span", { class: "no-picture", "aria-hidden": "true" });
  const image = make("img", { src: address, alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.classList.add("is-missing"), { once: true });
  return image;
}
