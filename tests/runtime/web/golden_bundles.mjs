// Opens every bundle of a folder with the web runtime, runs its selftest and asks each variant about
// the image of make_golden_bundles.py. Prints one line of JSON for each variant.
//
//     node golden_bundles.mjs FOLDER ORT_FOLDER    ORT_FOLDER: onnxruntime-web's files

import { readFile, readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Bundle, Predictor } from "../../../runtime/web/index.mjs";
import { webAssemblyFrom } from "./node_wasm.mjs";

const [folder, ortFolder] = process.argv.slice(2);
const runtime = await webAssemblyFrom(pathToFileURL(resolve(ortFolder) + "/"));

for (const file of (await readdir(folder)).filter((name) => name.endsWith(".zip")).sort()) {
  const bundle = await Bundle.open(await readFile(join(folder, file)));
  for (const { id } of bundle.manifest.variants) {
    const p = await Predictor.load(bundle, { runtime, variant: id });
    await p.selftest();
    const shape = p.spec.channels === 1 ? [20, 30] : [20, 30, 3];
    const size = shape.reduce((product, side) => product * side);
    const data = Uint8Array.from({ length: size }, (_, i) => (i * 37) % 251);
    const pixels = await p.preprocess({ shape, data });
    const probabilities = await p.run({ shape: [1, ...pixels.shape], data: pixels.data });
    await p.close();
    const line = { name: file.replace(/\.zip$/, ""), variant: id };
    console.log(JSON.stringify({ ...line, probabilities: [...probabilities.data] }));
  }
}
