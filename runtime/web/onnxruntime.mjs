// How this runtime reaches onnxruntime: onnxruntime-web in a browser, onnxruntime-node in Node, or
// whatever has their interface. The runtime itself imports neither.

import { DeviceError, InputError, RuntimeMissing } from "./errors.mjs";

/**
 * onnxruntime as the predictor needs it.
 *
 * @typedef {object} Onnxruntime
 * @property {any} ort a module with `InferenceSession` and `Tensor`
 * @property {string} device "wasm" or "cpu"
 * @property {string} target whose default variant is taken: "wasm", or a target of the manifest
 * @property {number} threads of one call
 */

const GZIP_MARK = [0x1f, 0x8b];

/**
 * onnxruntime-web from a folder that holds `ort.wasm.min.mjs`, `ort-wasm-simd-threaded.mjs` and
 * `ort-wasm-simd-threaded.wasm.gz` (or the same without `.gz`). It is loaded once in a page, with
 * the number of threads of the first request.
 *
 * @param {object} [options]
 * @param {string | URL} [options.folder] by default `ort/` next to this module
 * @param {number} [options.threads] 1 by default: starting a second one takes longer than a
 *   thousand answers of a small network
 * @returns {Promise<Onnxruntime>}
 * @throws {RuntimeMissing | DeviceError | InputError}
 */
export async function onnxruntimeWeb({
  folder = new URL("./ort/", import.meta.url),
  threads = 1,
} = {}) {
  if (!Number.isInteger(threads) || threads < 1) {
    throw new InputError(`threads=${threads}; expected a whole number of at least 1.`);
  }
  if (threads > 1 && !globalThis.crossOriginIsolated) {
    throw new DeviceError(
      `${threads} threads were requested, but this page is not cross-origin isolated, so a ` +
        "browser gives it one. Serve it with Cross-Origin-Opener-Policy: same-origin and " +
        "Cross-Origin-Embedder-Policy: require-corp, or leave threads out.",
    );
  }
  const base = new URL(folder, globalThis.document?.baseURI ?? import.meta.url);
  const [ort, wasm] = await Promise.all([moduleFrom(base), wasmFrom(base)]);
  const flags = ort.env.wasm;
  if (flags.wasmBinary === undefined) {
    Object.assign(flags, { wasmBinary: wasm, numThreads: threads, wasmPaths: base.href });
    ort.env.logLevel = "error";
  } else if (flags.numThreads !== threads) {
    throw new DeviceError(
      `onnxruntime-web runs with ${flags.numThreads} threads in this page; expected ${threads}. ` +
        "The number cannot be changed later: load the page again.",
    );
  }
  return { ort, device: "wasm", target: "wasm", threads };
}

/**
 * onnxruntime-node: `onnxruntimeNode(await import("onnxruntime-node"))`.
 *
 * @param {any} module
 * @param {{threads?: number, target?: string}} [options] `target` is one of the manifest's, such as
 *   "arm64"
 * @returns {Onnxruntime}
 */
export function onnxruntimeNode(module, { threads = 1, target = "cpu" } = {}) {
  return { ort: module.default ?? module, device: "cpu", target, threads };
}

/** @param {URL} base */
async function moduleFrom(base) {
  const url = new URL("ort.wasm.min.mjs", base);
  try {
    const module = await import(url.href);
    return module.default ?? module;
  } catch (cause) {
    throw missing(url, cause);
  }
}

/**
 * The WebAssembly file, inflated here, so that it is small on every server.
 *
 * @param {URL} base
 */
async function wasmFrom(base) {
  const url = new URL("ort-wasm-simd-threaded.wasm.gz", base);
  let answer = await fetch(url).catch((cause) => {
    throw missing(url, cause);
  });
  if (!answer.ok) answer = await fetch(new URL("ort-wasm-simd-threaded.wasm", base));
  if (!answer.ok) throw missing(url, new Error(`the server answered ${answer.status}`));
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const isPacked = GZIP_MARK.every((byte, i) => bytes[i] === byte); // some servers inflate .gz
  if (!isPacked) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** @param {URL} url @param {unknown} cause */
function missing(url, cause) {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new RuntimeMissing(
    `${url} cannot be loaded: ${reason}. onnxruntime-web's files belong into that folder, as ` +
      "`pipeline web` puts them.",
    { cause },
  );
}
