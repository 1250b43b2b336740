// A sheet of paper to draw on, by mouse, finger, pen or keyboard.

import { byId, context2d } from "./dom.mjs";

const PAPER = "#fff";
const INK = "#16191d";
const [STEP, FINE_STEP] = [8, 2]; // pixels of the canvas for one press of an arrow

/** @typedef {{width: number, points: [number, number][]}} Stroke */

/**
 * @param {object} options
 * @param {() => void} options.onChange after every change of the paper
 * @param {(words: string) => void} options.say for what is not seen
 */
export function createPad({ onChange, say }) {
  const canvas = /** @type {HTMLCanvasElement} */ (byId("ink"));
  const context = context2d(canvas);
  const pen = byId("pen");
  /** @type {Stroke[]} */
  let strokes = [];
  /** @type {CanvasImageSource | null} a picture on the paper instead of strokes */
  let picture = null;
  /** @type {Stroke | null} the one that is being drawn */
  let current = null;
  /** @type {[number, number]} the position of the keyboard's pen */
  let position = [canvas.width / 2, canvas.height / 2];
  let isPenDown = false;

  const penWidth = () =>
    Number(/** @type {HTMLInputElement} */ (document.querySelector("[name=width]:checked")).value);

  function redraw() {
    context.fillStyle = PAPER;
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (picture) drawWhole(picture);
    strokes.forEach(drawStroke);
    byId("pad-hint").hidden = Boolean(strokes.length || picture);
    /** @type {HTMLButtonElement} */ (byId("undo")).disabled = !strokes.length;
    /** @type {HTMLButtonElement} */ (byId("clear")).disabled = !strokes.length && !picture;
  }

  /** @param {Stroke} stroke */
  function drawStroke({ width, points }) {
    Object.assign(context, { lineCap: "round", lineJoin: "round", lineWidth: width });
    context.strokeStyle = INK;
    context.beginPath();
    context.moveTo(...points[0]);
    for (let i = 1; i < points.length; i += 1) {
      const [[x0, y0], [x1, y1]] = [points[i - 1], points[i]];
      context.quadraticCurveTo(x0, y0, (x0 + x1) / 2, (y0 + y1) / 2);
    }
    context.lineTo(...points[points.length - 1]); // a dot, too, is a line
    context.stroke();
  }

  /** @param {CanvasImageSource} source */
  function drawWhole(source) {
    const { width, height } = /** @type {HTMLCanvasElement} */ (source);
    const scale = Math.min(canvas.width / width, canvas.height / height);
    const [w, h] = [width * scale, height * scale];
    context.drawImage(source, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
  }

  function changed() {
    redraw();
    onChange();
  }

  function clear() {
    [strokes, picture, current, isPenDown] = [[], null, null, false];
    showPen();
    changed();
  }

  function undo() {
    strokes.pop();
    changed();
  }

  /** @param {[number, number]} point */
  function start(point) {
    picture = null;
    current = { width: penWidth(), points: [point] };
    strokes.push(current);
    changed();
  }

  /** @param {PointerEvent} event @returns {[number, number]} */
  function pointOf(event) {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * canvas.width) / box.width,
      ((event.clientY - box.top) * canvas.height) / box.height,
    ];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    pen.hidden = true;
    start(pointOf(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!current || !canvas.hasPointerCapture(event.pointerId)) return;
    const events = event.getCoalescedEvents?.() ?? [];
    current.points.push(...(events.length ? events : [event]).map(pointOf));
    changed();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => (current = null));
  }

  function showPen() {
    pen.classList.toggle("down", isPenDown);
    pen.style.left = `${(position[0] / canvas.width) * 100}%`;
    pen.style.top = `${(position[1] / canvas.height) * 100}%`;
  }

  /** @param {number} dx @param {number} dy */
  function move(dx, dy) {
    position = [
      Math.min(canvas.width, Math.max(0, position[0] + dx)),
      Math.min(canvas.height, Math.max(0, position[1] + dy)),
    ];
    if (isPenDown && current) {
      current.points.push([...position]);
      changed();
    }
  }

  canvas.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? FINE_STEP : STEP;
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => move(-step, 0),
      ArrowRight: () => move(step, 0),
      ArrowUp: () => move(0, -step),
      ArrowDown: () => move(0, step),
      " ": () => {
        isPenDown = !isPenDown;
        if (isPenDown) start([...position]);
        else current = null;
        say(isPenDown ? "Pen down" : "Pen up");
      },
      Delete: clear,
      Backspace: clear,
      Escape: clear,
    };
    const isUndo = event.key === "z" && (event.ctrlKey || event.metaKey);
    const action = isUndo ? undo : keys[event.key];
    if (!action) return;
    event.preventDefault();
    pen.hidden = false;
    action();
    showPen();
  });
  // shown to those who come by keyboard
  canvas.addEventListener("focus", () => (pen.hidden = !canvas.matches(":focus-visible")));
  canvas.addEventListener("blur", () => (pen.hidden = true));

  byId("undo").addEventListener("click", undo);
  byId("clear").addEventListener("click", clear);
  showPen();
  redraw();

  return {
    /** True when there is nothing to read. */
    get isEmpty() {
      return !strokes.length;
    },
    /** The paper as it is: what is read is what is seen. */
    pixels: () => context.getImageData(0, 0, canvas.width, canvas.height),
    /**
     * Show a picture instead of strokes; the next stroke takes it away.
     *
     * @param {CanvasImageSource} source with a width and a height
     */
    show(source) {
      [strokes, current, picture] = [[], null, source];
      redraw();
    },
  };
}
