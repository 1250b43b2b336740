// Model knowledge of the page: which input a model wants, and where a face belongs in the frame. The
// bundle's preprocess metadata decides; only the marks of a face are known here.

import { checkedMetadata } from "./runtime/index.mjs";

const ALIGNED_FACE = [218, 178]; // rows, columns of CelebA's aligned pictures
// Eyes and mouth on those, in pixels from the left and the top: photographs by CelebA's own
// landmarks, drawn faces by their drawing. All rounded; people differ.
const PHOTOGRAPHED = {
  eyes: [
    [70, 111],
    [108, 111],
  ],
  mouth: [89, 152],
};
const DRAWN = {
  eyes: [
    [71, 98],
    [107, 98],
  ],
  mouth: [89, 134],
};
const [EYE, MOUTH] = [[9, 6], 17]; // half widths and heights of the marks

/**
 * Read the hints of a bundle: whether its input is drawn, the aspect of the frame, and SVG paths of
 * the marks in it.
 *
 * @param {import("./runtime/index.mjs").Bundle} bundle
 */
export async function inputHints(bundle) {
  const { spec, synthetic } = bundle.manifest;
  const metadata = checkedMetadata(await bundle.read("preprocess.onnx"));
  const { kind, reference } = JSON.parse(metadata.get("edgeproof.preprocess") ?? "{}");
  const [rows, columns] = Array.isArray(reference) ? reference : [spec.height, spec.width];
  const isFace = `${reference}` === `${ALIGNED_FACE}`;
  const marks = isFace ? facePaths(synthetic ? DRAWN : PHOTOGRAPHED) : [];
  return { isDrawn: kind === "digit", aspect: columns / rows, isFace, marks };
}

/**
 * Paths of eyes and mouth, and of the square that the model takes of the frame.
 *
 * @param {{eyes: number[][], mouth: number[]}} places
 * @returns {[string, string][]} class and path
 */
function facePaths({ eyes, mouth: [x, y] }) {
  const [w, h] = EYE;
  return [
    ...eyes.map(
      ([cx, cy]) =>
        /** @type {[string, string]} */ ([
          "",
          `M${cx - w} ${cy}a${w} ${h} 0 1 0 ${2 * w} 0a${w} ${h} 0 1 0 ${-2 * w} 0`,
        ]),
    ),
    ["", `M${x - MOUTH} ${y}q${MOUTH} 11 ${2 * MOUTH} 0`],
    ["dash", "M0 20H178M0 198H178"],
  ];
}
