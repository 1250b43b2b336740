// multi-label: each label is an attribute that an image has or has not; the probabilities are one
// sigmoid for each. As runtime/tasks/multi_label.py.

import { probabilityTask } from "./probabilities.mjs";

/** @typedef {import("./index.mjs").Floats} Floats */
/** @typedef {import("../manifest.mjs").ModelSpec} ModelSpec */

/**
 * One label.
 *
 * @typedef {object} Attribute
 * @property {string} name
 * @property {number} probability
 * @property {number} threshold
 * @property {boolean} present probability >= threshold
 * @property {boolean} accepted false: the answer, present or absent, is not probable
 *   enough
 */

/** The answer for one image: every attribute, in the spec's order. */
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

export const MULTI_LABEL = {
  ...probabilityTask(false),
  name: "multi-label",
  hasThresholds: true,
  /**
   * @param {readonly Floats[]} arrays
   * @param {ModelSpec} spec
   * @param {readonly number[] | null} thresholds one for each label, as the manifest's check saw to
   * @param {number} minProbability
   */
  answer: ([{ data }], { labels }, thresholds, minProbability) =>
    new AttributePrediction(
      [...data.subarray(0, labels.length)],
      labels,
      thresholds ?? [],
      minProbability,
    ),
};
