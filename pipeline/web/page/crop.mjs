// A picture under a frame that can be moved and resized, by mouse, finger, pen or keyboard, and
// keeps its proportions.

import { byId, context2d } from "./dom.mjs";

const MAX_SHOWN = 440; // CSS pixels of height
const MAX_ENLARGED = 3; // times: small pictures are shown larger, up to this
const MIN_SIDE = 16; // pixels of the picture under the frame
const ALIGNED = 0.02; // relative difference of proportions that counts as none

/** @typedef {{x: number, y: number, width: number, height: number}} Rect pixels of the picture */

/**
 * @param {object} options
 * @param {number} options.aspect width / height of the frame
 * @param {() => void} options.onChange
 */
export function createCrop({ aspect, onChange }) {
  const stage = byId("stage");
  const canvas = /** @type {HTMLCanvasElement} */ (byId("picture"));
  const frame = byId("frame");
  /** @type {Rect} */
  let rect = { x: 0, y: 0, width: 0, height: 0 };
  let isEmpty = true;
  stage.classList.add("empty");

  /** Put canvas and frame where they belong on the screen. */
  function layOut() {
    if (isEmpty) return;
    const scale = Math.min(
      stage.clientWidth / canvas.width,
      MAX_SHOWN / canvas.height,
      MAX_ENLARGED,
    );
    canvas.style.width = `${canvas.width * scale}px`;
    canvas.style.height = `${canvas.height * scale}px`;
    const [left, top] = [canvas.offsetLeft, canvas.offsetTop];
    Object.assign(frame.style, {
      left: `${left + rect.x * scale}px`,
      top: `${top + rect.y * scale}px`,
      width: `${rect.width * scale}px`,
      height: `${rect.height * scale}px`,
    });
  }

  const scaleNow = () => canvas.getBoundingClientRect().width / canvas.width;
  const widest = () => Math.min(canvas.width, canvas.height * aspect);

  /**
   * Take the frame closest to the requested one that fits into the picture.
   *
   * @param {number} x
   * @param {number} y
   * @param {number} requestedWidth
   */
  function moveTo(x, y, requestedWidth) {
    const width = Math.min(widest(), Math.max(MIN_SIDE, requestedWidth));
    const height = width / aspect;
    rect = {
      x: Math.min(canvas.width - width, Math.max(0, x)),
      y: Math.min(canvas.height - height, Math.max(0, y)),
      width,
      height,
    };
    layOut();
    onChange();
  }

  /**
   * Resize about a point that stays: a share of the frame, (0.5, 0.5) is its middle.
   *
   * @param {number} width
   * @param {number} fx
   * @param {number} fy
   */
  function resize(width, fx, fy) {
    const requested = Math.min(widest(), Math.max(MIN_SIDE, width));
    moveTo(
      rect.x + (rect.width - requested) * fx,
      rect.y + ((rect.width - requested) / aspect) * fy,
      requested,
    );
  }

  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    frame.setPointerCapture(event.pointerId);
    const corner = /** @type {HTMLElement} */ (event.target).dataset.corner;
    const [from, start] = [rect, { x: event.clientX, y: event.clientY }];
    /** @param {PointerEvent} moved */
    const onMove = (moved) => {
      const scale = scaleNow();
      const [dx, dy] = [(moved.clientX - start.x) / scale, (moved.clientY - start.y) / scale];
      if (!corner) return moveTo(from.x + dx, from.y + dy, from.width);
      const [toEast, toSouth] = [corner.includes("e"), corner.includes("s")];
      const grown = ((toEast ? dx : -dx) + (toSouth ? dy : -dy) * aspect) / 2;
      rect = from; // each move starts from where the frame was taken
      return resize(from.width + grown, toEast ? 0 : 1, toSouth ? 0 : 1);
    };
    frame.addEventListener("pointermove", onMove);
    const stop = () => frame.removeEventListener("pointermove", onMove);
    frame.addEventListener("pointerup", stop, { once: true });
    frame.addEventListener("pointercancel", stop, { once: true });
  });
  stage.addEventListener(
    "wheel",
    (event) => {
      if (isEmpty) return;
      event.preventDefault();
      resize(rect.width * Math.exp(event.deltaY / 800), 0.5, 0.5);
    },
    { passive: false },
  );
  frame.addEventListener("keydown", (event) => {
    const step = canvas.width * (event.shiftKey ? 0.05 : 0.01);
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => moveTo(rect.x - step, rect.y, rect.width),
      ArrowRight: () => moveTo(rect.x + step, rect.y, rect.width),
      ArrowUp: () => moveTo(rect.x, rect.y - step, rect.width),
      ArrowDown: () => moveTo(rect.x, rect.y + step, rect.width),
      "+": () => resize(rect.width + step, 0.5, 0.5),
      "=": () => resize(rect.width + step, 0.5, 0.5),
      "-": () => resize(rect.width - step, 0.5, 0.5),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  new ResizeObserver(layOut).observe(stage);

  return {
    get isEmpty() {
      return isEmpty;
    },
    /**
     * Show a picture; the frame takes all of one that has its proportions, else what fits into the
     * middle.
     *
     * @param {CanvasImageSource} source with a width and a height
     */
    show(source) {
      const { width, height } = /** @type {HTMLCanvasElement} */ (source);
      Object.assign(canvas, { width, height });
      context2d(canvas).drawImage(source, 0, 0);
      isEmpty = false;
      stage.classList.remove("empty");
      byId("drop-hint").hidden = true;
      frame.hidden = false;
      const isAligned = Math.abs(width / height / aspect - 1) < ALIGNED;
      const side = widest();
      if (isAligned) {
        rect = { x: 0, y: 0, width, height };
        layOut();
        onChange();
      } else {
        moveTo((width - side) / 2, (height - side / aspect) / 2, side);
      }
    },
    /** What is under the frame, in the picture's own pixels: it is resized by preprocess.onnx. */
    pixels() {
      const [x, y] = [Math.round(rect.x), Math.round(rect.y)];
      const width = Math.max(1, Math.min(canvas.width - x, Math.round(rect.width)));
      const height = Math.max(1, Math.min(canvas.height - y, Math.round(rect.height)));
      frame.dataset.crop = [x, y, width, height].join(" ");
      return context2d(canvas).getImageData(x, y, width, height);
    },
  };
}
