// onnxruntime-web's WebAssembly in Node, for tests: the very file that browsers get.

import { readFile } from "node:fs/promises";
import { gunzipSync } from "node:zlib";

/**
 * @param {URL} folder with the files of onnxruntime-web, as `pipeline fetch` leaves them
 * @returns {Promise<import("../../../runtime/web/onnxruntime.mjs").Onnxruntime>}
 */
export async function webAssemblyFrom(folder) {
  const ort = await import(new URL("ort.wasm.min.mjs", folder).href);
  const packed = await readFile(new URL("ort-wasm-simd-threaded.wasm.gz", folder));
  Object.assign(ort.env.wasm, {
    wasmBinary: gunzipSync(packed),
    wasmPaths: folder.href,
    numThreads: 1,
  });
  ort.env.logLevel = "fatal";
  return { ort, device: "wasm", target: "wasm", threads: 1 };
}
