// values: any named float32 outputs, without labels; the answer is the arrays themselves. As
// runtime/tasks/values.py.

import { InputError } from "../errors.mjs";
import { largestDifference } from "./probabilities.mjs";

/** @typedef {import("./index.mjs").Floats} Floats */
/** @typedef {import("../manifest.mjs").ModelSpec} ModelSpec */
/** @typedef {import("../output_spec.mjs").OutputSpec} OutputSpec */

/** The answer for one image: an array for each output, in the spec's order. */
export class Values {
  /** @param {ReadonlyMap<string, Floats>} arrays */
  constructor(arrays) {
    this.arrays = arrays;
    Object.freeze(this);
  }

  /**
   * @param {string} name
   * @returns {Floats}
   * @throws {InputError} naming those that exist
   */
  get(name) {
    const array = this.arrays.get(name);
    if (array) return array;
    const names = [...this.arrays.keys()].join(", ");
    throw new InputError(`the model has no output ${JSON.stringify(name)}; it has: ${names}.`);
  }
}

export const VALUES = {
  name: "values",
  specVersion: 2,
  hasLabels: false,
  hasThresholds: false,
  /** @param {readonly string[]} labels @param {readonly OutputSpec[]} given */
  outputs: (labels, given) => given,
  /** @param {readonly Floats[]} arrays @returns {[number, string] | undefined} */
  fault: (arrays) => {
    let first = Infinity;
    for (const { shape, data } of arrays) {
      const at = data.findIndex((value) => !Number.isFinite(value));
      if (at >= 0) first = Math.min(first, Math.floor((at * shape[0]) / data.length));
    }
    return first < Infinity ? [first, "holds NaN or infinity; expected finite values"] : undefined;
  },
  /** @param {readonly Floats[]} arrays @param {ModelSpec} spec */
  answer: (arrays, { outputs }) =>
    new Values(
      new Map(
        arrays.map(({ shape: [images, ...shape], data }, i) => [
          outputs[i].name,
          { shape, data: data.slice(0, data.length / images) },
        ]),
      ),
    ),
  /** @param {readonly Floats[]} arrays @param {readonly Floats[]} record @param {number} first */
  compareGolden: (arrays, record, first) => {
    let largest = 0;
    for (const [i, { shape, data }] of arrays.entries()) {
      const recorded = record[i];
      if (`${shape.slice(1)}` !== `${recorded.shape.slice(1)}`) return Infinity;
      const scale = recorded.data.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
      const start = (first * recorded.data.length) / recorded.shape[0];
      const expected = recorded.data.subarray(start, start + data.length);
      largest = Math.max(largest, largestDifference(data, expected) / scale);
    }
    return largest;
  },
};
