// The golden samples of a bundle: recorded inputs and outputs, and their comparison with those of
// this browser. As runtime/golden.py; independent of sessions.

import { AnswerError, BundleError, BundleFormatError, SelftestError } from "./errors.mjs";
import { GOLDEN_NAME } from "./manifest.mjs";
import { fits } from "./output_spec.mjs";
import { taskNamed } from "./tasks/index.mjs";
import { ZipReader } from "./zip_reader.mjs";

/** @typedef {import("./manifest.mjs").ModelSpec} ModelSpec */
/** @typedef {import("./manifest.mjs").Variant} Variant */
/** @typedef {import("./tasks/index.mjs").Task} Task */

/**
 * Values in C order.
 *
 * @template {Uint8Array | Float32Array} T
 * @typedef {object} NdArray
 * @property {readonly number[]} shape
 * @property {T} data
 */

const MAX_GOLDEN_BYTES = 2 ** 28; // of golden.npz, and of its arrays together
const ADVICE = "This browser or its onnxruntime computes differently from where the bundle was made.";
const MIXES =
  "One by one they come out as recorded, so the model mixes the images of a batch. Export it " +
  "again, each image on its own.";
// The head of a .npy as NumPy writes it: two dtypes, up to eight dimensions.
const NPY =
  /^\x93NUMPY(?:\x01\x00..|\x02\x00....)\{'descr': '(\|u1|<f4)', 'fortran_order': (False|True), 'shape': \(((?:\d{1,9}, ?){0,7}\d{0,9}),?\),? ?\} *\n/s;
const MAX_HEAD_BYTES = 512;

export class Golden {
  /**
   * @param {readonly NdArray<Uint8Array>[]} raw images [H, W, C] of any size
   * @param {NdArray<Uint8Array>} pixels [n, h, w, c]; the first are the preprocessed raw images
   * @param {ReadonlyMap<string, readonly NdArray<Float32Array>[]>} records variant id -> [n, ...]
   *   of each output
   * @param {Task} task
   */
  constructor(raw, pixels, records, task) {
    this.raw = raw;
    this.pixels = pixels;
    this.records = records;
    this.task = task;
  }

  /**
   * @param {Uint8Array<ArrayBuffer>} bytes of the member of a bundle
   * @param {ModelSpec} spec
   * @throws {BundleFormatError}
   */
  static async fromNpz(bytes, spec) {
    let arrays;
    try {
      arrays = await arraysOf(bytes);
    } catch (cause) {
      if (!(cause instanceof BundleError)) throw cause;
      throw new BundleFormatError(`${GOLDEN_NAME} is not a readable .npz file: ${cause.message}`, {
        cause,
      });
    }
    return checked(arrays, spec);
  }

  /**
   * Throws SelftestError unless preprocessing `raw[index]` gave the recorded bytes.
   *
   * @param {number} index
   * @param {Uint8Array} pixels
   */
  checkPixels(index, pixels) {
    const size = this.pixels.data.length / this.pixels.shape[0];
    const expected = this.pixels.data.subarray(index * size, (index + 1) * size);
    const different = expected.reduce((n, value, i) => n + Number(value !== pixels[i]), 0);
    if (different || pixels.length !== size) {
      throw new SelftestError(
        `${GOLDEN_NAME}: preprocess.onnx gives other pixels for golden image ${index}: ` +
          `${different} of ${size} bytes differ; expected none. ${ADVICE}`,
      );
    }
  }

  /**
   * Run the samples one by one, in pairs and all together. The first and the last sample have a
   * stranger next to them, so that no sample is always at an end of its batch.
   *
   * @param {Variant} variant
   * @param {(pixels: NdArray<Uint8Array>) => Promise<NdArray<Float32Array>[]>} answer gives the
   *   checked outputs
   * @returns {Promise<number>} the largest difference to the record
   * @throws {SelftestError} beyond the variant's tolerance, and for an answer that is refused
   */
  async replay(variant, answer) {
    const record = this.records.get(variant.id);
    if (!record) {
      throw new SelftestError(`${GOLDEN_NAME} has no outputs for variant "${variant.id}".`);
    }
    const [samples, ...shape] = this.pixels.shape;
    const padded = withStrangers(this.pixels);
    const bytes = padded.length / (samples + 2);
    let largest = 0;
    for (const { size, how, advice } of [
      { size: 1, how: "one by one", advice: ADVICE },
      { size: 2, how: "in pairs", advice: MIXES },
      { size: samples + 2, how: "all together", advice: MIXES },
    ]) {
      for (let start = 0; start + size <= samples + 2; start += 1) {
        const [first, end] = [Math.max(start, 1), Math.min(start + size, samples + 1)];
        if (first >= end) continue; // a stranger alone
        const data = padded.subarray(start * bytes, (start + size) * bytes);
        const arrays = await answer({ shape: [size, ...shape], data }).catch((cause) => {
          if (!(cause instanceof AnswerError)) throw cause;
          const words = `variant "${variant.id}", samples ${how}: ${cause.message}`;
          throw new SelftestError(words, { cause });
        });
        const kept = arrays.map((array) => rowsOf(array, first - start, end - start));
        const difference = this.task.compareGolden(kept, record, first - 1);
        if (!(difference <= variant.goldenTolerance)) {
          // true of NaN too
          throw new SelftestError(
            `variant "${variant.id}" differs from its golden outputs by ` +
              `${difference.toPrecision(3)}; expected at most ${variant.goldenTolerance} ` +
              `(samples ${how}). ${advice}`,
          );
        }
        largest = Math.max(largest, difference);
      }
    }
    this.#checkRecord(variant, record);
    return largest;
  }

  /**
   * A tolerance may be as wide as 1: what was recorded must be an answer by itself.
   *
   * @param {Variant} variant
   * @param {readonly NdArray<Float32Array>[]} record
   */
  #checkRecord({ id }, record) {
    const fault = this.task.fault(record);
    if (fault) {
      throw new SelftestError(
        `${GOLDEN_NAME}: what was recorded of variant "${id}" for sample ${fault[0]} ${fault[1]}. ` +
          "Build the bundle again.",
      );
    }
  }
}

/**
 * The rows from `first` to before `end`.
 *
 * @param {NdArray<Float32Array>} array
 * @param {number} first
 * @param {number} end
 */
function rowsOf({ shape: [rows, ...shape], data }, first, end) {
  const size = data.length / rows;
  return { shape: [end - first, ...shape], data: data.subarray(first * size, end * size) };
}

/**
 * The samples, with the negative of the first before them and of the last behind them.
 *
 * @param {NdArray<Uint8Array>} pixels
 */
function withStrangers({ shape: [samples], data }) {
  const bytes = data.length / samples;
  const padded = new Uint8Array(data.length + 2 * bytes);
  padded.set(data.subarray(0, bytes).map((value) => 255 - value));
  padded.set(data, bytes);
  padded.set(
    data.subarray(-bytes).map((value) => 255 - value),
    bytes + data.length,
  );
  return padded;
}

/**
 * @param {Map<string, NdArray<Uint8Array | Float32Array>>} arrays
 * @param {ModelSpec} spec
 */
function checked(arrays, spec) {
  const problems = [];
  const raw = [];
  for (let image; (image = arrays.get(`raw/${raw.length}`));) raw.push(image);
  const pixels = arrays.get("pixels") ?? { shape: [], data: new Float32Array() };
  const samples = pixels.shape[0] ?? 0;
  const isPixels = pixels.data instanceof Uint8Array;
  if (!isPixels || `${pixels.shape}` !== `${[samples, spec.height, spec.width, spec.channels]}`) {
    problems.push(`pixels are ${described(pixels)}`);
  }
  if (samples < Math.max(1, raw.length)) {
    problems.push(`${samples} pixels for ${raw.length} raw images`);
  }
  raw.forEach((image, i) => {
    if (!(image.data instanceof Uint8Array) || image.shape.length !== 3) {
      problems.push(`raw/${i} is ${described(image)}`);
    }
  });
  const variants = new Set();
  for (const [name, array] of arrays) {
    const [output, variant] = splitOnce(name);
    if (variant && spec.outputs.some((one) => one.name === output)) variants.add(variant);
    else if (name !== "pixels" && !raw.includes(array)) {
      problems.push(`unknown array ${JSON.stringify(name)}`);
    }
  }
  const records = new Map();
  for (const variant of variants) {
    records.set(
      variant,
      spec.outputs.map((output) => {
        const name = `${output.name}/${variant}`;
        const array = arrays.get(name);
        const isRight =
          array?.data instanceof Float32Array &&
          array.shape[0] === samples &&
          fits(output, array.shape.slice(1));
        if (!isRight) problems.push(array ? `${name} are ${described(array)}` : `no ${name}`);
        return array;
      }),
    );
  }
  if (problems.length) throw new BundleFormatError(`${GOLDEN_NAME}: ${problems.join("; ")}.`);
  return new Golden(
    /** @type {NdArray<Uint8Array>[]} */ (raw),
    /** @type {NdArray<Uint8Array>} */ (pixels),
    records,
    taskNamed(spec.task),
  );
}

/** @param {string} name */
function splitOnce(name) {
  const at = name.indexOf("/");
  return at < 0 ? [name, ""] : [name.slice(0, at), name.slice(at + 1)];
}

/** @param {NdArray<Uint8Array | Float32Array>} array */
function described({ shape, data }) {
  return `${data instanceof Uint8Array ? "uint8" : "float32"} (${shape.join(", ")})`;
}

/**
 * Every array of a .npz, with no allocation beyond the bounded sizes of its directory.
 *
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
async function arraysOf(bytes) {
  const zip = new ZipReader(bytes, GOLDEN_NAME);
  const total = [...zip.members.values()].reduce((sum, member) => sum + member.sizeBytes, 0);
  if (total > MAX_GOLDEN_BYTES) {
    throw new BundleFormatError(
      `its arrays have ${total} bytes; expected at most ${MAX_GOLDEN_BYTES}.`,
    );
  }
  const arrays = new Map();
  for (const name of zip.members.keys()) {
    const bytes = await zip.inflate(name, MAX_GOLDEN_BYTES);
    arrays.set(name.replace(/\.npy$/, ""), arrayOf(name, bytes));
  }
  return arrays;
}

/**
 * The array in a .npy file whose head promises just as many bytes as follow it.
 *
 * @param {string} name
 * @param {Uint8Array} bytes
 * @returns {NdArray<Uint8Array | Float32Array>}
 */
export function arrayOf(name, bytes) {
  const head = NPY.exec(String.fromCharCode(...bytes.subarray(0, MAX_HEAD_BYTES)));
  if (!head) {
    throw new BundleFormatError(
      `${name} is not an array of uint8 or float32 (it begins with the bytes ` +
        `${[...bytes.subarray(0, 8)]}).`,
    );
  }
  const shape = head[3]
    .split(",")
    .filter((size) => size.trim())
    .map(Number);
  const itemBytes = head[1] === "|u1" ? 1 : 4;
  const expected = shape.reduce((product, size) => product * size, itemBytes);
  const values = bytes.slice(head[0].length); // its own buffer, so aligned for any type
  if (values.length !== expected) {
    throw new BundleFormatError(
      `${name} has ${values.length} bytes of values; expected ${expected} for the shape ` +
        `(${shape.join(", ")}) of ${itemBytes === 1 ? "uint8" : "float32"}.`,
    );
  }
  const data = itemBytes === 1 ? values : new Float32Array(values.buffer);
  return { shape, data: head[2] === "True" ? rowsFirst(data, shape) : data };
}

/**
 * Values whose first index runs fastest, in the order in which the last one does.
 *
 * @template {Uint8Array | Float32Array} T
 * @param {T} values
 * @param {number[]} shape
 */
function rowsFirst(values, shape) {
  const result = values.slice();
  const index = shape.map(() => 0);
  for (let i = 0; i < result.length; i += 1) {
    result[i] = values[index.reduceRight((at, k, axis) => at * shape[axis] + k, 0)];
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis] === shape[axis]; axis -= 1) {
      index[axis] = 0;
    }
  }
  return /** @type {T} */ (result);
}
