// The tasks: what a model can answer. Everything that differs between them is in one file for each;
// TASKS lists them. No other module of this runtime mentions a task by its name. As
// runtime/tasks/__init__.py.

import { BundleFormatError } from "../errors.mjs";
import { MULTI_CLASS } from "./multi_class.mjs";
import { MULTI_LABEL } from "./multi_label.mjs";
import { VALUES } from "./values.mjs";

export { Prediction } from "./multi_class.mjs";
export { AttributePrediction } from "./multi_label.mjs";
export { Values } from "./values.mjs";

/** @typedef {import("../golden.mjs").NdArray<Float32Array>} Floats */
/** @typedef {import("../manifest.mjs").ModelSpec} ModelSpec */
/** @typedef {import("../output_spec.mjs").OutputSpec} OutputSpec */
/** @typedef {import("./multi_class.mjs").Prediction} PredictionType */
/** @typedef {import("./multi_label.mjs").AttributePrediction} AttributePredictionType */
/** @typedef {import("./values.mjs").Values} ValuesType */
/** @typedef {PredictionType | AttributePredictionType | ValuesType} Answer */

/**
 * One row of the table. Arrays are one for each output of the spec, in its order.
 *
 * @typedef {object} Task
 * @property {string} name
 * @property {number} specVersion the oldest version of a spec that can express it
 * @property {boolean} hasLabels
 * @property {boolean} hasThresholds each variant has one threshold for each label
 * @property {(labels: readonly string[], given: readonly OutputSpec[]) => readonly OutputSpec[]}
 *   outputs what a model returns; the task may leave it to those that are given
 * @property {(arrays: readonly Floats[]) => [number, string] | undefined} fault the number of the
 *   first image whose values cannot be an answer, and what they are
 * @property {(arrays: readonly Floats[], spec: ModelSpec, thresholds: readonly number[] | null,
 *   minProbability: number) => Answer} answer for the first image of a batch that was checked
 * @property {(arrays: readonly Floats[], record: readonly Floats[], first: number) => number}
 *   compareGolden the largest difference of the samples from `first` on to the record of all, in
 *   the unit of a golden tolerance; NaN where a value is NaN, infinity where a shape differs
 */

/** @type {ReadonlyMap<string, Task>} */
export const TASKS = new Map([MULTI_CLASS, MULTI_LABEL, VALUES].map((task) => [task.name, task]));

/**
 * The task of that name.
 *
 * @param {string} name
 * @returns {Task}
 * @throws {BundleFormatError} which lists the names
 */
export function taskNamed(name) {
  const task = TASKS.get(name);
  if (task) return task;
  throw new BundleFormatError(
    `model spec has task ${JSON.stringify(name)}; expected one of ` +
      `${[...TASKS.keys()].map((one) => `"${one}"`).join(", ")}.`,
  );
}
