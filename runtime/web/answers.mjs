// The check of what a model returned, at every call: float32 arrays of the stated shapes, a row for
// each image, whose values can be an answer. As runtime/answers.py; independent of sessions.

import { AnswerError } from "./errors.mjs";
import { fits } from "./output_spec.mjs";
import { taskNamed } from "./tasks/index.mjs";

/** @typedef {import("./golden.mjs").NdArray<Float32Array>} Floats */
/** @typedef {import("./manifest.mjs").ModelSpec} ModelSpec */
/** @typedef {import("./output_spec.mjs").OutputSpec} OutputSpec */

const ADVICE = "Run the selftest; if it fails here alone, try another variant.";

/**
 * The tensors of a session as arrays, one for each output of the spec, if they are answers for so
 * many images.
 *
 * @param {readonly any[]} tensors of onnxruntime, in the order of the spec's outputs
 * @param {number} images
 * @param {ModelSpec} spec
 * @returns {Floats[]}
 * @throws {AnswerError} which names the first image whose values are not an answer
 */
export function checkedAnswers(tensors, images, { outputs, task }) {
  const arrays = outputs.map((output, i) => checkedArray(output, tensors[i], images));
  const fault = taskNamed(task).fault(arrays);
  if (fault) {
    const [image, reason] = fault;
    throw new AnswerError(
      `the model's answer ${reason} (image ${image} of ${images} in its batch). ${ADVICE}`,
      image,
    );
  }
  return arrays;
}

/** @param {OutputSpec} output @param {any} tensor @param {number} images */
function checkedArray(output, tensor, images) {
  const shape = [...(tensor?.dims ?? [])];
  const data = tensor?.data;
  const isWhole =
    tensor?.type === "float32" &&
    shape[0] === images &&
    fits(output, shape.slice(1)) &&
    data?.length === shape.reduce((product, size) => product * size, 1);
  if (isWhole) return { shape, data };
  const expected = [images, ...output.shape].map((size) => size ?? "any").join(", ");
  throw new AnswerError(
    `the model returned ${tensor?.type} (${shape.join(", ")}) as "${output.name}" for ${images} ` +
      `image${images === 1 ? "" : "s"}; expected float32 (${expected}), a row for each image. ` +
      "Which row belongs to which image cannot be seen. Export the model again, with its batch " +
      "dimension free.",
  );
}
