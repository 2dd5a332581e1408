// Numbers as people read them: time codes, lengths, sizes, counts.

const COUNT = new Intl.NumberFormat("en");
const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

const two = (number) => String(number).padStart(2, "0");

/**
 * Seconds as m:ss, or h:mm:ss from an hour on. What lacks a frame to a second counts as that second: 9.98 is 0:10.
 * @param {number} seconds
 */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds + 0.05));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/**
 * Seconds as a time code of constant width, hh:mm:ss.cc with hundredths.
 * @param {number} seconds
 */
export function timeCode(seconds) {
  const hundredths = Math.max(0, Math.round(seconds * 100));
  const whole = Math.floor(hundredths / 100);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return `${parts.map(two).join(":")}.${two(hundredths % 100)}`;
}

/**
 * The span of a moment.
 * @param {{start_s: number, end_s: number}} moment
 */
export function span(moment) {
  return `${clock(moment.start_s)} – ${clock(moment.end_s)}`;
}

/**
 * How long a lot of footage is: "3 min", "5.2 h".
 * @param {number} seconds
 */
export function length(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${COUNT.format(Math.round(seconds / 360) / 10)} h`;
}

/** @param {number} number */
export function count(number) {
  return COUNT.format(number);
}

/**
 * A number with its noun: "1 clip", "2 clips".
 * @param {number} number
 * @param {string} noun
 */
export function counted(number, noun) {
  return `${COUNT.format(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/**
 * Bytes in decimal units.
 * @param {number} bytes
 */
export function size(bytes) {
  const power = bytes < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** power;
  return `${value.toFixed(power && value < 10 ? 1 : 0)} ${UNITS[power]}`;
}
