// Anything that shows an image to the form that preprocess.onnx takes: uint8 [H, W, 3] or [H, W, 1],
// rows first. Resizing and colour conversion belong to preprocess.onnx, so that every language
// does them alike. Files are decoded by the browser, upright by their EXIF orientation and without
// a conversion of colour profiles, as the Python runtime reads them.

import { InputError } from "./errors.mjs";

/** @typedef {import("./golden.mjs").NdArray<Uint8Array>} Pixels */
/**
 * An array {shape: [H, W] or [H, W, 1 | 3 | 4], data}, an ImageData, a file or other Blob, or what
 * a canvas can draw.
 *
 * @typedef {{shape: readonly number[], data: Uint8Array | Uint8ClampedArray} | ImageData | Blob
 *   | CanvasImageSource} ImageSource
 */

const MAX_PIXELS = 2 ** 28;
const WHITE = 255;

/**
 * @param {ImageSource} image
 * @returns {Promise<Pixels>} [H, W, C], C is 1 (grey) or 3 (red, green, blue)
 * @throws {InputError}
 */
export async function asImage(image) {
  if (typeof image !== "object" || image === null) {
    throw new InputError(
      `the image is ${image === null ? "null" : typeof image}; expected {shape, data}, an ` +
        "ImageData, a Blob, or what a canvas can draw.",
    );
  }
  if (image instanceof Blob) return fromBlob(image);
  if ("shape" in image) return checked(image.shape, image.data);
  if (isImageData(image)) return checked([image.height, image.width, 4], image.data);
  return drawn(image);
}

/**
 * @param {unknown} image
 * @returns {image is ImageData}
 */
function isImageData(image) {
  return typeof ImageData !== "undefined" && image instanceof ImageData;
}

/**
 * The decoded picture of a file, upright; the caller closes it.
 *
 * @param {Blob} blob
 * @returns {Promise<ImageBitmap>}
 * @throws {InputError}
 */
export async function decode(blob) {
  try {
    return await createImageBitmap(blob, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch (cause) {
    const name = blob instanceof File ? `the image ${blob.name}` : "the image";
    throw new InputError(
      `${name} (${blob.type || "of unknown type"}, ${blob.size} bytes) cannot be decoded; ` +
        "expected a complete image file of a format that this browser reads.",
      { cause },
    );
  }
}

/** @param {Blob} blob */
async function fromBlob(blob) {
  const bitmap = await decode(blob);
  try {
    return drawn(bitmap);
  } finally {
    bitmap.close();
  }
}

/** @param {CanvasImageSource} source */
function drawn(source) {
  const [width, height] = sizeOf(source);
  if (!(width > 0 && height > 0) || width * height > MAX_PIXELS) {
    throw new InputError(
      `the image has ${width}x${height} pixels; expected at least one and at most ${MAX_PIXELS}. ` +
        "Wait until it is loaded, or give a part of it.",
    );
  }
  try {
    const context = new OffscreenCanvas(width, height).getContext("2d", {
      willReadFrequently: true, // in memory, not on the GPU, whose rounding may differ
    });
    if (!context) throw new Error("there is no 2d canvas");
    context.drawImage(source, 0, 0);
    return checked([height, width, 4], context.getImageData(0, 0, width, height).data);
  } catch (cause) {
    if (cause instanceof InputError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new InputError(
      `the image cannot be read: ${reason}. A picture of another site is only readable with its ` +
        "consent (CORS).",
      { cause },
    );
  }
}

/**
 * @param {CanvasImageSource} source
 * @returns {[number, number]} in its own pixels, not as it is shown
 */
function sizeOf(source) {
  const {
    naturalWidth,
    naturalHeight,
    videoWidth,
    videoHeight,
    displayWidth,
    displayHeight,
    width,
    height,
  } = /** @type {Record<string, number>} */ (/** @type {unknown} */ (source));
  return [
    Number(naturalWidth ?? videoWidth ?? displayWidth ?? width),
    Number(naturalHeight ?? videoHeight ?? displayHeight ?? height),
  ];
}

/**
 * Refuse what is no image; lay alpha over white.
 *
 * @param {readonly number[]} shape
 * @param {Uint8Array | Uint8ClampedArray} data
 * @returns {Pixels}
 */
function checked(shape, data) {
  const expected = "uint8, rows first, of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)";
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw new InputError(
      `the image's data are ${/** @type {any} */ (data)?.constructor?.name ?? typeof data}; ` +
        `expected ${expected}, as Uint8Array. Normalisation is inside the model.`,
    );
  }
  const [height, width, channels = 1] = shape;
  const isImage =
    (shape.length === 2 || shape.length === 3) &&
    [height, width].every((side) => Number.isInteger(side) && side > 0) &&
    [1, 3, 4].includes(channels) &&
    height * width <= MAX_PIXELS;
  if (!isImage || data.length !== height * width * channels) {
    throw new InputError(
      `the image has shape (${shape.join(", ")}) and ${data.length} bytes; expected ${expected}.`,
    );
  }
  if (channels === 4) return { shape: [height, width, 3], data: overWhite(data) };
  // a copy, made before anything is awaited: the caller may write the next frame into its buffer
  return { shape: [height, width, channels], data: new Uint8Array(data) };
}

/**
 * [H, W, 4] to [H, W, 3] in integers, rounded to nearest; opaque pixels keep their bytes.
 *
 * @param {Uint8Array | Uint8ClampedArray} rgba
 */
function overWhite(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    const alpha = rgba[from + 3];
    const white = WHITE * (WHITE - alpha) + (WHITE >> 1);
    for (let c = 0; c < 3; c += 1) {
      rgb[to + c] = alpha === WHITE ? rgba[from + c] : (rgba[from + c] * alpha + white) / WHITE;
    }
  }
  return rgb;
}
