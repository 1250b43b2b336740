// One output of a model's graph: its name, shape and type. As runtime/output_spec.py.

import { BundleFormatError } from "./errors.mjs";

/**
 * @typedef {object} OutputSpec
 * @property {string} name
 * @property {readonly (number | null)[]} shape of one image; null: an axis whose length is known at
 *   run time
 * @property {"float32"} dtype
 */

const MAX_OUTPUTS = 64;
const MAX_AXES = 7; // without the batch
const MAX_VALUES = 2 ** 26; // of all outputs for one image
const KEYS = ["dtype", "name", "shape"];
// Names become members of golden.npz, next to its own arrays, which are in the second pattern.
const NAME = /^[A-Za-z_][A-Za-z0-9_]{0,99}$/;
const RESERVED = /^(?:raw|pixels|con|prn|aux|nul|com\d|lpt\d)$/i;

/**
 * Read one entry of a spec's `outputs`.
 *
 * @param {unknown} data
 * @returns {OutputSpec}
 * @throws {BundleFormatError}
 */
export function outputSpec(data) {
  const shown = JSON.stringify(data);
  const row = /** @type {any} */ (data);
  const isObject = typeof data === "object" && data !== null && !Array.isArray(data);
  if (!isObject || `${Object.keys(row).sort()}` !== `${KEYS}`) {
    throw new BundleFormatError(
      `model spec has the output ${shown}; expected an object with name, shape and dtype.`,
    );
  }
  const { name, shape, dtype } = row;
  if (typeof name !== "string" || !Array.isArray(shape) || typeof dtype !== "string") {
    throw new BundleFormatError(
      `model spec has the output ${shown}; expected a text as name, a list as shape and a text as ` +
        "dtype.",
    );
  }
  return Object.freeze({
    name,
    shape: Object.freeze(shape),
    dtype: /** @type {"float32"} */ (dtype),
  });
}

/**
 * Throws unless these can be the outputs of one model.
 *
 * @param {readonly OutputSpec[]} outputs
 * @throws {BundleFormatError}
 */
export function checkOutputs(outputs) {
  if (outputs.length < 1 || outputs.length > MAX_OUTPUTS) {
    throw new BundleFormatError(
      `model spec has ${outputs.length} outputs; expected 1 to ${MAX_OUTPUTS}.`,
    );
  }
  if (new Set(outputs.map(({ name }) => name.toLowerCase())).size !== outputs.length) {
    throw new BundleFormatError(
      `model spec has the outputs [${outputs.map(({ name }) => name)}]; expected names that ` +
        "differ in more than case.",
    );
  }
  let values = 0;
  for (const output of outputs) {
    const name = JSON.stringify(output.name);
    if (!NAME.test(output.name) || RESERVED.test(output.name)) {
      throw new BundleFormatError(
        `model spec has the output name ${name}; expected at most 100 letters, digits and _ of ` +
          'ASCII, no digit first, and neither "raw", "pixels" nor a device of Windows. Rename ' +
          "the output where the model is exported.",
      );
    }
    if (output.dtype !== "float32") {
      throw new BundleFormatError(
        `model spec has output ${name} of dtype ${JSON.stringify(output.dtype)}; expected ` +
          '"float32".',
      );
    }
    values += valuesOf(output);
  }
  if (values > MAX_VALUES) {
    throw new BundleFormatError(
      `model spec has outputs of ${values} values for one image; expected at most ${MAX_VALUES}.`,
    );
  }
}

/**
 * Whether the values of one image may have this shape.
 *
 * @param {OutputSpec} output
 * @param {readonly number[]} shape
 */
export function fits({ shape: expected }, shape) {
  return (
    shape.length === expected.length &&
    expected.every((size, axis) => size === null || size === shape[axis])
  );
}

/**
 * The number of values for one image, an axis of unknown length counted as 1.
 *
 * @param {OutputSpec} output
 */
function valuesOf({ name, shape }) {
  for (const size of shape) {
    if (size !== null && !(Number.isInteger(size) && size >= 1 && size <= MAX_VALUES)) {
      throw new BundleFormatError(
        `model spec has output "${name}" of shape ${JSON.stringify(shape)}; expected whole ` +
          `numbers from 1 to ${MAX_VALUES}, or null for an axis of unknown length.`,
      );
    }
  }
  if (shape.length > MAX_AXES) {
    throw new BundleFormatError(
      `model spec has output "${name}" of ${shape.length} axes; expected at most ${MAX_AXES}.`,
    );
  }
  return shape.reduce((/** @type {number} */ product, size) => product * (size ?? 1), 1);
}
