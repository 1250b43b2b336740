// The public face of the web runtime:
//
//     import { Predictor } from "./runtime/index.mjs";
//
//     const p = await Predictor.load("bundle.zip");
//     const answer = await p.predict(file);          // a File, an ImageData, a canvas, ...
//     console.log(answer.label, answer.probability); // or answer.attributes
//     await p.selftest();                            // the golden samples, in this very browser

export { Bundle } from "./bundle.mjs";
export * from "./errors.mjs";
export { Golden } from "./golden.mjs";
export { decode } from "./images.mjs";
export { checkedMetadata } from "./model_file.mjs";
export { onnxruntimeNode, onnxruntimeWeb } from "./onnxruntime.mjs";
export { Predictor } from "./predictor.mjs";
export { AttributePrediction, Prediction, Values } from "./tasks/index.mjs";
