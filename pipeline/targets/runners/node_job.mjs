// node node_job.mjs MODULES JOB TARGET: a job on onnxruntime-node, installed in MODULES.
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { runJob } from "./onnx_job.mjs";

const [modules, job, target] = process.argv.slice(2);
const require = createRequire(join(modules, "node_modules", "/"));
const ort = require("onnxruntime-node");
const { version } = require("onnxruntime-node/package.json");
const fileOf = (name) => name.startsWith("job/") ? join(job, name.slice(4)) : join(target, name.slice(7));
const read = async (name) => new Uint8Array(await readFile(fileOf(name)));
const write = (name, bytes) => writeFile(join(target, name), bytes);
await runJob(ort, read, write, {
  "onnxruntime-node": version, node: process.versions.node, machine: process.arch,
});
