// What apps see of index.mjs. The modules themselves are typed by JSDoc; tests hold the two together.

/** Values in C order. */
export interface NdArray<T extends Uint8Array | Float32Array> {
  readonly shape: readonly number[];
  readonly data: T;
}

/** Where a bundle is: an address, a Blob or File, or its bytes. */
export type Source = string | URL | Blob | ArrayBuffer | Uint8Array;

/** `[H, W]`, `[H, W, 1 | 3 | 4]` as an array, an ImageData, a file, or what a canvas can draw. */
export type ImageSource =
  | { readonly shape: readonly number[]; readonly data: Uint8Array | Uint8ClampedArray }
  | ImageData
  | Blob
  | CanvasImageSource;

export interface ModelSpec {
  readonly name: string;
  /** A name of the table of tasks. */
  readonly task: string;
  /** Pixels. */
  readonly height: number;
  /** Pixels. */
  readonly width: number;
  /** 1: gray; 3: red, green, blue. */
  readonly channels: 1 | 3;
  readonly labels: readonly string[];
  readonly outputs: readonly OutputSpec[];
  /** The value of 16-bit pixels that is white; null: not stated. */
  readonly whiteLevel: number | null;
}

/** One output of a model; null in its shape is an axis whose length is known at run time. */
export interface OutputSpec {
  readonly name: string;
  /** Of one image, without the batch. */
  readonly shape: readonly (number | null)[];
  readonly dtype: "float32";
}

export interface Variant {
  /** Begins with its precision. */
  readonly id: string;
  readonly file: string;
  readonly precision: string;
  readonly portable: boolean;
  readonly goldenTolerance: number;
  readonly thresholds: readonly number[] | null;
}

export interface Manifest {
  readonly modelVersion: string;
  readonly spec: ModelSpec;
  readonly files: ReadonlyMap<string, { readonly sha256: string; readonly sizeBytes: number }>;
  readonly variants: readonly Variant[];
  readonly defaults: readonly {
    readonly target: string;
    readonly variant: string;
    readonly reason: string;
  }[];
  readonly provenance: Readonly<Record<string, unknown>>;
  /** True when the model was trained on generated images. */
  readonly synthetic: boolean;
}

/** A bundle whose every member was hashed. */
export class Bundle {
  private constructor();
  static open(source: Source): Promise<Bundle>;
  /** SHA-256 of the manifest. */
  readonly id: string;
  readonly manifest: Manifest;
  read(name: string): Promise<Uint8Array<ArrayBuffer>>;
  verify(): Promise<void>;
}

export interface Candidate {
  readonly label: string;
  readonly index: number;
  readonly probability: number;
}

/** The answer for one image: the most probable label. */
export class Prediction {
  private constructor();
  readonly label: string;
  readonly index: number;
  readonly probability: number;
  /** One for each label; they sum to 1. */
  readonly probabilities: readonly number[];
  readonly labels: readonly string[];
  readonly accepted: boolean;
  top(k?: number): Candidate[];
}

export interface Attribute {
  readonly name: string;
  readonly probability: number;
  readonly threshold: number;
  /** `probability >= threshold` */
  readonly present: boolean;
  readonly accepted: boolean;
}

/** The answer for one image: every attribute, in the order of the labels. */
export class AttributePrediction {
  private constructor();
  readonly attributes: readonly Attribute[];
  readonly accepted: boolean;
  /** The names of the attributes that are present. */
  get present(): string[];
}

/** The answer of a model without labels for one image: an array for each output. */
export class Values {
  private constructor();
  readonly arrays: ReadonlyMap<string, NdArray<Float32Array>>;
  get(name: string): NdArray<Float32Array>;
}

export type Answer = Prediction | AttributePrediction | Values;

export interface PredictorInfo {
  readonly device: string;
  readonly variant: string;
  readonly threads: number;
  readonly reason: string;
  readonly modelVersion: string;
  readonly bundleId: string;
  readonly synthetic: boolean;
}

export interface SelftestReport {
  readonly variant: string;
  /** Raw images whose preprocessed bytes were equal. */
  readonly images: number;
  /** Model inputs whose probabilities were compared. */
  readonly samples: number;
  readonly maxDifference: number;
  readonly tolerance: number;
}

/** onnxruntime as the predictor needs it: see onnxruntimeWeb and onnxruntimeNode. */
export interface Onnxruntime {
  // a module of onnxruntime-web or onnxruntime-node, whichever it is
  readonly ort: any;
  readonly device: string;
  readonly target: string;
  readonly threads: number;
}

/** One variant of a model, ready to answer. */
export class Predictor {
  private constructor();
  static load(
    source: Source | Bundle,
    options?: { variant?: string; runtime?: Onnxruntime; threads?: number },
  ): Promise<Predictor>;
  readonly info: Readonly<PredictorInfo>;
  readonly spec: ModelSpec;
  /** The one output [N, ...] of the model's pixels [N, h, w, c]; with labels [N, labels]. */
  run(pixels: NdArray<Uint8Array>): Promise<NdArray<Float32Array>>;
  /** Every output [N, ...] by its name. */
  outputs(pixels: NdArray<Uint8Array>): Promise<Map<string, NdArray<Float32Array>>>;
  /** What the model would see of an image: [h, w, c]. */
  preprocess(image: ImageSource): Promise<NdArray<Uint8Array>>;
  /** The answer for one image of any size. */
  predict(
    image: ImageSource,
    options?: { minProbability?: number },
  ): Promise<Answer>;
  /** The answer for pixels that were preprocessed. */
  answer(
    pixels: NdArray<Uint8Array>,
    options?: { minProbability?: number },
  ): Promise<Answer>;
  selftest(): Promise<SelftestReport>;
  warmup(n?: number): Promise<void>;
  close(): Promise<void>;
}

/** The recorded inputs and outputs of a bundle. */
export class Golden {
  private constructor();
  static fromNpz(bytes: Uint8Array<ArrayBuffer>, spec: ModelSpec): Promise<Golden>;
  readonly raw: readonly NdArray<Uint8Array>[];
  readonly pixels: NdArray<Uint8Array>;
  /** Variant id -> an array [n, ...] for each output. */
  readonly records: ReadonlyMap<string, readonly NdArray<Float32Array>[]>;
}

export function onnxruntimeWeb(options?: {
  folder?: string | URL;
  threads?: number;
}): Promise<Onnxruntime>;
export function onnxruntimeNode(
  module: unknown,
  options?: { threads?: number; target?: string },
): Onnxruntime;
export function decode(blob: Blob, whiteLevel?: number | null): Promise<ImageBitmap>;
export function checkedMetadata(bytes: Uint8Array): Map<string, string>;

export class PredictorError extends Error {}
export class InputError extends PredictorError {}
export class DeviceError extends PredictorError {}
export class AnswerError extends PredictorError {
  /** The image's number in its batch, from 0; undefined: the answer as a whole. */
  readonly image: number | undefined;
}
export class RuntimeMissing extends PredictorError {}
export class BundleError extends PredictorError {}
export class BundleFormatError extends BundleError {}
export class BundleIntegrityError extends BundleError {}
export class VariantError extends BundleError {}
export class SelftestError extends PredictorError {}
