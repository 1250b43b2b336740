// A look into an ONNX file before onnxruntime parses it: whether it is one well-formed file that
// holds all of itself, and what its metadata say, which onnxruntime-web does not report. As
// runtime/model_file.py; independent of specs.

import { BundleFormatError } from "./errors.mjs";

// message -> {field: the message in it}: every way from a model to its tensors and nodes, by
// onnx.proto, and to its metadata
/** @type {Record<string, Record<number, string>>} */
const PATHS = {
  ModelProto: {
    7: "GraphProto",
    14: "StringStringEntryProto",
    20: "TrainingInfoProto",
    25: "FunctionProto",
  },
  StringStringEntryProto: {},
  TrainingInfoProto: { 1: "GraphProto", 2: "GraphProto" },
  FunctionProto: { 7: "NodeProto", 11: "AttributeProto" },
  GraphProto: { 1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto" },
  NodeProto: { 5: "AttributeProto" },
  AttributeProto: {
    5: "TensorProto",
    6: "GraphProto",
    10: "TensorProto",
    11: "GraphProto",
    22: "SparseTensorProto",
    23: "SparseTensorProto",
  },
  SparseTensorProto: { 1: "TensorProto", 2: "TensorProto" },
  TensorProto: {},
};
const OP_TYPE = 4; // of NodeProto
const [EXTERNAL_DATA, DATA_LOCATION] = [13, 14]; // of TensorProto
const [KEY, VALUE] = [1, 2]; // of StringStringEntryProto
const COMPILED_NODE = "EPContext"; // names a file, or holds code for a device
const [VARINT, FIXED64, BYTES, FIXED32] = [0, 1, 2, 5]; // wire types; 3 and 4, groups, ONNX has none
const MAX_DEPTH = 100; // of messages in messages, as protobuf's own parsers
const MAX_FIELDS = 1_000_000; // a thousand layers have thirty thousand
const MAX_FIELD_NUMBER = 2 ** 29 - 1; // a parser that keeps 32 bits of a tag would see another
const REBUILD = "Build the bundle again.";

/**
 * The metadata of a complete ONNX file.
 *
 * @param {Uint8Array} bytes
 * @returns {Map<string, string>}
 * @throws {BundleFormatError}
 */
export function checkedMetadata(bytes) {
  const start = String.fromCharCode(...bytes.subarray(0, 32));
  if (start.startsWith("version https://git-lfs")) {
    throw refusal("it is the pointer of a Git LFS file. Run git lfs pull.");
  }
  if (start.slice(4, 8) === "ORTM") {
    throw refusal(`it is a file in onnxruntime's own format; expected ONNX. ${REBUILD}`);
  }
  /** @type {Map<string, string>} */
  const metadata = new Map();
  let fields = 0;
  const stack = [{ message: "ModelProto", at: 0, end: bytes.length, depth: 1 }];
  for (let part; (part = stack.pop());) {
    const { message, end, depth } = part;
    /** @type {Record<number, string>} */
    const texts = {};
    for (let { at } = part; at < end;) {
      const field = fieldAt(bytes, at);
      fields += 1;
      if (field.end > end || fields > MAX_FIELDS || depth > MAX_DEPTH) {
        throw noModel(field.start);
      }
      const inner = PATHS[message][field.number];
      if (field.wireType === BYTES && inner) {
        stack.push({ message: inner, at: field.start, end: field.end, depth: depth + 1 });
      } else if (message === "StringStringEntryProto") {
        texts[field.number] = utf8(bytes.subarray(field.start, field.end));
      } else {
        refuseWhatIsElsewhere(bytes, message, field);
      }
      at = field.end;
    }
    if (message === "StringStringEntryProto") metadata.set(texts[KEY] ?? "", texts[VALUE] ?? "");
  }
  return metadata;
}

/** @typedef {{number: number, wireType: number, value: number, start: number, end: number}} Field */

/**
 * @param {Uint8Array} bytes
 * @param {string} message
 * @param {Field} field
 */
function refuseWhatIsElsewhere(bytes, message, { number, value, start, end }) {
  if (
    message === "TensorProto" &&
    (number === EXTERNAL_DATA || (number === DATA_LOCATION && value))
  ) {
    throw refusal(`a tensor is stored in another file (external data). ${REBUILD}`);
  }
  const isCompiled = message === "NodeProto" && number === OP_TYPE;
  if (
    isCompiled &&
    String.fromCharCode(...bytes.subarray(start, Math.min(end, start + 16))) === COMPILED_NODE
  ) {
    throw refusal(`it has a node EPContext, which loads compiled code. ${REBUILD}`);
  }
}

/**
 * @param {Uint8Array} bytes
 * @param {number} at
 * @returns {Field}
 */
function fieldAt(bytes, at) {
  const tag = varint(bytes, at);
  const [number, wireType] = [Math.floor(tag.value / 8), tag.value % 8];
  if (number < 1 || number > MAX_FIELD_NUMBER) throw noModel(at);
  let [start, value, end] = [tag.end, 0, tag.end];
  if (wireType === BYTES) {
    ({ value, end: start } = varint(bytes, start));
    end = start + value;
  } else if (wireType === VARINT) {
    ({ value, end } = varint(bytes, start));
  } else if (wireType === FIXED32 || wireType === FIXED64) {
    end = start + (wireType === FIXED32 ? 4 : 8);
  } else {
    throw noModel(at);
  }
  return { number, wireType, value, start, end };
}

/**
 * A whole number in protobuf's writing, and where it ends. Beyond 53 bits it is rounded: no length
 * or field number that large passes, and of other numbers only whether they are zero counts.
 *
 * @param {Uint8Array} bytes
 * @param {number} at
 */
function varint(bytes, at) {
  let value = 0;
  for (let i = 0; i < 10; i += 1) {
    const byte = bytes[at + i];
    if (byte === undefined) throw noModel(at);
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return { value, end: at + i + 1 };
  }
  throw noModel(at);
}

/** @param {Uint8Array} bytes */
function utf8(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw refusal(`it has names or metadata that are not UTF-8. ${REBUILD}`, cause);
  }
}

/** @param {number} at */
function noModel(at) {
  return refusal(`it is not an ONNX model (byte ${at}), or a truncated one. ${REBUILD}`);
}

/** @param {string} reason @param {unknown} [cause] */
function refusal(reason, cause) {
  return new BundleFormatError(`the model cannot be loaded: ${reason}`, { cause });
}
