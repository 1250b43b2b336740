// JSON that means the same to every reader: UTF-8, no key twice, no number or nesting that takes a
// parser down. As runtime/strict_json.py; independent of what the values mean.

// A manifest has some dozens; one for every member that a bundle can have leaves as many for more.
const MAX_BRACKETS = 2000;
const MAX_DIGITS = 20; // of a whole number: beyond 64 bits
// a string, or the rest of a text in which one is not closed, which is then refused
const STRING = /"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?$)/gs;
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\]:,]|[^\s"{}[\]:,]+/gs;

/**
 * The value of a JSON text.
 *
 * @param {Uint8Array} bytes
 * @returns {unknown}
 * @throws {Error} whose message says what is wrong
 */
export function parse(bytes) {
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  const outside = text.replace(STRING, ""); // brackets in a string are text
  const brackets = outside.match(/[[{]/g)?.length ?? 0;
  if (brackets > MAX_BRACKETS) {
    throw new Error(`${brackets} lists and objects; expected at most ${MAX_BRACKETS}`);
  }
  const value = JSON.parse(text);
  checkTokens(text);
  return value;
}

/**
 * Refuse what JSON.parse accepts: keys that occur twice, numbers that no double holds, halves of pairs.
 *
 * @param {string} text that is JSON
 */
function checkTokens(text) {
  /** @type {(Set<string> | null)[]} */
  const open = []; // the keys of each open object; null for a list
  let isKey = false;
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === "{") open.push(new Set());
    else if (token === "[") open.push(null);
    else if (token === "}" || token === "]") open.pop();
    else if (token[0] === '"') checkText(token, isKey ? open.at(-1) : null);
    else if (/^-?\d/.test(token)) checkNumber(token);
    isKey = (token === "{" || token === ",") && open.at(-1) instanceof Set;
  }
}

/**
 * @param {string} token
 * @param {Set<string> | null | undefined} keys of the object that it is a key of
 */
function checkText(token, keys) {
  const text = JSON.parse(token);
  if (!text.isWellFormed()) throw new Error(`${token} has half of a surrogate pair`);
  if (keys?.has(text)) throw new Error(`the key ${token} occurs more than once in one object`);
  keys?.add(text);
}

/** @param {string} token */
function checkNumber(token) {
  const digits = token.replace("-", "");
  if (/^\d+$/.test(digits) && digits.length > MAX_DIGITS) {
    throw new Error(`a whole number has ${digits.length} digits; expected at most ${MAX_DIGITS}`);
  }
  if (!Number.isFinite(Number(token))) throw new Error(`the number ${token} is too large`);
}
