// The predictor: pixels in, the model's outputs out; or any image in, an answer out. As
// runtime/predictor.py, with promises.

import { Bundle } from "./bundle.mjs";
import {
  BundleFormatError,
  DeviceError,
  InputError,
  PredictorError,
  SelftestError,
} from "./errors.mjs";
import { checkedAnswers } from "./answers.mjs";
import { Golden } from "./golden.mjs";
import { asImage } from "./images.mjs";
import { GOLDEN_NAME, PREPROCESS_NAME, isSameSpec } from "./manifest.mjs";
import { checkedMetadata } from "./model_file.mjs";
import { onnxruntimeWeb } from "./onnxruntime.mjs";
import { taskNamed } from "./tasks/index.mjs";

/** @typedef {import("./bundle.mjs").Source} Source */
/** @typedef {import("./golden.mjs").NdArray<Float32Array>} Floats */
/** @typedef {import("./images.mjs").ImageSource} ImageSource */
/** @typedef {import("./images.mjs").Pixels} Pixels */
/** @typedef {import("./manifest.mjs").ModelSpec} ModelSpec */
/** @typedef {import("./manifest.mjs").Variant} Variant */
/** @typedef {import("./onnxruntime.mjs").Onnxruntime} Onnxruntime */
/** @typedef {import("./tasks/index.mjs").Answer} Answer */

/**
 * The variant that was opened, its device, and the reason.
 *
 * @typedef {object} PredictorInfo
 * @property {string} device "wasm" or "cpu"
 * @property {string} variant
 * @property {number} threads
 * @property {string} reason why this variant
 * @property {string} modelVersion
 * @property {string} bundleId sha256 of the manifest
 * @property {boolean} synthetic trained on generated images
 */

/**
 * The result of the golden samples; there is a report only if all came out as recorded.
 *
 * @typedef {object} SelftestReport
 * @property {string} variant
 * @property {number} images raw images whose preprocessed bytes were equal
 * @property {number} samples model inputs whose outputs were compared
 * @property {number} maxDifference largest difference to the record, in the unit of the tolerance
 * @property {number} tolerance what the manifest allows for this variant
 */

const SPEC_KEY = "edgeproof.spec"; // of the spec in a model's metadata
/** @type {[RegExp, (version: string, newest: string) => string][]} */
const LOAD_ERRORS = [
  [
    /IR version: (\d+), max supported IR version: (\d+)/,
    (version, newest) => `IR version ${version}; this onnxruntime reads up to ${newest}`,
  ],
  [
    /Opset (\d+) is under development.*till opset (\d+)/s,
    (version, newest) => `opset ${version}; this onnxruntime reads up to ${newest}`,
  ],
];
const MODEL_INPUT = "images";
const [PREPROCESS_INPUT, PREPROCESS_OUTPUT] = ["image", "pixels"];

/** One variant of a model, ready to answer. `Predictor.load` makes one. */
export class Predictor {
  #bundle;
  #runtime;
  #variant;
  #session;
  /** @type {Promise<any> | undefined} the session of preprocess.onnx, opened at its first use */
  #preprocessor;
  #isClosed = false;

  /**
   * @param {Bundle} bundle
   * @param {Onnxruntime} runtime
   * @param {Variant} variant
   * @param {any} session
   * @param {string} reason
   */
  constructor(bundle, runtime, variant, session, reason) {
    this.#bundle = bundle;
    this.#runtime = runtime;
    this.#variant = variant;
    this.#session = session;
    /** @type {Readonly<PredictorInfo>} */
    this.info = Object.freeze({
      device: runtime.device,
      variant: variant.id,
      threads: runtime.threads,
      reason,
      modelVersion: bundle.manifest.modelVersion,
      bundleId: bundle.id,
      synthetic: bundle.manifest.synthetic,
    });
    /** @type {ModelSpec} */
    this.spec = bundle.manifest.spec;
  }

  /**
   * Open a bundle: an address, a Blob or File, the bytes of one, or a Bundle that is open.
   *
   * @param {Source | Bundle} source
   * @param {object} [options]
   * @param {string} [options.variant] an id, or "auto": what the bundle names for WebAssembly
   * @param {Onnxruntime} [options.runtime] by default onnxruntime-web from `ort/` next to this file
   * @param {number} [options.threads] of that; 1 by default
   * @returns {Promise<Predictor>}
   * @throws {PredictorError}
   */
  static async load(source, { variant = "auto", runtime, threads = 1 } = {}) {
    const [bundle, ort] = await Promise.all([
      source instanceof Bundle ? source : Bundle.open(source),
      runtime ?? onnxruntimeWeb({ threads }),
    ]);
    const { manifest } = bundle;
    const usual = manifest.defaultFor(ort.target);
    const chosen = manifest.variant(variant === "auto" ? usual.variant : variant);
    const reason =
      variant === "auto"
        ? `${usual.variant} is the default of ${usual.target}: ${usual.reason}`
        : `${variant} was requested.`;
    const model = await bundle.read(chosen.file);
    checkStamp(checkedMetadata(model).get(SPEC_KEY), manifest.spec);
    const session = await sessionOf(model, ort, true);
    const { height, width, channels, outputs } = manifest.spec;
    checkEnds(
      session,
      [{ name: MODEL_INPUT, type: "uint8", shape: [null, height, width, channels] }],
      outputs.map(({ name, shape }) => ({ name, type: "float32", shape: [null, ...shape] })),
    );
    return new Predictor(bundle, ort, chosen, session, reason);
  }

  /**
   * The one output, float32 [N, ...], of the model's pixels, uint8 [N, h, w, c]: for a model with
   * labels its probabilities [N, labels]. The pixels are copied before this returns, so that the
   * caller may write over them at once.
   *
   * @param {Pixels} pixels
   * @returns {Promise<Floats>}
   * @throws {InputError | DeviceError | AnswerError} InputError also for a model of several outputs,
   *   which `outputs` gives
   */
  async run(pixels) {
    const names = this.spec.outputs.map(({ name }) => name);
    if (names.length > 1) {
      throw new InputError(
        `the model has the outputs ${names.join(", ")}; expected one. Call outputs(pixels), which ` +
          "gives all of them by name.",
      );
    }
    return (await this.#runChecked(pixels))[0];
  }

  /**
   * Every output by its name, in the order of the spec. Takes and throws what `run` does.
   *
   * @param {Pixels} pixels
   * @returns {Promise<Map<string, Floats>>}
   */
  async outputs(pixels) {
    const arrays = await this.#runChecked(pixels);
    return new Map(arrays.map((array, i) => [this.spec.outputs[i].name, array]));
  }

  /** @param {Pixels} pixels */
  async #runChecked({ shape, data }) {
    this.#requireOpen();
    const { height, width, channels } = this.spec;
    const expected = [shape[0], height, width, channels];
    const bytes = expected.reduce((product, size) => product * size, 1);
    const given = /** @type {any} */ (data);
    if (!(given instanceof Uint8Array || given instanceof Uint8ClampedArray)) {
      const type = given?.constructor?.name ?? typeof given;
      throw new InputError(
        `input "images" is a ${type}; expected the pixels as a Uint8Array. Normalization is ` +
          "inside the model.",
      );
    }
    if (`${shape}` !== `${expected}` || !shape[0] || data.length !== bytes) {
      throw new InputError(
        `input "images" has shape (${shape.join(", ")}) and ${data.length} bytes; expected ` +
          `(N, ${expected.slice(1).join(", ")}), uint8, rows first, N at least 1. Images of ` +
          "another size go through predict().",
      );
    }
    const names = this.spec.outputs.map(({ name }) => name);
    const pixels = new Uint8Array(data);
    const tensors = await this.#ask(this.#session, MODEL_INPUT, names, expected, pixels);
    return checkedAnswers(tensors, expected[0], this.spec);
  }

  /**
   * The model's pixels of an image: uint8 [h, w, c].
   *
   * @param {ImageSource} image
   * @returns {Promise<Pixels>}
   * @throws {InputError}
   */
  async preprocess(image) {
    this.#requireOpen();
    const { shape, data } = await asImage(image, this.spec.whiteLevel);
    const session = await (this.#preprocessor ??= this.#openPreprocessor());
    const [made] = await this.#ask(session, PREPROCESS_INPUT, [PREPROCESS_OUTPUT], shape, data);
    const { height, width, channels } = this.spec;
    const isRight = made.type === "uint8" && made.data.length === height * width * channels;
    if (!isRight || `${made.dims}` !== `${[height, width, channels]}`) {
      throw new BundleFormatError(
        `${PREPROCESS_NAME} made ${made.type} pixels of shape (${made.dims.join(", ")}); ` +
          `expected uint8, (${height}, ${width}, ${channels}). Build the bundle again.`,
      );
    }
    return { shape: [height, width, channels], data: made.data };
  }

  /**
   * The answer of the model's task for one image of any size: a Prediction, an AttributePrediction
   * or Values. Those with probabilities are not `accepted` where they are less probable than
   * `minProbability`.
   *
   * @param {ImageSource} image
   * @param {{minProbability?: number}} [options]
   * @returns {Promise<Answer>}
   * @throws {InputError}
   */
  async predict(image, { minProbability = 0 } = {}) {
    this.#checkProbability(minProbability);
    return this.answer(await this.preprocess(image), { minProbability });
  }

  /**
   * The answer for pixels that were preprocessed: uint8 [h, w, c].
   *
   * @param {Pixels} pixels
   * @param {{minProbability?: number}} [options]
   * @returns {Promise<Answer>}
   */
  async answer({ shape, data }, { minProbability = 0 } = {}) {
    this.#checkProbability(minProbability);
    const arrays = await this.#runChecked({ shape: [1, ...shape], data });
    const task = taskNamed(this.spec.task);
    return task.answer(arrays, this.spec, this.#variant.thresholds, minProbability);
  }

  /**
   * Hash every member and run the golden samples here: one by one, in pairs and all together,
   * since an answer must not depend on its neighbors in a batch.
   *
   * @returns {Promise<SelftestReport>}
   * @throws {PredictorError} SelftestError for the first sample that does not come out as recorded
   */
  async selftest() {
    this.#requireOpen();
    await this.#bundle.verify();
    if (!this.#bundle.manifest.files.has(GOLDEN_NAME)) {
      throw new SelftestError(
        `${GOLDEN_NAME} is missing, so nothing can be tested. Build the bundle again.`,
      );
    }
    const golden = await Golden.fromNpz(await this.#bundle.read(GOLDEN_NAME), this.spec);
    for (const [index, image] of golden.raw.entries()) {
      golden.checkPixels(index, (await this.preprocess(image)).data);
    }
    return {
      variant: this.#variant.id,
      images: golden.raw.length,
      samples: golden.pixels.shape[0],
      maxDifference: await golden.replay(this.#variant, (pixels) => this.#runChecked(pixels)),
      tolerance: this.#variant.goldenTolerance,
    };
  }

  /**
   * Run `n` black images one by one, so that the first real call is as fast as the rest.
   *
   * @param {number} n
   */
  async warmup(n = 3) {
    const { height, width, channels } = this.spec;
    const black = new Uint8Array(height * width * channels);
    for (let i = 0; i < n; i += 1) {
      await this.#runChecked({ shape: [1, height, width, channels], data: black });
    }
  }

  /** Free the sessions; every later call throws. */
  async close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const sessions = [this.#session, await this.#preprocessor?.catch(() => undefined)];
    await Promise.all(sessions.map((session) => session?.release()));
  }

  async #openPreprocessor() {
    const file = await this.#bundle.read(PREPROCESS_NAME);
    checkedMetadata(file);
    const session = await sessionOf(file, this.#runtime, false);
    const { height, width, channels } = this.spec;
    checkEnds(
      session,
      [{ name: PREPROCESS_INPUT, type: "uint8", shape: [null, null, null] }],
      [{ name: PREPROCESS_OUTPUT, type: "uint8", shape: [height, width, channels] }],
    );
    return session;
  }

  /**
   * The tensors of these outputs, in their order.
   *
   * @param {any} session
   * @param {string} input
   * @param {string[]} outputs
   * @param {readonly number[]} shape
   * @param {Uint8Array} data
   */
  async #ask(session, input, outputs, shape, data) {
    const { Tensor } = this.#runtime.ort;
    try {
      const tensors = await session.run({ [input]: new Tensor("uint8", data, [...shape]) }, outputs);
      return outputs.map((name) => tensors[name]);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new DeviceError(
        `onnxruntime failed on an input of shape (${shape.join(", ")}): ${reason}. If memory is ` +
          "short, give a smaller image or fewer of them.",
        { cause },
      );
    }
  }

  /** @param {number} value */
  #checkProbability(value) {
    if (!(value >= 0 && value <= 1)) {
      throw new InputError(`minProbability=${value}; expected a number from 0 to 1.`);
    }
    if (value && !taskNamed(this.spec.task).hasLabels) {
      throw new InputError(
        `minProbability=${value}; expected 0, since a model of the task ${this.spec.task} gives no ` +
          "probabilities.",
      );
    }
  }

  #requireOpen() {
    if (this.#isClosed) throw new PredictorError("this predictor is closed. Open another one.");
  }
}

/**
 * @param {Uint8Array} model
 * @param {Onnxruntime} runtime
 * @param {boolean} isShapeFixed the memory pattern, a plan for each shape that was met, pays only
 *   where shapes repeat; elsewhere the plans pile up
 */
async function sessionOf(model, { ort, device, threads }, isShapeFixed) {
  try {
    return await ort.InferenceSession.create(model, {
      executionProviders: [device],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      graphOptimizationLevel: "all",
      enableMemPattern: isShapeFixed,
      logSeverityLevel: 3, // errors
    });
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    const reason = LOAD_ERRORS.reduce((other, [pattern, describe]) => {
      const match = pattern.exec(text);
      return match ? `it has ${describe(match[1], match[2])}. Take a newer onnxruntime.` : other;
    }, text);
    throw new BundleFormatError(`the model cannot be loaded by this onnxruntime: ${reason}`, {
      cause,
    });
  }
}

/** @param {string | undefined} stamp @param {ModelSpec} spec */
function checkStamp(stamp, spec) {
  if (stamp === undefined) {
    throw new BundleFormatError(
      `the model has no metadata "${SPEC_KEY}"; expected its spec. Export it again.`,
    );
  }
  let isSame = false;
  try {
    isSame = isSameSpec(stamp, spec);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new BundleFormatError(`the model's stamp is not a spec: ${reason}`, { cause });
  }
  if (!isSame) {
    throw new BundleFormatError(
      `the model is stamped with another spec (${stamp}) than the manifest's ` +
        `(${JSON.stringify(spec)}). Build the bundle again.`,
    );
  }
}

/**
 * One end of a graph; null stands for a dimension that must be free.
 *
 * @typedef {object} End
 * @property {string} name
 * @property {string} type
 * @property {readonly (number | null)[]} shape
 */

/**
 * Throws unless the graph has just these inputs and outputs.
 *
 * @param {any} session
 * @param {End[]} inputs
 * @param {End[]} outputs
 */
function checkEnds({ inputMetadata, outputMetadata }, inputs, outputs) {
  if (!inputMetadata) return; // an onnxruntime before 1.21 does not report them
  checkEnd("inputs", inputMetadata, inputs);
  checkEnd("outputs", outputMetadata, outputs);
}

/** @param {string} what @param {any[]} ends @param {End[]} expected */
function checkEnd(what, ends, expected) {
  const fit =
    ends.length === expected.length &&
    expected.every(
      ({ name, type, shape }, i) =>
        ends[i].name === name &&
        ends[i].type === type &&
        ends[i].shape.length === shape.length &&
        // a free dimension has a name, one that is known must be that number
        ends[i].shape.every(
          (/** @type {unknown} */ size, /** @type {number} */ axis) =>
            typeof size !== "number" || size === shape[axis],
        ),
    );
  if (!fit) {
    throw new BundleFormatError(
      `the graph has the ${what} ${JSON.stringify(ends)}; expected ${JSON.stringify(expected)} ` +
        "(null: any size). Export it again.",
    );
  }
}
