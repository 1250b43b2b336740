// The part that tasks with labels share: one output, a row of probabilities for each image. As
// runtime/tasks/probabilities.py.

/** @typedef {import("./index.mjs").Floats} Floats */
/** @typedef {import("../output_spec.mjs").OutputSpec} OutputSpec */

// How far a probability may lie outside [0, 1], and the sum of a softmax from 1: half precision
// rounds each by 2^-11 of itself.
export const SLACK = 1e-3;

/**
 * What a task has whose model returns `probabilities`, float32 [N, labels].
 *
 * @param {boolean} sumsToOne each row is a softmax
 */
export function probabilityTask(sumsToOne) {
  return {
    specVersion: 1,
    hasLabels: true,
    /** @param {readonly string[]} labels @returns {readonly OutputSpec[]} */
    outputs: (labels) => [{ name: "probabilities", shape: [labels.length], dtype: "float32" }],
    /** @param {readonly Floats[]} arrays @returns {[number, string] | undefined} */
    fault: ([{ shape, data }]) => {
      const [images, labels] = shape;
      for (let image = 0; image < images; image += 1) {
        const reason = rowFault(data.subarray(image * labels, (image + 1) * labels), sumsToOne);
        if (reason) return [image, reason];
      }
      return undefined;
    },
    /** @param {readonly Floats[]} arrays @param {readonly Floats[]} record @param {number} first */
    compareGolden: ([{ data }], [recorded], first) => {
      const start = first * recorded.shape[1];
      return largestDifference(data, recorded.data.subarray(start, start + data.length));
    },
  };
}

/**
 * NaN if one value is.
 *
 * @param {Float32Array} values
 * @param {Float32Array} recorded as many
 */
export function largestDifference(values, recorded) {
  return recorded.reduce((d, value, i) => Math.max(d, Math.abs(value - values[i])), 0);
}

/** @param {Float32Array} row @param {boolean} sumsToOne */
function rowFault(row, sumsToOne) {
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
