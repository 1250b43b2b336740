// Runs a job with onnxruntime-web or onnxruntime-node: the same protocol as onnx_job.py.
// `read(name)` gives the bytes of a file of the job or of the target, `write(name, bytes)` keeps
// one next to job.json. answers.json comes last.

const JOB = "job/", TARGET = "target/";

/** @param {any} ort @param {(name: string) => Promise<Uint8Array>} read
 *  @param {(name: string, bytes: Uint8Array) => Promise<void>} write
 *  @param {Record<string, unknown>} about */
export async function runJob(ort, read, write, about) {
  const job = JSON.parse(new TextDecoder().decode(await read(TARGET + "job.json")));
  const images = await read(JOB + "images.bin");
  const [, ...shape] = job.images_shape;
  const size = shape.reduce((a, b) => a * b, 1);
  const arrays = {};
  const parts = new Map();

  const add = (name, tensor) => {
    if (!(name in arrays)) {
      arrays[name] = { file: `${Object.keys(arrays).length}.bin`, dtype: tensor.type,
                       shape: [0, ...tensor.dims.slice(1)] };
      parts.set(name, []);
    }
    arrays[name].shape[0] += tensor.dims[0];
    const data = tensor.data;
    parts.get(name).push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice());
  };
  const open = async (file) => ort.InferenceSession.create(await read(JOB + file), {
    executionProviders: job.providers, intraOpNumThreads: job.threads, logSeverityLevel: 3 });
  const answer = async (session, count, names, prefix) => {
    for (let at = 0; at < count; at += job.batch) {
      const n = Math.min(job.batch, count - at);
      const batch = images.slice(at * size, (at + n) * size);
      const out = await session.run({ images: new ort.Tensor("uint8", batch, [n, ...shape]) });
      for (const name of names) add(prefix + name, out[name]);
    }
  };

  for (const variant of job.variants) {
    let session = await open(`variants/${variant.id}.onnx`);
    await answer(session, variant.plain, ["probabilities"], `${variant.id}/`);
    await session.release();
    if (variant.tensors.length) {
      session = await open(`tapped/${variant.id}.onnx`);
      await answer(session, variant.images, ["probabilities", ...variant.tensors],
                   `${variant.id}/tapped/`);
      await session.release();
    }
  }
  const preprocess = await open("preprocess.onnx");
  for (const [number, dims] of job.raw_shapes.entries()) {
    const image = new ort.Tensor("uint8", await read(`${JOB}raw-${number}.bin`), dims);
    const { pixels } = await preprocess.run({ image });
    add(`pixels/${number}`, { type: "uint8", dims: [1, ...pixels.dims], data: pixels.data });
  }
  for (const [name, row] of Object.entries(arrays)) {
    const bytes = new Uint8Array(parts.get(name).reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts.get(name)) { bytes.set(part, at); at += part.length; }
    await write(row.file, bytes);
  }
  await write("answers.json", new TextEncoder().encode(JSON.stringify({ about, arrays })));
}
