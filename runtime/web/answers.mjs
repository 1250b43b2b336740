// The check of what a model returned, at every call: one row of probabilities for each image. As
// runtime/answers.py; independent of sessions.

import { AnswerError } from "./errors.mjs";

/** @typedef {import("./golden.mjs").NdArray<Float32Array>} Probabilities */
/** @typedef {import("./manifest.mjs").ModelSpec} ModelSpec */

// How far a probability may lie outside [0, 1], and the sum of a softmax from 1: half precision
// rounds each by 2^-11 of itself.
export const SLACK = 1e-3;
const ADVICE = "Run the selftest; if it fails here alone, try another variant.";

/**
 * The answer of a session if it is float32 [images, labels], each value in [0, 1] and, for a
 * multi-class model, each row summing to 1.
 *
 * @param {any} tensor of onnxruntime
 * @param {number} images
 * @param {ModelSpec} spec
 * @returns {Probabilities}
 * @throws {AnswerError}
 */
export function checkedAnswer(tensor, images, { labels, task }) {
  const shape = [images, labels.length];
  const data = tensor?.data;
  const isWhole =
    tensor?.type === "float32" &&
    `${tensor.dims}` === `${shape}` &&
    data?.length === images * labels.length;
  if (!isWhole) {
    throw new AnswerError(
      `the model returned ${tensor?.type} (${tensor?.dims}) for ${images} ` +
        `image${images === 1 ? "" : "s"}; expected float32 (${shape.join(", ")}), a row of ` +
        "probabilities for each image. Which row belongs to which image cannot be seen. Export the model again, " +
        "with its batch dimension free.",
    );
  }
  for (let image = 0; image < images; image += 1) {
    const row = data.subarray(image * labels.length, (image + 1) * labels.length);
    const fault = faultOf(row, task === "multi-class");
    if (fault) {
      throw new AnswerError(
        `the model's answer ${fault} (image ${image} of ${images} in its batch). ${ADVICE}`,
        image,
      );
    }
  }
  return { shape, data };
}

/**
 * What a row is instead of probabilities; undefined if it is sound.
 *
 * @param {Float32Array} row
 * @param {boolean} sumsToOne
 */
export function faultOf(row, sumsToOne) {
  let [low, high, sum] = [Infinity, -Infinity, 0];
  for (const value of row) {
    if (!Number.isFinite(value)) {
      return "holds NaN or infinity; expected probabilities from 0 to 1";
    }
    low = Math.min(low, value);
    high = Math.max(high, value);
    sum += value;
  }
  if (low < -SLACK || high > 1 + SLACK) {
    const [from, to] = [low.toPrecision(3), high.toPrecision(3)];
    return `has values from ${from} to ${to}; expected probabilities from 0 to 1`;
  }
  if (sumsToOne && Math.abs(sum - 1) > SLACK) {
    return `sums to ${sum.toPrecision(4)}; expected a softmax, which sums to 1`;
  }
  return undefined;
}
