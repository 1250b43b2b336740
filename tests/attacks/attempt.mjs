// Opens every bundle of a folder with the web runtime, as an app does: open it, ask it, test it.
// Prints one line of JSON for each file: its name and the error, or the values.
//
//     node attempt.mjs FOLDER ORT_FOLDER    ORT_FOLDER: onnxruntime-web's files

import { readFile, readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Predictor, PredictorError, Values } from "../../runtime/web/index.mjs";
import { webAssemblyFrom } from "../runtime/web/node_wasm.mjs";

const [folder, ortFolder] = process.argv.slice(2);
const runtime = await webAssemblyFrom(pathToFileURL(resolve(ortFolder) + "/"));
const image = { shape: [30, 20], data: Uint8Array.from({ length: 600 }, (_, i) => (i * 37) % 256) };

for (const name of (await readdir(folder)).sort()) {
  const line = { name };
  try {
    const p = await Predictor.load(await readFile(join(folder, name)), { runtime });
    try {
      const answer = await p.predict(image);
      line.values =
        answer instanceof Values
          ? [...answer.arrays.values()].flatMap(({ data }) => [...data])
          : answer.probabilities;
      await p.selftest();
    } finally {
      await p.close();
    }
  } catch (error) {
    const isOwn = error instanceof PredictorError;
    Object.assign(line, {
      error: isOwn ? error.name : `not ours: ${error}`,
      message: error.message,
    });
  }
  console.log(JSON.stringify(line));
}
