// Shows what the model answers: the verdict, a bar for each label, the pixels it saw.

import { byId, make, paint } from "./dom.mjs";

const SURE = 0.6; // below it, a digit is shown as a guess
const MANY = 12; // labels from which on the bars have two columns
const QUIET_MS = 700; // without a change before the answer is spoken

/** @typedef {import("./runtime/index.mjs").ModelSpec} ModelSpec */
/** @typedef {import("./runtime/index.mjs").Prediction} Prediction */
/** @typedef {import("./runtime/index.mjs").AttributePrediction} AttributePrediction */
/** @typedef {import("./runtime/index.mjs").Values} Values */

/** @param {ModelSpec} spec */
export function createAnswer({ labels, height, width }) {
  const bars = byId("bars");
  const verdict = byId("verdict");
  const more = byId("verdict-more");
  const seen = /** @type {HTMLCanvasElement} */ (byId("seen"));
  Object.assign(seen, { width, height });
  bars.classList.toggle("two", labels.length > MANY);
  bars.classList.toggle(
    "wordy",
    labels.some((label) => label.length > 2),
  );
  const rows = labels.map((label) => {
    const [fill, mark] = [make("span", { class: "fill" }), make("span", { class: "mark" })];
    const percent = make("span", { class: "percent" }, "–");
    const name = make("span", { class: "name", title: words(label) }, words(label));
    const track = make("span", { class: "track", "aria-hidden": "true" }, fill, mark);
    const row = make("li", { "data-label": label }, name, track, percent);
    mark.hidden = true;
    bars.append(row);
    return { row, fill, mark, percent };
  });
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let speaking;

  /** @param {string} sentence */
  function say(sentence) {
    clearTimeout(speaking);
    speaking = setTimeout(() => (byId("live").textContent = sentence), QUIET_MS);
  }

  /** @param {number} i @param {number} probability @param {boolean} isChosen */
  function setBar(i, probability, isChosen) {
    const { row, fill, percent } = rows[i];
    row.dataset.probability = String(probability);
    row.classList.toggle("chosen", isChosen);
    fill.style.setProperty("--p", String(probability));
    percent.textContent = inPercent(probability);
  }

  /** @param {Prediction} answer */
  function showPrediction(answer) {
    answer.probabilities.forEach((p, i) => setBar(i, p, i === answer.index));
    const [first, second] = answer.top(2);
    verdict.textContent = words(first.label);
    verdict.classList.toggle("unsure", first.probability < SURE);
    const next = second ? ` Next: ${words(second.label)}, ${inPercent(second.probability)}.` : "";
    more.textContent = `${inPercent(first.probability)} sure.${next}`;
    say(`Reads ${words(first.label)}, ${inPercent(first.probability)}`);
  }

  /** @param {AttributePrediction} answer */
  function showAttributes(answer) {
    answer.attributes.forEach(({ probability, threshold, present }, i) => {
      setBar(i, probability, present);
      rows[i].mark.hidden = false;
      rows[i].mark.style.left = `${threshold * 100}%`;
      rows[i].row.title = `${present ? "present" : "absent"}, from ${inPercent(threshold)} upwards`;
      rows[i].row.dataset.present = String(present);
    });
    const names = answer.present.map(words);
    verdict.textContent = names.join(", ") || "None of them";
    more.textContent = `${names.length} of ${labels.length} attributes reach their threshold (the tick on each bar).`;
    say(names.length ? `Present: ${names.join(", ")}` : "No attribute is present");
  }

  /** @param {Values} answer */
  function showValues(answer) {
    const outputs = [...answer.arrays].map(([name, { shape }]) => `${name} (${shape.join(", ")})`);
    verdict.textContent = outputs.join("; ");
    more.textContent = "The model has no labels: an array for each output.";
  }

  return {
    /**
     * @param {Prediction | AttributePrediction | Values} answer
     * @param {{shape: readonly number[], data: Uint8Array}} pixels
     */
    show(answer, pixels) {
      verdict.classList.toggle("words", !("probabilities" in answer));
      if ("attributes" in answer) showAttributes(answer);
      else if ("arrays" in answer) showValues(answer);
      else showPrediction(answer);
      paint(seen, pixels);
    },
    clear() {
      rows.forEach((row, i) => {
        setBar(i, 0, false);
        row.percent.textContent = "–";
        delete row.row.dataset.probability;
      });
      verdict.textContent = "–";
      more.textContent = "Nothing to read yet.";
      byId("timing").textContent = "";
      paint(seen, { shape: [height, width, 1], data: new Uint8Array(height * width) });
      say("Cleared");
    },
    say,
  };
}

/** @param {string} label */
function words(label) {
  return label.replaceAll("_", " ");
}

/** @param {number} share */
export function inPercent(share) {
  return `${(share * 100).toFixed(1)} %`;
}
