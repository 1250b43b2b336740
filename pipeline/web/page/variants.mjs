// The table of variants: how fast each is in this browser, whether it passes its selftest here,
// and which one answers.

import { byId, make } from "./dom.mjs";

const ROUNDS = 15; // each variant has its turn in every round, so that noise hits all alike
const CHUNK_MS = 6; // of one variant in one round: well above what a browser's clock resolves

/** @typedef {import("./runtime/index.mjs").Predictor} Predictor */
/** @typedef {{id: string, precision: string, portable: boolean, sizeBytes: number, quality: number | null}} Row */

/**
 * @param {readonly Row[]} rows
 * @param {(id: string) => void} onChoose
 */
export function createVariants(rows, onChoose) {
  const body = /** @type {HTMLTableElement} */ (byId("variants")).tBodies[0];
  const cells = new Map(
    rows.map((row) => {
      const radio = make("input", { type: "radio", name: "variant", value: row.id });
      const tag = row.portable ? " portable" : "";
      const label = make(
        "label",
        {},
        radio,
        make("span", {}, row.id, make("span", { class: "tag" }, tag)),
      );
      const [bar, time] = [make("i"), make("span", {}, "–")];
      const speed = make("div", { class: "speed" }, time, bar);
      const ratio = make("td", { class: "number" }, "–");
      const test = make("td", {}, "–");
      const line = make(
        "tr",
        { "data-variant": row.id },
        make("th", { scope: "row" }, label),
        make("td", {}, speed),
        ratio,
        make("td", { class: "number" }, `${Math.round(row.sizeBytes / 1000)} kB`),
        make("td", { class: "number" }, row.quality === null ? "–" : `${row.quality.toFixed(2)} %`),
        test,
      );
      radio.addEventListener("change", () => onChoose(row.id));
      body.append(line);
      return [row.id, { radio, bar, time, ratio, test, line }];
    }),
  );

  return {
    /** @param {string} id */
    choose(id) {
      for (const [other, { radio, line }] of cells) {
        radio.checked = other === id;
        line.classList.toggle("chosen", other === id);
      }
    },
    /** @param {string} id @param {boolean} passed @param {string} text */
    tested(id, passed, text) {
      const cell = cells.get(id)?.test;
      if (!cell) return;
      cell.className = passed ? "ok" : "no";
      cell.textContent = text;
    },
    /**
     * @param {ReadonlyMap<string, number>} times milliseconds by variant
     * @param {string} caption
     */
    measured(times, caption) {
      const slowest = Math.max(...times.values());
      const base = times.get("fp32");
      for (const [id, ms] of times) {
        const cell = cells.get(id);
        if (!cell) continue;
        cell.time.textContent = `${ms.toFixed(ms < 1 ? 3 : 2)} ms`;
        cell.line.dataset.ms = String(ms);
        cell.bar.style.setProperty("--p", String(ms / slowest));
        cell.ratio.textContent = base ? `${(base / ms).toFixed(2)}×` : "–";
      }
      byId("variants-caption").textContent = caption;
    },
  };
}

/**
 * The median over rounds of the mean time of one answer, in milliseconds, by variant; at batch 1,
 * model only. Leaves the page a breath after each variant's turn.
 *
 * @param {ReadonlyMap<string, Predictor>} predictors
 * @returns {Promise<{times: Map<string, number>, runs: number}>}
 */
export async function measure(predictors) {
  /** @type {Map<string, {p: Predictor, pixels: any, calls: number, times: number[]}>} */
  const turns = new Map();
  for (const [id, p] of predictors) {
    const { height, width, channels } = p.spec;
    const data = new Uint8Array(height * width * channels).map((_, i) => (i * 37) % 256);
    const pixels = { shape: [1, height, width, channels], data };
    const first = await timed(p, pixels, 3); // and warm-up
    turns.set(id, { p, pixels, calls: Math.max(3, Math.ceil(CHUNK_MS / first)), times: [] });
  }
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const turn of turns.values()) {
      turn.times.push(await timed(turn.p, turn.pixels, turn.calls));
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
  const times = new Map([...turns].map(([id, turn]) => [id, median(turn.times)]));
  return { times, runs: Math.min(...[...turns.values()].map(({ calls }) => calls)) * ROUNDS };
}

/** @param {Predictor} p @param {any} pixels @param {number} calls */
async function timed(p, pixels, calls) {
  const start = performance.now();
  for (let i = 0; i < calls; i += 1) await p.run(pixels);
  return (performance.now() - start) / calls;
}

/** @param {number[]} values */
function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
