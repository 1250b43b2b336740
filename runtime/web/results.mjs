// What a predictor answers, as frozen values. As runtime/results.py; knows nothing of images or
// sessions.

import { InputError } from "./errors.mjs";

/**
 * One label with its probability.
 *
 * @typedef {object} Candidate
 * @property {string} label
 * @property {number} index place in the spec's labels
 * @property {number} probability
 */

/**
 * One label of a multi-label model.
 *
 * @typedef {object} Attribute
 * @property {string} name
 * @property {number} probability
 * @property {number} threshold
 * @property {boolean} present probability >= threshold
 * @property {boolean} accepted false: what was answered is not probable enough
 */

/** The answer of a multi-class model for one image. */
export class Prediction {
  /**
   * @param {readonly number[]} probabilities one for each label; they sum to 1
   * @param {readonly string[]} labels
   * @param {number} minProbability
   */
  constructor(probabilities, labels, minProbability) {
    this.probabilities = probabilities;
    this.labels = labels;
    /** The most probable label's place; of equals the first. */
    this.index = probabilities.reduce((best, p, i) => (p > probabilities[best] ? i : best), 0);
    this.label = labels[this.index];
    this.probability = probabilities[this.index];
    /** False: less probable than was asked for; better ask a person. */
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

/** The answer of a multi-label model for one image: every attribute, in the spec's order. */
export class AttributePrediction {
  /**
   * @param {readonly number[]} probabilities
   * @param {readonly string[]} labels
   * @param {readonly number[]} thresholds
   * @param {number} minProbability
   */
  constructor(probabilities, labels, thresholds, minProbability) {
    /** @type {readonly Attribute[]} */
    this.attributes = Object.freeze(
      labels.map((name, i) => {
        const [probability, threshold] = [probabilities[i], thresholds[i]];
        const present = probability >= threshold;
        const accepted = (present ? probability : 1 - probability) >= minProbability;
        return Object.freeze({ name, probability, threshold, present, accepted });
      }),
    );
    /** True when every attribute is. */
    this.accepted = this.attributes.every((attribute) => attribute.accepted);
    Object.freeze(this);
  }

  /** The names of the attributes that are present. */
  get present() {
    return this.attributes.filter((attribute) => attribute.present).map(({ name }) => name);
  }
}
