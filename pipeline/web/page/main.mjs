// Opens bundle.zip next to this page and runs it: input on the left, answer on the right, then every
// variant is tested and timed in this browser.

import {
  Bundle,
  Golden,
  Predictor,
  decode,
  onnxruntimeWeb,
} from "./runtime/index.mjs";
import { createAnswer } from "./answer.mjs";
import { createCrop } from "./crop.mjs";
import { byId, make, paint } from "./dom.mjs";
import { inputHints } from "./hints.mjs";
import { createPad } from "./pad.mjs";
import { createVariants, measure } from "./variants.mjs";

const MAX_SAMPLES = 4;

/** @typedef {{data?: {name?: string, counts?: Record<string, number>, license?: string, licence?: string}, recipe?: {description?: string}, license?: string, licence?: string, versions?: Record<string, string>}} Provenance */

/** @type {Map<string, Predictor>} the variants that are open */
const predictors = new Map();
/** @type {Predictor | undefined} the one that answers */
let predictor;

let pending = 0; // what the answer on the right still waits for

start().catch(fail);

async function start() {
  const threads = Number(new URLSearchParams(location.search).get("threads") ?? 1);
  const loading = onnxruntimeWeb({ threads });
  loading.catch(() => {}); // reported where it is awaited
  const bundle = await Bundle.open(new URL("bundle.zip", document.baseURI));
  describe(bundle);
  const answer = createAnswer(bundle.manifest.spec);
  // the pad works while the model still loads
  const input = await createInput(bundle, () => ask(), answer.say);
  const runtime = await loading;
  fact("Runs on", runtimeInWords(runtime));
  predictor = await Predictor.load(bundle, { runtime });
  predictors.set(predictor.info.variant, predictor);
  const table = createVariants(await variantRows(bundle), choose);
  table.choose(predictor.info.variant);

  let isAsking = false;
  let isStale = false;
  /** Answer what is on the left now; of many changes in a row only the last one counts. */
  async function ask() {
    isStale = true;
    if (isAsking || !predictor) return;
    isAsking = true;
    try {
      while (isStale) {
        isStale = false;
        const pixels = input.pixels();
        if (pixels) await whileBusy(show(pixels, predictor));
        else answer.clear();
      }
    } catch (error) {
      fail(error);
    } finally {
      isAsking = false;
    }
  }

  /** @param {ImageData} image @param {Predictor} p */
  async function show(image, p) {
    const begun = performance.now();
    const pixels = await p.preprocess(image);
    const prepared = performance.now();
    const result = await p.answer(pixels);
    const done = performance.now();
    answer.show(result, pixels);
    byId("timing").textContent =
      `Prepared in ${(prepared - begun).toFixed(1)} ms, answered in ` +
      `${(done - prepared).toFixed(1)} ms by ${p.info.variant}.`;
    if (!performance.getEntriesByName("first answer").length) performance.mark("first answer");
  }

  /** @param {string} id */
  async function choose(id) {
    try {
      predictor = await whileBusy(opened(id));
      table.choose(id);
      ask();
    } catch (error) {
      fail(error);
    }
  }

  /** @param {string} id */
  async function opened(id) {
    const result = predictors.get(id) ?? (await Predictor.load(bundle, { runtime, variant: id }));
    predictors.set(id, result);
    return result;
  }

  async function time() {
    button.disabled = true;
    const { times, runs } = await measure(predictors);
    table.measured(times, caption(runs, runtime.threads));
    button.disabled = false;
  }

  const button = /** @type {HTMLButtonElement} */ (byId("measure"));
  button.addEventListener("click", () => time().catch(fail));
  reach("ready");
  await whileBusy(ask());
  const usual = predictor.info.variant;
  const others = bundle.manifest.variants.map(({ id }) => id).filter((id) => id !== usual);
  for (const id of [usual, ...others]) {
    const passed = await test(id, opened(id), table);
    if (id === usual) wear(passed, bundle.id);
  }
  await time();
  reach("measured");
}

/**
 * Mark the answer as out of date until the promise is kept, for screen readers and tests.
 *
 * @template T
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
async function whileBusy(promise) {
  const answer = byId("answer");
  pending += 1;
  answer.setAttribute("aria-busy", "true");
  try {
    return await promise;
  } finally {
    pending -= 1;
    // what follows in the same task may be busy again
    queueMicrotask(() => pending || answer.setAttribute("aria-busy", "false"));
  }
}

/**
 * Say how far the page is, for tests and for the timeline of the developer tools.
 *
 * @param {"ready" | "measured" | "failed"} state
 */
function reach(state) {
  document.documentElement.dataset.state = state;
  performance.mark(state);
}

/**
 * Run the golden samples with one variant and note in the table what came out.
 *
 * @param {string} id
 * @param {Promise<Predictor>} opening
 * @param {ReturnType<typeof createVariants>} table
 * @returns {Promise<import("./runtime/index.mjs").SelftestReport | string>} or why not
 */
async function test(id, opening, table) {
  try {
    const report = await (await opening).selftest();
    table.tested(id, true, `✓ within ${short(report.maxDifference)}`);
    return report;
  } catch (error) {
    table.tested(id, false, `✗ ${messageOf(error)}`);
    return messageOf(error);
  }
}

/**
 * The badge of the bundle: what the selftest of its usual variant gave.
 *
 * @param {import("./runtime/index.mjs").SelftestReport | string} result
 * @param {string} bundleId
 */
function wear(result, bundleId) {
  if (typeof result === "string") return badge("failed", "Selftest failed in this browser", [result]);
  return badge("passed", "Verified in this browser", [
    `The golden samples of ${result.variant} gave the recorded results: ` +
      `${result.images} pictures byte for byte after preprocessing, ${result.samples} inputs with ` +
      `probabilities within ${short(result.maxDifference)} (${short(result.tolerance)} is allowed).`,
    `Every file of the bundle has the SHA-256 that its manifest lists. Bundle ` +
      `${bundleId.slice(0, 16)}…`,
  ]);
}

/** @param {"passed" | "failed"} state @param {string} head @param {string[]} more */
function badge(state, head, more) {
  byId("parity").dataset.state = state;
  byId("parity-head").textContent = head;
  byId("parity-more").replaceChildren(...more.map((text) => make("p", {}, text)));
}

/**
 * The drawing pad for digits, the crop frame for everything else, and pictures for both.
 *
 * @param {Bundle} bundle
 * @param {() => void} onChange
 * @param {(words: string) => void} say
 */
async function createInput(bundle, onChange, say) {
  const hints = await inputHints(bundle);
  byId("input-head").textContent = hints.isDrawn ? "Draw a digit" : "Choose a picture";
  byId(hints.isDrawn ? "pad" : "photo").hidden = false;
  const source = hints.isDrawn
    ? createDigitInput(onChange, say)
    : createPhotoInput(hints, onChange);

  /** @param {Blob | null | undefined} file */
  const open = async (file) => {
    if (!file) return;
    try {
      source.show(await whileBusy(decode(file, bundle.manifest.spec.whiteLevel)));
      byId("failure").hidden = true;
    } catch (error) {
      fail(error);
    }
  };
  const picker = /** @type {HTMLInputElement} */ (byId("file"));
  picker.addEventListener("change", () => open(picker.files?.[0]).then(() => (picker.value = "")));
  acceptDrops(open);
  await offerSamples(bundle, source.show);
  return source;
}

/** @param {() => void} onChange @param {(words: string) => void} say */
function createDigitInput(onChange, say) {
  /** @type {ImageData | null} a picture of its own size; the paper shows it fitted */
  let opened = null;
  const pad = createPad({
    onChange: () => {
      opened = null;
      onChange();
    },
    say,
  });
  return {
    /** @returns {ImageData | null} */
    pixels: () => opened ?? (pad.isEmpty ? null : pad.pixels()),
    /** @param {ImageBitmap | HTMLCanvasElement} picture */
    show(picture) {
      const crop = make("canvas", { width: `${picture.width}`, height: `${picture.height}` });
      const context = /** @type {CanvasRenderingContext2D} */ (crop.getContext("2d"));
      context.drawImage(picture, 0, 0);
      pad.show(crop);
      opened = context.getImageData(0, 0, crop.width, crop.height);
      onChange();
    },
  };
}

/** @param {Awaited<ReturnType<typeof inputHints>>} hints @param {() => void} onChange */
function createPhotoInput({ aspect, isFace, marks }, onChange) {
  drawGuides(marks);
  byId("frame-help").textContent =
    (isFace
      ? "The model expects eyes and mouth on the marks. Move the frame there, or resize it by a " +
        "corner. "
      : "Move the frame over the object to recognize, or resize it by a corner. ") +
    "By keyboard: arrows move it, plus and minus resize it.";
  const crop = createCrop({ aspect, onChange });
  return {
    /** @returns {ImageData | null} */
    pixels: () => (crop.isEmpty ? null : crop.pixels()),
    /** @param {ImageBitmap | HTMLCanvasElement} picture */
    show: (picture) => crop.show(picture),
  };
}

/** @param {[string, string][]} marks class and path */
function drawGuides(marks) {
  for (const [kind, d] of marks) {
    for (const tone of ["dark", "light"]) {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", d);
      path.setAttribute("class", `${tone} ${kind}`);
      byId("guides").append(path);
    }
  }
}

/** @param {(file: Blob | null | undefined) => void} open */
function acceptDrops(open) {
  const stage = byId("stage");
  /** @param {boolean} isOver */
  const over = (isOver) => stage.classList.toggle("over", isOver);
  addEventListener("dragover", (event) => {
    event.preventDefault(); // else the browser leaves the page for the picture
    over(true);
  });
  addEventListener("dragleave", () => over(false));
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    open(event.dataTransfer?.files[0]);
  });
  addEventListener("paste", (event) => open(event.clipboardData?.files[0]));
}

/**
 * The raw golden images of the bundle, to try without a picture at hand.
 *
 * @param {Bundle} bundle
 * @param {(picture: HTMLCanvasElement) => void} show
 */
async function offerSamples(bundle, show) {
  if (!bundle.manifest.files.has("golden.npz")) return;
  const golden = await Golden.fromNpz(await bundle.read("golden.npz"), bundle.manifest.spec);
  golden.raw.slice(0, MAX_SAMPLES).forEach((image, i) => {
    const canvas = make("canvas");
    paint(canvas, image);
    const button = make("button", { type: "button", "aria-label": `Sample ${i + 1}` }, canvas);
    button.addEventListener("click", () => show(canvas));
    byId("samples").append(button);
  });
}

/** @param {Bundle} bundle */
function describe({ id, manifest }) {
  const { spec, synthetic } = manifest;
  const { data, recipe, license, licence, versions } = /** @type {Provenance} */ (manifest.provenance);
  const title = recipe?.description?.split(",")[0] ?? spec.name;
  byId("name").textContent = title;
  document.title = `${title} · edgeproof`;
  byId("synthetic").hidden = !synthetic;
  const counts = Object.entries(data?.counts ?? {}).map(
    ([k, n]) => `${n.toLocaleString("en")} ${k}`,
  );
  // bundles of earlier versions have "licence"
  const [weights, images] = [license ?? licence, data?.license ?? data?.licence];
  const licenses = [weights && `weights: ${weights}`, images && `data: ${images}`];
  const facts = {
    Model: `${spec.name} ${manifest.modelVersion}, ${spec.task}, ${spec.labels.length} labels`,
    Input: `${spec.height} × ${spec.width} pixels, ${spec.channels === 1 ? "gray" : "color"}`,
    Data: [data?.name, ...counts].filter(Boolean).join(", "),
    License: licenses
      .filter(Boolean)
      .join("; "),
    "Made with": Object.entries(versions ?? {})
      .map(([name, v]) => `${name} ${v}`)
      .join(", "),
    "Bundle id": id,
  };
  for (const [name, value] of Object.entries(facts)) {
    if (value) fact(name, name === "Bundle id" ? make("code", {}, value) : value);
  }
}

/** @param {string} name @param {string | HTMLElement} value */
function fact(name, value) {
  byId("facts").append(make("dt", {}, name), make("dd", {}, value));
}

/** @param {import("./runtime/index.mjs").Onnxruntime} runtime */
function runtimeInWords({ ort, threads }) {
  return `onnxruntime-web ${ort.env.versions?.web ?? ""}, WebAssembly, ${threadsOf(threads)}`;
}

/** @param {Bundle} bundle */
async function variantRows(bundle) {
  const { manifest } = bundle;
  /** @type {Record<string, any>[]} */
  let measured = [];
  if (manifest.files.has("measurements.json")) {
    const text = new TextDecoder().decode(await bundle.read("measurements.json"));
    measured = JSON.parse(text).variants ?? [];
  }
  const isBalanced = measured.some((row) => typeof row.balanced_accuracy_percent === "number");
  byId("quality").textContent = isBalanced ? "Test, balanced" : "Test accuracy";
  return manifest.variants.map(({ id, file, precision, portable }) => {
    const row = measured.find((other) => other.id === id);
    const quality = isBalanced ? row?.balanced_accuracy_percent : row?.accuracy_percent;
    const sizeBytes = manifest.files.get(file)?.sizeBytes ?? 0;
    return { id, precision, portable, sizeBytes, quality: quality ?? null };
  });
}

/** @param {number} runs @param {number} threads */
function caption(runs, threads) {
  const browser = /(Firefox|Edg|Chrome|Version)\/(\d+)/.exec(navigator.userAgent);
  const name = browser
    ? `${browser[1] === "Version" ? "Safari" : browser[1]} ${browser[2]}`
    : "this browser";
  return (
    `Measured just now in ${name}, ${threadsOf(threads)} of WebAssembly, batch 1, without ` +
    `preprocessing: median of at least ${runs} answers, in turns. Other devices, and this one ` +
    "outside the browser, take other times."
  );
}

/** @param {number} n */
function threadsOf(n) {
  return n === 1 ? "one thread" : `${n} threads`;
}

/** @param {number} value */
function short(value) {
  return value === 0 ? "0" : value.toPrecision(2).replace("e-", "e−");
}

/** @param {unknown} error */
function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/** @param {unknown} error */
function fail(error) {
  const name = error instanceof Error ? error.name : "Error";
  const isInput = name === "InputError";
  byId("failure-head").textContent = isInput
    ? "This picture cannot be read"
    : "The model cannot run here";
  byId("failure-text").textContent = messageOf(error);
  byId("failure").hidden = false;
  if (isInput || predictor) return;
  byId("name").textContent = "This model cannot be opened";
  badge("failed", "Not running", []);
  reach("failed");
}
