// multi-class: exactly one of the labels is right; the probabilities are a softmax. As
// runtime/tasks/multi_class.py.

import { InputError } from "../errors.mjs";
import { probabilityTask } from "./probabilities.mjs";

/** @typedef {import("./index.mjs").Floats} Floats */
/** @typedef {import("../manifest.mjs").ModelSpec} ModelSpec */

/**
 * One label with its probability.
 *
 * @typedef {object} Candidate
 * @property {string} label
 * @property {number} index position in the spec's labels
 * @property {number} probability
 */

/** The answer for one image: the most probable label. */
export class Prediction {
  /**
   * @param {readonly number[]} probabilities one for each label; they sum to 1
   * @param {readonly string[]} labels
   * @param {number} minProbability
   */
  constructor(probabilities, labels, minProbability) {
    this.probabilities = probabilities;
    this.labels = labels;
    /** Of the most probable label; of equals the first. */
    this.index = probabilities.reduce((best, p, i) => (p > probabilities[best] ? i : best), 0);
    this.label = labels[this.index];
    this.probability = probabilities[this.index];
    /** False: less probable than requested; better ask a person. */
    this.accepted = this.probability >= minProbability;
    Object.freeze(this);
  }

  /**
   * The `k` most probable labels (all of them if there are fewer), best first.
   *
   * @param {number} k
   * @returns {Candidate[]}
   */
  top(k = 5) {
    if (!(k >= 1)) throw new InputError(`top(${k}) asks for no label; expected at least 1.`);
    return this.probabilities
      .map((probability, index) => ({ label: this.labels[index], index, probability }))
      .sort((a, b) => b.probability - a.probability) // stable: of equals the first
      .slice(0, k);
  }
}

export const MULTI_CLASS = {
  ...probabilityTask(true),
  name: "multi-class",
  hasThresholds: false,
  /**
   * @param {readonly Floats[]} arrays
   * @param {ModelSpec} spec
   * @param {readonly number[] | null} thresholds
   * @param {number} minProbability
   */
  answer: ([{ data }], { labels }, thresholds, minProbability) =>
    new Prediction([...data.subarray(0, labels.length)], labels, minProbability),
};
