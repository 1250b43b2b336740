// The table of contents of a bundle, as frozen values. Parsing refuses what this runtime does not
// understand; hashing and reading members is bundle.mjs's. As runtime/manifest.py and spec.py.

import { BundleFormatError, VariantError } from "./errors.mjs";
import { checkOutputs, outputSpec } from "./output_spec.mjs";
import { hiddenCharacter } from "./plain_text.mjs";
import { parse } from "./strict_json.mjs";
import { taskNamed } from "./tasks/index.mjs";

/** @typedef {import("./output_spec.mjs").OutputSpec} OutputSpec */

export const SCHEMA_VERSION = 1;
export const SPEC_VERSION = 2; // the newest; each spec is written in the oldest that can express it
export const MANIFEST_NAME = "manifest.json";
export const MANIFEST_HASH_NAME = "manifest.sha256"; // hex digest of manifest.json; the bundle's id
export const MANIFEST_SIGNATURE_NAME = "manifest.sig"; // may be there; not looked at here
export const PREPROCESS_NAME = "preprocess.onnx";
export const GOLDEN_NAME = "golden.npz";
export const MEASUREMENTS_NAME = "measurements.json";
const PRECISIONS = ["fp32", "fp16", "int8"];
const MAX_SIDE = 16384; // pixels: nothing of a bundle may ask for memory without bound
const SHA256 = /^[0-9a-f]{64}$/;
const ID = /^[A-Za-z0-9_.+-]+$/;
const MAX_WHITE = 65535; // of 16-bit pixels
const SPEC_KEYS = [
  "name",
  "task",
  "height",
  "width",
  "channels",
  "labels",
  "spec_version",
  "white_level",
];

/**
 * The contract of one model: `images`, uint8 [N, height, width, channels], to its outputs. For a
 * task with labels that is `probabilities`, float32 [N, labels.length].
 *
 * @typedef {object} ModelSpec
 * @property {string} name
 * @property {string} task a name of TASKS
 * @property {number} height pixels
 * @property {number} width pixels
 * @property {1 | 3} channels 1: gray; 3: red, green, blue
 * @property {readonly string[]} labels
 * @property {readonly OutputSpec[]} outputs
 * @property {number | null} whiteLevel the value of 16-bit pixels that is white; null: not stated
 */

/**
 * One form of the model.
 *
 * @typedef {object} Variant
 * @property {string} id begins with its precision
 * @property {string} file member name
 * @property {string} precision "fp32", "fp16" or "int8"
 * @property {boolean} portable bit-identical quantized tensors on every target
 * @property {number} goldenTolerance largest |probability difference| that selftest accepts
 * @property {readonly number[] | null} thresholds one for each label, or none
 */

/**
 * @typedef {object} Default
 * @property {string} target "x86_64-avx2", "arm64", "wasm", ..., or "cpu" for any other
 * @property {string} variant
 * @property {string} reason what was measured, or the words "not measured here"
 */

/**
 * @typedef {object} FileEntry
 * @property {string} sha256 lower-case hex
 * @property {number} sizeBytes
 */

/** All that a bundle says about itself. */
export class Manifest {
  /**
   * @param {object} fields
   * @param {string} fields.modelVersion
   * @param {ModelSpec} fields.spec
   * @param {ReadonlyMap<string, FileEntry>} fields.files every member but the three unlisted ones
   * @param {readonly Variant[]} fields.variants
   * @param {readonly Default[]} fields.defaults
   * @param {Readonly<Record<string, unknown>>} fields.provenance for people and tools
   */
  constructor({ modelVersion, spec, files, variants, defaults, provenance }) {
    this.modelVersion = modelVersion;
    this.spec = spec;
    this.files = files;
    this.variants = variants;
    this.defaults = defaults;
    this.provenance = provenance;
    Object.freeze(this);
  }

  /** True when the model was trained on generated images. */
  get synthetic() {
    const { data } = /** @type {{data?: {synthetic?: boolean}}} */ (this.provenance);
    return data?.synthetic === true;
  }

  /**
   * @param {string} id
   * @returns {Variant}
   * @throws {VariantError} naming those that exist
   */
  variant(id) {
    const row = this.variants.find((variant) => variant.id === id);
    if (row) return row;
    const ids = this.variants.map((variant) => variant.id).join(", ");
    throw new VariantError(`the bundle has no variant ${JSON.stringify(id)}; it has: ${ids}.`);
  }

  /**
   * The default of a target, or the "cpu" one where that target has no row.
   *
   * @param {string} target
   * @returns {Default}
   */
  defaultFor(target) {
    const row = (/** @type {string} */ name) => this.defaults.find((d) => d.target === name);
    return /** @type {Default} */ (row(target) ?? row("cpu")); // fromJson made sure of "cpu"
  }

  /**
   * @param {Uint8Array} bytes of manifest.json
   * @throws {BundleFormatError}
   */
  static fromJson(bytes) {
    const data = read(bytes);
    const version = data.schema_version;
    if (!Number.isInteger(version) || Number(version) < 1 || Number(version) > SCHEMA_VERSION) {
      throw new BundleFormatError(
        `${MANIFEST_NAME} has schema_version ${JSON.stringify(version)}; this runtime reads up ` +
          `to ${SCHEMA_VERSION}. Install a newer runtime or rebuild the bundle.`,
      );
    }
    try {
      checkTexts(data);
      const manifest = new Manifest({
        modelVersion: text(data.model_version, "model_version"),
        spec: spec(data.spec),
        files: new Map(Object.entries(object(data.files, "files")).map(fileEntry)),
        variants: list(data.variants, "variants").map(variant),
        defaults: list(data.defaults, "defaults").map(defaultRow),
        provenance: provenance(data.provenance),
      });
      check(manifest, list(data.devices, "devices"));
      return manifest;
    } catch (cause) {
      if (!(cause instanceof TypeError)) throw cause;
      throw new BundleFormatError(
        `${MANIFEST_NAME} is not of schema ${version}: ${cause.message}. Rebuild the bundle.`,
        { cause },
      );
    }
  }
}

/**
 * Whether the spec that is stamped into a model is that of its manifest.
 *
 * @param {string} stamp JSON
 * @param {ModelSpec} expected
 */
export function isSameSpec(stamp, expected) {
  const stamped = spec(parse(new TextEncoder().encode(stamp)));
  return JSON.stringify(stamped) === JSON.stringify(expected);
}

/** @param {Uint8Array} bytes */
function read(bytes) {
  let data;
  try {
    data = parse(bytes);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new BundleFormatError(`${MANIFEST_NAME} is not JSON: ${reason}.`, { cause });
  }
  if (typeof data !== "object" || data === null || Array.isArray(data)) {
    throw new BundleFormatError(`${MANIFEST_NAME} is not a JSON object.`);
  }
  return /** @type {Record<string, unknown>} */ (data);
}

/**
 * Throws unless the parts of the manifest agree with each other.
 *
 * @param {Manifest} manifest
 * @param {unknown[]} devices
 */
function check({ spec, files, variants, defaults }, devices) {
  const problems = [];
  const ids = variants.map((row) => row.id);
  if (!ids.length || new Set(ids).size !== ids.length) {
    problems.push(`variants [${ids}] are none or not distinct`);
  }
  const count = taskNamed(spec.task).hasThresholds ? spec.labels.length : undefined;
  for (const { id, file, precision, thresholds } of variants) {
    if (!PRECISIONS.includes(precision) || !id.startsWith(precision)) {
      problems.push(`variant ${JSON.stringify(id)} has precision ${JSON.stringify(precision)}`);
    }
    if (!files.has(file)) problems.push(`variant ${JSON.stringify(id)} has no file ${file}`);
    if (thresholds?.length !== count) {
      problems.push(
        `variant ${JSON.stringify(id)} has ${thresholds?.length ?? "no"} thresholds, ` +
          `needs ${count ?? "none"}`,
      );
    }
  }
  for (const row of defaults) {
    if (!ids.includes(row.variant)) {
      problems.push(`the default of ${row.target} is the unknown variant ${row.variant}`);
    }
  }
  if (!defaults.some((row) => row.target === "cpu")) problems.push("there is no default for cpu");
  if (!devices.map((device) => text(device, "device")).includes("cpu")) {
    problems.push(`devices [${devices}] lack cpu`);
  }
  if (!files.has(PREPROCESS_NAME)) problems.push(`no ${PREPROCESS_NAME}`);
  if (problems.length) throw new BundleFormatError(`${MANIFEST_NAME}: ${problems.join("; ")}.`);
}

/**
 * @param {unknown} value
 * @returns {ModelSpec}
 */
function spec(value) {
  const data = object(value, "spec");
  const version = Number(data.spec_version);
  if (typeof data.spec_version !== "number" || ![1, SPEC_VERSION].includes(version)) {
    throw new BundleFormatError(
      `model spec has spec_version ${JSON.stringify(data.spec_version)}; this runtime reads up to ` +
        `${SPEC_VERSION}. Install a newer runtime or rebuild the bundle.`,
    );
  }
  const keys = [...SPEC_KEYS, ...(version > 1 ? ["outputs"] : [])];
  const unknown = Object.keys(data).filter((key) => !keys.includes(key));
  if (unknown.length) {
    throw new BundleFormatError(
      `model spec has unknown keys [${unknown}]; this runtime reads spec version ${version} ` +
        "without them. Install a newer runtime or rebuild the bundle.",
    );
  }
  const task = taskNamed(text(data.task, "task"));
  if (task.specVersion !== version) {
    throw new BundleFormatError(
      `model spec has spec_version ${version}; expected ${task.specVersion}, the oldest that can ` +
        `express the task "${task.name}". Rebuild the bundle.`,
    );
  }
  const [height, width] = [count(data.height, "height"), count(data.width, "width")];
  const { channels } = data;
  const sides = [height, width];
  if (
    Math.min(...sides) < 1 ||
    Math.max(...sides) > MAX_SIDE ||
    (channels !== 1 && channels !== 3)
  ) {
    throw new BundleFormatError(
      `model spec has size ${height}x${width}x${channels}; expected a positive height and width ` +
        `of at most ${MAX_SIDE} and 1 (gray) or 3 (rgb) channels.`,
    );
  }
  const labels = list(data.labels, "labels").map((label) => text(label, "label"));
  if (labels.length > 0 !== task.hasLabels || new Set(labels).size !== labels.length) {
    const expected = task.hasLabels ? "distinct names, at least one" : "none for its task";
    throw new BundleFormatError(`model spec has labels [${labels}]; expected ${expected}.`);
  }
  const given = version > 1 ? list(data.outputs, "outputs").map(outputSpec) : [];
  const outputs = task.outputs(labels, given);
  checkOutputs(outputs);
  const whiteLevel = "white_level" in data ? count(data.white_level, "white_level") : null;
  if (whiteLevel !== null && (whiteLevel < 1 || whiteLevel > MAX_WHITE)) {
    throw new BundleFormatError(
      `model spec has white_level ${whiteLevel}; expected 1 to ${MAX_WHITE}, or none.`,
    );
  }
  return Object.freeze({
    name: text(data.name, "name"),
    task: task.name,
    height,
    width,
    channels,
    labels: Object.freeze(labels),
    outputs: Object.freeze(outputs),
    whiteLevel,
  });
}

/** @param {[string, unknown]} row @returns {[string, FileEntry]} */
function fileEntry([name, value]) {
  const entry = object(value, name);
  const sha256 = match(SHA256, entry.sha256, "sha256");
  return [name, Object.freeze({ sha256, sizeBytes: count(entry.size_bytes, "size_bytes") })];
}

/** @param {unknown} value @returns {Variant} */
function variant(value) {
  const row = object(value, "variant");
  if (typeof row.portable !== "boolean") throw wrong(row.portable, "portable");
  const thresholds =
    row.thresholds === null
      ? null
      : Object.freeze(list(row.thresholds, "thresholds").map((x) => share(x, "threshold")));
  if (row.device_tolerance !== undefined && row.device_tolerance !== null) {
    share(row.device_tolerance, "device_tolerance"); // WebAssembly is a CPU: not used here
  }
  return Object.freeze({
    id: match(ID, row.id, "id"),
    file: text(row.file, "file"),
    precision: text(row.precision, "precision"),
    portable: row.portable,
    goldenTolerance: share(row.golden_tolerance, "golden_tolerance"),
    thresholds,
  });
}

/** @param {unknown} value @returns {Default} */
function defaultRow(value) {
  const row = object(value, "default");
  const target = text(row.target, "target");
  return Object.freeze({
    target,
    variant: text(row.variant, "variant"),
    reason: text(row.reason, "reason"),
  });
}

/** @param {unknown} value */
function provenance(value) {
  const origin = object(value, "provenance");
  const data = origin.data === undefined ? {} : object(origin.data, "provenance.data");
  if (data.synthetic !== undefined && typeof data.synthetic !== "boolean") {
    throw wrong(data.synthetic, "provenance.data.synthetic");
  }
  return origin;
}

/**
 * Throws when a string of the manifest, or a key, holds what does not show.
 *
 * @param {unknown} data
 */
function checkTexts(data) {
  /** @type {[string, unknown][]} */
  const waiting = [["", data]];
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const [path, value] = next;
    const character = typeof value === "string" && hiddenCharacter(value);
    if (character) {
      throw new BundleFormatError(
        `${MANIFEST_NAME}: ${path} has ${character}, a control or invisible character.`,
      );
    }
    if (typeof value !== "object" || value === null) continue;
    for (const [key, inner] of Object.entries(value)) {
      waiting.push([`a key in ${path}`, key], [`${path}.${key}`, inner]);
    }
  }
}

/** @param {unknown} value @param {string} what */
function wrong(value, what) {
  return new TypeError(`${what} is ${JSON.stringify(value) ?? "missing"}`);
}

/** @param {unknown} value @param {string} what @returns {string} */
function text(value, what) {
  if (typeof value !== "string") throw wrong(value, what);
  return value;
}

/** @param {RegExp} pattern @param {unknown} value @param {string} what */
function match(pattern, value, what) {
  const checked = text(value, what);
  if (pattern.test(checked)) return checked;
  throw new TypeError(`${what} is ${JSON.stringify(checked)}, expected ${pattern.source}`);
}

/** @param {unknown} value @param {string} what @returns {unknown[]} */
function list(value, what) {
  if (!Array.isArray(value)) throw new TypeError(`${what} is not a list; expected one`);
  return value;
}

/** @param {unknown} value @param {string} what @returns {Record<string, unknown>} */
function object(value, what) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw wrong(value, what);
  }
  return /** @type {Record<string, unknown>} */ (value);
}

/** @param {unknown} value @param {string} what @returns {number} */
function count(value, what) {
  if (!Number.isInteger(value) || Number(value) < 0) throw wrong(value, what);
  return Number(value);
}

/** @param {unknown} value @param {string} what @returns {number} */
function share(value, what) {
  if (typeof value !== "number" || !(value >= 0 && value <= 1)) throw wrong(value, what);
  return value;
}
