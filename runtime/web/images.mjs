// Anything that shows an image to the form that preprocess.onnx takes: uint8 [H, W, 3] or [H, W, 1],
// rows first. Resizing and color conversion belong to preprocess.onnx, so that every language
// does them alike. Files are decoded by the browser, upright by their EXIF orientation and without
// a conversion of color profiles, as the Python runtime reads them.

import { InputError } from "./errors.mjs";

/** @typedef {import("./golden.mjs").NdArray<Uint8Array>} Pixels */
/**
 * An array {shape: [H, W] or [H, W, 1 | 3 | 4], data}, an ImageData, a file or other Blob, or what
 * a canvas can draw. Data of 16 bits are taken where the model's spec states their white level.
 *
 * @typedef {{shape: readonly number[], data: Uint8Array | Uint8ClampedArray | Uint16Array}
 *   | ImageData | Blob | CanvasImageSource} ImageSource
 */

const MAX_PIXELS = 2 ** 28;
const WHITE = 255;
// Where an IHDR chunk, the first of every PNG file, has its bit depth
const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const PNG_BIT_DEPTH = 24;

/**
 * @param {ImageSource} image
 * @param {number | null} [whiteLevel] of 16-bit pixels, as the model's spec states it
 * @returns {Promise<Pixels>} [H, W, C], C is 1 (gray) or 3 (red, green, blue)
 * @throws {InputError}
 */
export async function asImage(image, whiteLevel = null) {
  if (typeof image !== "object" || image === null) {
    throw new InputError(
      `the image is ${image === null ? "null" : typeof image}; expected {shape, data}, an ` +
        "ImageData, a Blob, or what a canvas can draw.",
    );
  }
  if (image instanceof Blob) return fromBlob(image, whiteLevel);
  if ("shape" in image) {
    const { shape, data } = image;
    const isDeep = whiteLevel !== null && data instanceof Uint16Array;
    return checked(shape, isDeep ? from16Bit(data, whiteLevel) : data);
  }
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
 * 16 bits to 8, rounded, as runtime/images.py does it.
 *
 * @param {Uint16Array} values
 * @param {number} white
 */
function from16Bit(values, white) {
  const half = Math.floor(white / 2);
  return Uint8Array.from(values, (value) => {
    if (value > white) {
      throw new InputError(
        `the image has the value ${value}; expected 0 to ${white}, the model's white level. Scale ` +
          "the pixels as its training images.",
      );
    }
    return Math.floor((value * WHITE + half) / white);
  });
}

/**
 * The decoded picture of a file, upright; the caller closes it. A PNG of 16 bits is refused where
 * the model's spec states a `whiteLevel`: a browser keeps the upper 8 bits, whatever their white.
 *
 * @param {Blob} blob
 * @param {number | null} [whiteLevel]
 * @returns {Promise<ImageBitmap>}
 * @throws {InputError}
 */
export async function decode(blob, whiteLevel = null) {
  if (whiteLevel !== null && (await isPngOf16Bits(blob))) {
    throw new InputError(
      "the image is a PNG of 16 bits, of which a browser keeps the upper 8, and the model's white " +
        `level is ${whiteLevel}. Decode it yourself and give {shape, data} with a Uint16Array, or ` +
        "save it with 8 bits, scaled from that level.",
    );
  }
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
async function isPngOf16Bits(blob) {
  const head = new Uint8Array(await blob.slice(0, PNG_BIT_DEPTH + 1).arrayBuffer());
  return PNG.every((byte, i) => head[i] === byte) && head[PNG_BIT_DEPTH] === 16;
}

/**
 * @param {Blob} blob
 * @param {number | null} whiteLevel
 */
async function fromBlob(blob, whiteLevel) {
  const bitmap = await decode(blob, whiteLevel);
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
 * Refuse what is not an image; lay alpha over white.
 *
 * @param {readonly number[]} shape
 * @param {Uint8Array | Uint8ClampedArray | Uint16Array} data
 * @returns {Pixels}
 */
function checked(shape, data) {
  const expected = "uint8, rows first, of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)";
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw new InputError(
      `the image's data are ${/** @type {any} */ (data)?.constructor?.name ?? typeof data}; ` +
        `expected ${expected}, as Uint8Array. Normalization is inside the model.`,
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
