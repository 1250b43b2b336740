// The parts of the web runtime on their own, by Node's test runner: tables of good inputs next to
// tables of errors. Bundles as a whole, and attacks on them, are in tests/attacks.

import assert from "node:assert/strict";
import { test } from "node:test";
import { checkedAnswers } from "../../../runtime/web/answers.mjs";
import * as errors from "../../../runtime/web/errors.mjs";
import { Golden, arrayOf } from "../../../runtime/web/golden.mjs";
import { asImage, decode } from "../../../runtime/web/images.mjs";
import { checkedMetadata } from "../../../runtime/web/model_file.mjs";
import { Bundle, Predictor, onnxruntimeWeb } from "../../../runtime/web/index.mjs";
import { hiddenCharacter } from "../../../runtime/web/plain_text.mjs";
import { parse } from "../../../runtime/web/strict_json.mjs";
import { AttributePrediction, Prediction, TASKS, Values, taskNamed } from "../../../runtime/web/tasks/index.mjs";
import { ZipReader } from "../../../runtime/web/zip_reader.mjs";

const bytes = (text) => new TextEncoder().encode(text);

test("strict JSON reads what JSON.parse reads", () => {
  for (const text of [
    '{"a": [1, -2.5e3, true, null, "x"]}',
    '{"a": {"a": 1}, "b": {"a": 2}}',
    "[]",
    '"\\ud83d\\ude00"',
    '["a", "a"]',
    '{"k": "a", "a": "k"}',
    '{"{\\"": 1, "}": 2}',
    JSON.stringify({ '[{"\\': "[{".repeat(3000) }), // brackets in strings are text
  ]) {
    assert.deepEqual(parse(bytes(text)), JSON.parse(text), text);
  }
});

for (const [text, message] of [
  ['{"a": 1, "a": 2}', /"a".* more than once/],
  ['{"a": 1, "\\u0061": 2}', /more than once/],
  ['{"x": {"a": [{"a": 1}], "a": 2}}', /more than once/],
  ["[1e999]", /1e999 is too large/],
  [`[${"9".repeat(21)}]`, /21 digits/],
  [`[-${"9".repeat(21)}]`, /21 digits/],
  ['["\\ud800"]', /half of a surrogate pair/],
  ["[".repeat(2001), /2001 lists and objects/],
  [`"${'\\"['.repeat(200_000)}`, /JSON/], // a string that is not closed
  ["[NaN]", /JSON/],
  ["\ufeff[]", /JSON/],
  ["", /JSON/],
]) {
  test(`strict JSON refuses ${text.slice(0, 24)}`, () => {
    assert.throws(() => parse(bytes(text)), message);
  });
}

test("strict JSON refuses what is no UTF-8", () => {
  assert.throws(() => parse(Uint8Array.of(0x22, 0xff, 0x22)), TypeError);
});

test("text that does not show is found, and escaped in every message", () => {
  for (const character of ["\n", "\x1b", "\x9b", "\u200b", "\u202e", "\ufeff", "\ud800", "\u{e0041}"]) {
    const code = character.codePointAt(0).toString(16);
    assert.equal(hiddenCharacter(`a${character}b`), `U+${code.toUpperCase().padStart(4, "0")}`);
    const { message } = new errors.InputError(`a${character}b`);
    assert.equal(message, character === "\n" ? "a b" : `a\\u{${code}}b`);
  }
  for (const text of ["größe", "目", "a b", "\u{1f600}", "50 %"]) {
    assert.equal(hiddenCharacter(text), null);
    assert.equal(new errors.InputError(text).message, text);
  }
});

/** A .npy file as NumPy writes it. */
function npy(head, values) {
  const text = `${head.padEnd(117)}\n`;
  return Uint8Array.from([
    0x93,
    ...bytes("NUMPY"),
    1,
    0,
    text.length,
    0,
    ...bytes(text),
    ...values,
  ]);
}

test("arrays of uint8 and float32 are read", () => {
  const gray = arrayOf(
    "a",
    npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }", [1, 2, 3, 4, 5, 6]),
  );
  assert.deepEqual(gray, { shape: [2, 3], data: Uint8Array.of(1, 2, 3, 4, 5, 6) });
  const values = new Uint8Array(Float32Array.of(0.5, -2).buffer);
  const float = arrayOf(
    "a",
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", values),
  );
  assert.deepEqual(float, { shape: [2], data: Float32Array.of(0.5, -2) });
  const columns = arrayOf(
    "a",
    npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }", [1, 4, 2, 5, 3, 6]),
  );
  assert.deepEqual(columns.data, Uint8Array.of(1, 2, 3, 4, 5, 6));
  assert.deepEqual(
    arrayOf("a", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (), }", [7])).shape,
    [],
  );
});

for (const [head, values, message] of [
  ["{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", [0], /uint8 or float32/],
  [
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }",
    [0],
    /uint8 or float32/,
  ],
  [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }",
    [0],
    /uint8 or float32/,
  ],
  [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }",
    [0],
    /has 1 bytes of values; expected 3/,
  ],
  [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
    [0],
    /has 1 bytes of values; expected 4/,
  ],
]) {
  test(`an array is refused: ${head.slice(0, 40)}`, () => {
    assert.throws(
      () => arrayOf("x.npy", npy(head, values)),
      (error) => {
        assert.ok(error instanceof errors.BundleFormatError);
        assert.match(error.message, message);
        return true;
      },
    );
  });
}

test("images of every form become rows of gray or color", async () => {
  const gray = await asImage({ shape: [1, 2], data: Uint8Array.of(5, 6) });
  assert.deepEqual(gray, { shape: [1, 2, 1], data: Uint8Array.of(5, 6) });
  const rgb = { shape: [1, 1, 3], data: Uint8Array.of(1, 2, 3) };
  assert.deepEqual(await asImage(rgb), rgb);
  const clamped = await asImage({ shape: [1, 1], data: Uint8ClampedArray.of(9) });
  assert.deepEqual(clamped.data, Uint8Array.of(9));
});

test("data of 16 bits are scaled from the white level that the model states", async () => {
  const image = { shape: [1, 5], data: Uint16Array.of(0, 8, 9, 2048, 4095) };
  assert.deepEqual((await asImage(image, 4095)).data, Uint8Array.of(0, 0, 1, 128, 255));
  await assert.rejects(asImage(image, 4000), /has the value 4095; expected 0 to 4000/);
  await assert.rejects(asImage(image), /Uint16Array/);
  const every = Uint16Array.from({ length: 65536 }, (_, v) => v);
  const { data } = await asImage({ shape: [256, 256], data: every }, 65535);
  assert.deepEqual(data, Uint8Array.from(every, (v) => Math.floor((v + 128) / 257)));
});

test("a PNG of 16 bits is refused where a white level is stated", async () => {
  const head = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13, 73, 72, 68, 82];
  const png = (depth) => new Blob([Uint8Array.of(...head, 0, 0, 0, 1, 0, 0, 0, 1, depth, 0)]);
  await assert.rejects(decode(png(16), 4095), /PNG of 16 bits.*white level is 4095/);
  // without createImageBitmap, which Node lacks, others fail later and for another reason
  for (const [blob, level] of [[png(8), 4095], [png(16), null]]) {
    await assert.rejects(decode(blob, level), /cannot be decoded/);
  }
});

test("alpha is laid over white in integers, rounded to nearest", async () => {
  // (c * a + 255 * (255 - a) + 127) // 255 for every alpha and some colors
  for (const c of [0, 1, 77, 128, 254, 255]) {
    for (let a = 0; a < 256; a += 1) {
      const { data } = await asImage({ shape: [1, 1, 4], data: Uint8Array.of(c, c, c, a) });
      assert.equal(data[0], Math.floor((c * a + 255 * (255 - a) + 127) / 255), `${c} at ${a}`);
    }
  }
});

for (const [image, message] of [
  [{ shape: [2, 2], data: Uint8Array.of(1) }, /has shape \(2, 2\) and 1 bytes/],
  [{ shape: [1, 1, 2], data: Uint8Array.of(1, 2) }, /shape \(1, 1, 2\)/],
  [{ shape: [0, 5], data: new Uint8Array() }, /shape \(0, 5\)/],
  [{ shape: [1, 1, 1, 1], data: Uint8Array.of(1) }, /shape \(1, 1, 1, 1\)/],
  [{ shape: [1, 1], data: Float32Array.of(0.5) }, /Float32Array/],
  [null, /the image is null/],
  ["one.png", /the image is string/],
  [undefined, /the image is undefined/],
]) {
  test(`an image is refused: ${message}`, async () => {
    await assert.rejects(asImage(image), (error) => {
      assert.ok(error instanceof errors.InputError);
      assert.match(error.message, message);
      return true;
    });
  });
}

test("a prediction names the first of the most probable and ranks the rest", () => {
  const answer = new Prediction([0.1, 0.4, 0.4, 0.1], ["a", "b", "c", "d"], 0.5);
  assert.equal(answer.label, "b");
  assert.equal(answer.accepted, false);
  assert.deepEqual(
    answer.top(3).map(({ label }) => label),
    ["b", "c", "a"],
  );
  assert.equal(answer.top(9).length, 4);
  assert.throws(() => answer.top(0), errors.InputError);
});

test("an attribute is present from its threshold upwards", () => {
  const answer = new AttributePrediction([0.5, 0.49, 0.9], ["a", "b", "c"], [0.5, 0.5, 0.95], 0.6);
  assert.deepEqual(answer.present, ["a"]);
  assert.deepEqual(
    answer.attributes.map(({ accepted }) => accepted),
    [false, false, false],
  );
  assert.equal(answer.accepted, false);
});

/** A golden record of two samples, [0.25, 0.75] and [1, 0], by their first pixels 3 and 5. */
function goldenOf(values = [0.25, 0.75, 1, 0], task = "multi-class") {
  const pixels = { shape: [2, 1, 2, 1], data: Uint8Array.of(3, 4, 5, 6) };
  const probabilities = { shape: [2, 2], data: Float32Array.from(values) };
  return new Golden([], pixels, new Map([["fp32", [probabilities]]]), taskNamed(task));
}

const ROW = { id: "fp32", goldenTolerance: 0.01, thresholds: null };

/** Answers each image by its first pixel, then passes the rows on to `change`. */
function model(change = (rows) => rows) {
  return async ({ shape: [images], data }) => {
    const known = new Map([[3, [0.25, 0.7421875]], [5, [1, 0]]]);
    const own = Array.from({ length: images }, (_, i) => known.get(data[2 * i]) ?? [0.5, 0.5]);
    const rows = change(own);
    return [{ shape: [rows.length, 2], data: Float32Array.from(rows.flat()) }];
  };
}

test("golden pixels are compared byte by byte", () => {
  goldenOf().checkPixels(0, Uint8Array.of(3, 4));
  goldenOf().checkPixels(1, Uint8Array.of(5, 6));
  assert.throws(() => goldenOf().checkPixels(0, Uint8Array.of(3, 5)), /1 of 2 bytes differ/);
});

test("golden samples are asked one by one, in pairs and together", async () => {
  const sizes = [];
  const counted = async (pixels) => {
    sizes.push(pixels.shape[0]);
    return model()(pixels);
  };
  assert.equal(await goldenOf().replay(ROW, counted), 0.0078125);
  assert.deepEqual(sizes, [1, 1, 2, 2, 2, 4]);
  await assert.rejects(goldenOf().replay({ ...ROW, id: "x" }, model()), /for variant "x"/);
});

for (const [name, change, message] of [
  ["NaN", (rows) => rows.map(() => [NaN, NaN]), /NaN.*one by one/],
  ["other answers", (rows) => rows.map(() => [0.5, 0.5]), /by 0.250.*one by one/],
  ["the first one's row", (rows) => rows.map(() => rows[0]), /in pairs.*mixes the images/],
  ["the last one's row", (rows) => rows.map(() => rows.at(-1)), /in pairs.*mixes the images/],
  ["the next one's row", (rows) => [...rows.slice(1), rows[0]], /in pairs.*mixes the images/],
  ["a large batch", (rows) => (rows.length > 2 ? [...rows].reverse() : rows), /all together/],
]) {
  test(`golden samples show ${name}`, async () => {
    await assert.rejects(goldenOf().replay(ROW, model(change)), (error) => {
      assert.ok(error instanceof errors.SelftestError);
      assert.match(error.message, message);
      return true;
    });
  });
}

test("what no tolerance excuses is not recorded", async () => {
  const wide = { ...ROW, goldenTolerance: 1 };
  await assert.rejects(goldenOf([0, 0, 1, 0]).replay(wide, model()), /sample 0 sums to 0/);
  await goldenOf([0, 0, 1, 0], "multi-label").replay(wide, model());
});

// --- the answer of a session --------------------------------------------------------------------

const SPEC = {
  task: "multi-class",
  height: 1,
  width: 2,
  channels: 1,
  labels: ["a", "b"],
  outputs: taskNamed("multi-class").outputs(["a", "b"], []),
};
const HEADS = {
  ...SPEC,
  task: "values",
  labels: [],
  outputs: [
    { name: "boxes", shape: [null, 2], dtype: "float32" },
    { name: "scores", shape: [2], dtype: "float32" },
  ],
};
const tensor = (dims, values, type = "float32") => ({
  type,
  dims,
  data: (type === "float32" ? Float32Array : Float64Array).from(values),
});

test("a row of probabilities for each image is an answer", () => {
  const [found] = checkedAnswers([tensor([2, 2], [0.25, 0.75, 1, 0])], 2, SPEC);
  assert.deepEqual(found, { shape: [2, 2], data: Float32Array.of(0.25, 0.75, 1, 0) });
  checkedAnswers([tensor([1, 2], [0.9, 0.9])], 1, { ...SPEC, task: "multi-label" });
});

for (const [answer, message, image] of [
  [tensor([1, 2], [0.25, 0.75]), /float32 \(1, 2\) .*for 2 images; expected float32 \(2, 2\)/],
  [tensor([4, 2], Array(8).fill(0.5)), /float32 \(4, 2\) .*for 2 images/],
  [tensor([2], [0.25, 0.75]), /float32 \(2\) .*for 2 images/],
  [tensor([2, 2], [1, 0, 1, 0], "float64"), /float64 \(2, 2\)/],
  [tensor([2, 2], [1, 0]), /expected float32/],
  [undefined, /expected float32/],
  [tensor([2, 2], [1, 0, NaN, 1]), /holds NaN or infinity.*image 1 of 2/, 1],
  [tensor([2, 2], [-Infinity, Infinity, 1, 0]), /holds NaN or infinity.*image 0 of 2/, 0],
  [tensor([2, 2], [1, 0, -2, 3]), /has values from -2.* to 3.*image 1/, 1],
  [tensor([2, 2], [0.5, 0, 0.5, 1]), /sums to 0.5000.*image 0/, 0],
]) {
  test(`an answer is refused: ${message}`, () => {
    assert.throws(
      () => checkedAnswers([answer], 2, SPEC),
      (error) => {
        assert.ok(error instanceof errors.AnswerError);
        assert.match(error.message, message);
        assert.equal(error.image, image);
        return true;
      },
    );
  });
}

// --- named outputs ---------------------------------------------------------------------------------

test("the tasks are those of the Python runtime, in its order", () => {
  assert.deepEqual([...TASKS.keys()], ["multi-class", "multi-label", "values"]);
  assert.throws(() => taskNamed("sound"), /"sound".*"multi-class", "multi-label", "values"/);
});

test("outputs of stated shapes are an answer, an array for each", () => {
  const arrays = checkedAnswers([tensor([1, 3, 2], Array(6).fill(7)), tensor([1, 2], [1, -9])], 1, HEADS);
  const answer = taskNamed("values").answer(arrays, HEADS, null, 0);
  assert.ok(answer instanceof Values);
  assert.deepEqual(answer.get("boxes").shape, [3, 2]);
  assert.deepEqual([...answer.get("scores").data], [1, -9]);
  assert.throws(() => answer.get("masks"), /"masks".*boxes, scores/);
});

for (const [tensors, message, image] of [
  [[tensor([1, 3, 3], Array(9).fill(7)), tensor([1, 2], [1, 2])], /"boxes".*\(1, any, 2\)/],
  [[tensor([1, 3, 2], Array(6).fill(7)), tensor([1, 3], [1, 2, 3])], /"scores".*\(1, 2\)/],
  [[tensor([1, 3, 2], Array(6).fill(7)), undefined], /"scores"/],
  [[tensor([1, 1, 2], [7, Infinity]), tensor([1, 2], [1, 2])], /NaN or infinity.*image 0/, 0],
]) {
  test(`named outputs are refused: ${message}`, () => {
    assert.throws(
      () => checkedAnswers(tensors, 1, HEADS),
      (error) => {
        assert.ok(error instanceof errors.AnswerError);
        assert.match(error.message, message);
        assert.equal(error.image, image);
        return true;
      },
    );
  });
}

test("the first image with a value that is not finite is named", () => {
  const faulty = tensor([3, 2], [1, 2, 3, 4, 5, NaN]);
  const fault = taskNamed("values").fault([{ shape: [3, 1, 2], data: Float32Array.from(Array(6).fill(0)) }, { shape: [3, 2], data: faulty.data }]);
  assert.equal(fault[0], 2);
});

test("named outputs are compared as a share of the largest recorded magnitude", () => {
  const { compareGolden } = taskNamed("values");
  const array = (shape, ...values) => ({ shape, data: Float32Array.from(values) });
  const record = [array([2, 2], 100, -200, 1, 2)];
  assert.equal(compareGolden([array([2, 2], 100, -198, 1, 2)], record, 0), 0.01);
  assert.equal(compareGolden([array([1, 2], 1, 4)], record, 1), 0.01);
  assert.equal(compareGolden([array([1, 3], 1, 4, 5)], record, 1), Infinity);
  assert.ok(Number.isNaN(compareGolden([array([1, 2], 1, NaN)], record, 1)));
});

// --- the caller's buffer ------------------------------------------------------------------------

/** A predictor whose sessions wait a moment before they read what they were given. */
function slowPredictor() {
  const seen = [];
  const later = () => new Promise((resolve) => setTimeout(resolve, 5));
  const session = (answer) => ({
    async run(feeds, [output]) {
      await later();
      const [{ data, dims }] = Object.values(feeds);
      seen.push([...data]);
      return { [output]: answer(data, dims) };
    },
  });
  const pixels = (data) => ({ type: "uint8", dims: [1, 2, 1], data: Uint8Array.from(data.subarray(0, 2)) });
  const ort = {
    Tensor: function Tensor(type, data, dims) {
      Object.assign(this, { type, data, dims });
    },
    InferenceSession: { create: async () => (await later(), session(pixels)) },
  };
  const manifest = { spec: SPEC, modelVersion: "1", synthetic: true };
  const bundle = { manifest, id: "", read: async () => (await later(), new Uint8Array()) };
  const rows = (_, [images]) => tensor([images, 2], Array(images).fill([0.25, 0.75]).flat());
  const p = new Predictor(bundle, { ort, device: "cpu", threads: 1 }, ROW, session(rows), "");
  return { p, seen };
}

for (const [name, make] of [
  ["a Uint8Array", () => Uint8Array.of(1, 2)],
  ["a Uint8ClampedArray", () => Uint8ClampedArray.of(1, 2)],
  ["a Buffer, whose slice is no copy", () => Buffer.from([1, 2])],
  ["a view", () => new Uint8Array(Uint8Array.of(9, 1, 2, 9).buffer, 1, 2)],
  ["shared memory", () => shared(1, 2)],
]) {
  test(`${name} is copied before anything is awaited`, async () => {
    for (const [ask, shape] of [
      ["run", [1, 1, 2, 1]],
      ["answer", [1, 2, 1]],
      ["preprocess", [1, 2]],
      ["predict", [1, 2, 1]],
    ]) {
      const { p, seen } = slowPredictor();
      const [data, own] = [make(), [...shape]];
      const asked = p[ask]({ shape: own, data });
      data.fill(77);
      own.fill(1000);
      await asked;
      assert.deepEqual(seen[0], [1, 2], ask);
    }
  });
}

/** @param {number[]} values */
function shared(...values) {
  const data = new Uint8Array(new SharedArrayBuffer(values.length));
  data.set(values);
  return data;
}

test("several calls at once from one buffer get the answers of their own frames", async () => {
  const { p, seen } = slowPredictor();
  const frame = new Uint8Array(2);
  const asked = [];
  for (let i = 0; i < 5; i += 1) {
    frame.fill(i);
    asked.push(p.predict({ shape: [1, 2, 1], data: frame }));
  }
  await Promise.all(asked);
  assert.deepEqual(seen.slice(0, 5).map(String), ["0,0", "1,1", "2,2", "3,3", "4,4"]);
});

test("pixels of another type are not rounded in silence", async () => {
  const { p } = slowPredictor();
  for (const data of [Float32Array.of(0.5, 0.5), [1, 2], undefined]) {
    await assert.rejects(p.run({ shape: [1, 1, 2, 1], data }), errors.InputError);
  }
});

test("what is no model is refused before onnxruntime sees it", () => {
  assert.deepEqual(checkedMetadata(new Uint8Array()), new Map());
  const entry = [0x0a, 1, 0x6b, 0x12, 1, 0x76]; // "k" -> "v"
  assert.deepEqual(
    checkedMetadata(Uint8Array.of(0x72, entry.length, ...entry)),
    new Map([["k", "v"]]),
  );
  for (const file of [[0x08], [0x3a, 9, 0], [0x07], [0xff, 0xff], Array(12).fill(0x80)]) {
    assert.throws(() => checkedMetadata(Uint8Array.from(file)), /ONNX model/);
  }
});

test("a bundle from nowhere and from nothing", async () => {
  assert.throws(() => new ZipReader(new Uint8Array(), "x"), /the file is empty/);
  for (const source of [42, null, {}]) {
    await assert.rejects(Bundle.open(source), errors.BundleFormatError);
  }
  await assert.rejects(Bundle.open("http://127.0.0.1:9/bundle.zip"), /cannot be fetched/);
});

for (const [threads, error, message] of [
  [2, errors.DeviceError, /not cross-origin isolated/],
  [0, errors.InputError, /threads=0/],
  [1.5, errors.InputError, /threads=1.5/],
]) {
  test(`${threads} threads cannot be had`, async () => {
    await assert.rejects(onnxruntimeWeb({ threads }), (found) => {
      assert.ok(found instanceof error);
      assert.match(found.message, message);
      return true;
    });
  });
}

test("onnxruntime's files that are not there are named", async () => {
  const folder = new URL("nowhere/", import.meta.url);
  await assert.rejects(onnxruntimeWeb({ folder }), errors.RuntimeMissing);
});
