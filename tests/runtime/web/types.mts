// Never run: TypeScript reads it. An app as its types allow it, and the declarations held against
// the modules that they describe.

import * as declared from "../../../runtime/web/index.mjs";
import { Bundle } from "../../../runtime/web/bundle.mjs";
import { Golden } from "../../../runtime/web/golden.mjs";
import { onnxruntimeNode, onnxruntimeWeb } from "../../../runtime/web/onnxruntime.mjs";
import { Predictor } from "../../../runtime/web/predictor.mjs";
import { AttributePrediction, Prediction, Values } from "../../../runtime/web/tasks/index.mjs";

export async function app(file: File): Promise<string> {
  const p = await declared.Predictor.load("bundle.zip", { threads: 1 });
  const answer = await p.predict(file, { minProbability: 0.5 });
  const report = await p.selftest();
  await p.close();
  if (answer instanceof declared.Prediction) return answer.top(3)[0].label;
  if (answer instanceof declared.Values) return `${answer.get("boxes").shape}`;
  return `${answer.present.join()} ${report.maxDifference.toFixed(9)}`;
}

export function mistakes(p: declared.Predictor): void {
  // @ts-expect-error -- an option that is not there
  void declared.Predictor.load("bundle.zip", { thread: 1 });
  // @ts-expect-error -- made by load alone
  new declared.Predictor();
  // @ts-expect-error -- an address is no image
  void p.predict("one.png");
}

export function described(
  predictor: Predictor,
  bundle: Bundle,
  golden: Golden,
  prediction: Prediction,
  attributes: AttributePrediction,
  outputs: Values,
): unknown[] {
  const load: typeof declared.Predictor.load = Predictor.load;
  const open: typeof declared.Bundle.open = Bundle.open;
  const web: typeof declared.onnxruntimeWeb = onnxruntimeWeb;
  const node: typeof declared.onnxruntimeNode = onnxruntimeNode;
  const values: [
    declared.Predictor,
    declared.Bundle,
    declared.Golden,
    declared.Prediction,
    declared.AttributePrediction,
    declared.Values,
  ] = [predictor, bundle, golden, prediction, attributes, outputs];
  return [load, open, web, node, values];
}
