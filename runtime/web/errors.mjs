// All errors that the web runtime throws on purpose; each message says what was found, what was
// expected and what to do. The same tree as runtime/errors.py:
//
// PredictorError
// ├── InputError          an image or an option that the model does not take
// ├── DeviceError         what was requested of onnxruntime is not usable here
// ├── AnswerError         the outputs of the model cannot be an answer: shape, NaN, no probability
// ├── RuntimeMissing      onnxruntime cannot be loaded
// ├── BundleError         the bundle cannot be trusted or understood
// │   ├── BundleFormatError     not a zip, truncated, no manifest, a newer schema, an unlisted member
// │   ├── BundleIntegrityError  a member's size or hash is not what the manifest says
// │   └── VariantError          the requested variant is not in the bundle
// └── SelftestError       the golden samples do not come out as they were recorded

import { oneLine } from "./plain_text.mjs";

/** Base of all errors of this module; the message is one line that can be shown as it is. */
export class PredictorError extends Error {
  /**
   * @param {string} message
   * @param {{cause?: unknown}} [options]
   */
  constructor(message, options) {
    super(oneLine(message), options);
    this.name = new.target.name;
  }
}

/** An image, a batch or an option has a shape, type or value that the model does not take. */
export class InputError extends PredictorError {}

/** A request to onnxruntime cannot be met here; the message names what is missing. */
export class DeviceError extends PredictorError {}

/** The outputs of the model are not an answer for each image. */
export class AnswerError extends PredictorError {
  /**
   * @param {string} message
   * @param {number} [image] its number in the batch, from 0; undefined: the answer as a whole
   */
  constructor(message, image) {
    super(message);
    this.image = image;
  }
}

/** onnxruntime's files cannot be loaded. */
export class RuntimeMissing extends PredictorError {}

/** The bundle cannot be trusted or understood. */
export class BundleError extends PredictorError {}

/** Not a bundle, a truncated one, one of a newer schema, or one with unlisted members. */
export class BundleFormatError extends BundleError {}

/** A member's bytes are not those that the manifest lists. */
export class BundleIntegrityError extends BundleError {}

/** The bundle has no variant of the requested name. */
export class VariantError extends BundleError {}

/** A golden sample did not come out as it was recorded. */
export class SelftestError extends PredictorError {}
