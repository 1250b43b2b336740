// Text that shows what it is, as runtime/plain_text.py: control characters forge lines, bidirectional
// ones turn a name around, invisible ones make two names look the same. Independent of bundles.

// The general categories Cc, Cf, Cs, Zl and Zp of Unicode 15; the same ranges as in Python.
const HIDDEN =
  /[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\u{110bd}\u{110cd}\u{13430}-\u{1343f}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0001}\u{e0020}-\u{e007f}]/u;
const ALL = new RegExp(HIDDEN.source, "gu");

/**
 * The first character of `text` that does not show, as "U+202E"; null where all do.
 *
 * @param {string} text
 */
export function hiddenCharacter(text) {
  const match = HIDDEN.exec(text);
  return match && `U+${code(match[0]).toUpperCase().padStart(4, "0")}`;
}

/**
 * `text` in one line, with an escape for each character that does not show.
 *
 * @param {string} text
 */
export function oneLine(text) {
  const folded = text.replace(/[ \t]*[\t\n\r]\s*/g, " ").trim();
  return folded.replace(ALL, (character) => `\\u{${code(character)}}`);
}

/** @param {string} character */
function code(character) {
  return (character.codePointAt(0) ?? 0).toString(16);
}
