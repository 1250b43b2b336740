"""Variants and reports -> one bundle. What stands in it is specified by ``runtime/BUNDLE.md``;
what is in the measurements and the model card is the caller's."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.errors import GraphError, PackageError
from exporters.graph import onnx_file
from exporters.package.archive import replace_file, zip_bytes
from runtime import (
    Default,
    FileEntry,
    Manifest,
    ModelSpec,
    Predictor,
    PredictorError,
    Variant,
)
from runtime.manifest import (
    GOLDEN_NAME,
    MANIFEST_HASH_NAME,
    MANIFEST_NAME,
    MEASUREMENTS_NAME,
    MODEL_CARD_NAME,
    PREPROCESS_NAME,
)
from runtime.spec import INPUT_NAME
from runtime.tasks import task_named

_KEPT = " Nothing was replaced."
# Of FP32's rounding, as measured when the bundle is written, that another CPU may show: kernels
# differ here by 1e-7 (digits) to 7e-6 (a ResNet-18), other CPUs by up to eight times the former.
_MARGIN = 10
_WIDEST = 1e-3


@dataclass(frozen=True)
class PackedVariant:
    """One form of the model with its file; the other fields are those of the manifest."""

    model: bytes  # an ONNX file
    id: str
    precision: str  # "fp32", "fp16" or "int8"
    portable: bool
    golden_tolerance: float  # see golden_tolerance(); of FP32 the least, which rounding may widen
    thresholds: tuple[float, ...] | None = None  # one for each label, of a task with thresholds
    device_tolerance: float | None = None  # see device_tolerance(); None: as on the CPU

    @property
    def row(self) -> Variant:
        """The variant as the manifest lists it."""
        return Variant(
            id=self.id,
            file=f"variants/{self.id}.onnx",
            precision=self.precision,
            portable=self.portable,
            golden_tolerance=self.golden_tolerance,
            thresholds=self.thresholds,
            device_tolerance=self.device_tolerance,
        )


@dataclass(frozen=True)
class Golden:
    """Images that a device tests itself with; never of a data set that must stay home."""

    raw: tuple[NDArray[np.uint8], ...]  # any size, [H, W] or [H, W, C]; test preprocessing, too
    pixels: NDArray[np.uint8]  # [n, h, w, c], the model's own pixels; n may be 0


def golden_tolerance(precision: str, portable: bool) -> float:
    """How far a device's probabilities may differ from the recorded ones, or other outputs as a
    share of their largest magnitude.

    It must let every healthy device pass and no broken one: a saturating CPU, a wrong layout, one
    altered weight.
    """
    if precision == "fp32":
        return 1e-5  # sums in another order: at most 8e-7 on 12 targets (docs/measured.md)
    if precision == "fp16":
        return 0.05  # in half precision throughout a ResNet-18 differs by 0.025, others by less
    if portable:
        return 1e-5  # equal quantized tensors; at most 2e-7 in the float softmax behind them
    return 0.05  # some levels; saturation shows 0.5 and more


def device_tolerance(precision: str, portable: bool) -> float:
    """The same on another device than the CPU."""
    if precision == "fp32":
        return 5e-3  # CUDA's TF32 keeps 11 bits of each factor
    # Portable is a claim about integer kernels; a provider that sums 8-bit layers in float may
    # round a tensor to its neighboring level.
    return golden_tolerance(precision, portable=False)


def write_bundle(
    path: Path,
    *,
    spec: ModelSpec,
    preprocess: bytes,
    variants: Sequence[PackedVariant],
    defaults: Sequence[Default],
    golden: Golden,
    measurements: Mapping[str, Any],
    model_card: str,
    model_version: str = "1.0.0",
    devices: Sequence[str] = ("cuda", "cpu"),
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Write a bundle and return its id, the sha256 of its manifest.

    The golden outputs are computed here on the CPU, by the predictor that ships. The bundle is
    written aside, opened and selftested with every variant, and only then renamed to ``path``:
    a failure leaves an existing bundle as it was. The same arguments give the same bytes.

    Raises PackageError.
    """
    files = {
        PREPROCESS_NAME: preprocess,
        MEASUREMENTS_NAME: _json(measurements, "the measurements"),
        MODEL_CARD_NAME: model_card.encode(),
        **{variant.row.file: variant.model for variant in variants},
    }
    try:
        files[GOLDEN_NAME], tolerances = _golden(spec, preprocess, variants, golden)
        manifest = Manifest(
            model_version=model_version,
            spec=spec,
            files={
                name: FileEntry(hashlib.sha256(data).hexdigest(), len(data))
                for name, data in sorted(files.items())
            },
            variants=tuple(
                replace(variant.row, golden_tolerance=tolerances[variant.id])
                for variant in variants
            ),
            defaults=tuple(defaults),
            devices=tuple(devices),
            provenance=json.loads(_json(provenance or {}, "the provenance")),
        )
        manifest.check()
        text = manifest.to_json().encode()
        bundle_id = hashlib.sha256(text).hexdigest()
        head = {MANIFEST_NAME: text, MANIFEST_HASH_NAME: f"{bundle_id}\n".encode()}
        data = zip_bytes({**head, **dict(sorted(files.items()))})
        replace_file(path, data, lambda aside: _selftest(aside, manifest))
    except (PredictorError, GraphError) as exc:
        raise PackageError(
            f"the bundle {path.name} does not open or answer as it should: {exc}{_KEPT}"
        ) from exc
    except OSError as exc:
        raise PackageError(f"the bundle {path} cannot be written: {exc}.{_KEPT}") from exc
    return bundle_id


def _golden(
    spec: ModelSpec, preprocess: bytes, variants: Sequence[PackedVariant], golden: Golden
) -> tuple[bytes, dict[str, float]]:
    """golden.npz, and the tolerance of each variant by its id.

    The arrays are ``raw/<i>`` [H, W, C], ``pixels`` [n, h, w, c] (first those of the raw images)
    and ``<output>/<variant>`` [n, ...] for each output.
    """
    if not variants:
        raise PackageError("there are no variants to pack; expected at least one that passed.")
    if golden.pixels.shape[1:] != spec.shape or golden.pixels.dtype != np.uint8:
        raise PackageError(
            f"the golden images are {golden.pixels.dtype} {golden.pixels.shape}; expected uint8 "
            f"{('n', *spec.shape)}, the model's own pixels."
        )
    raw = [np.atleast_3d(image) for image in golden.raw]
    arrays: dict[str, NDArray[Any]] = {f"raw/{i}": image for i, image in enumerate(raw)}
    tolerances = {variant.id: variant.golden_tolerance for variant in variants}
    for variant in variants:
        with Predictor.from_parts(
            spec,
            preprocess,
            variant.model,
            thresholds=variant.thresholds,
            variant=variant.id,
            portable=variant.portable,
            device="cpu",
            threads=1,
        ) as predictor:
            if "pixels" not in arrays:
                made = [predictor.preprocess(image)[None] for image in raw]
                arrays["pixels"] = np.concatenate([*made, golden.pixels])
            if not len(arrays["pixels"]):
                raise PackageError("there are no golden images; expected at least one.")
            # one by one, as most apps ask; the selftest then asks in batches, too
            rows = [predictor.outputs(pixels[None]) for pixels in arrays["pixels"]]
            record = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
            arrays |= {f"{name}/{variant.id}": values for name, values in record.items()}
        if variant.precision == "fp32":
            rounding = _rounding(spec, variant.model, arrays["pixels"], record)
            widened = min(_MARGIN * rounding, _WIDEST)
            tolerances[variant.id] = max(variant.golden_tolerance, widened)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy stores without times: same bytes
    return buffer.getvalue(), tolerances


def _rounding(
    spec: ModelSpec,
    model: bytes,
    pixels: NDArray[np.uint8],
    record: Mapping[str, NDArray[np.float32]],
) -> float:
    """The largest difference, as golden samples are compared, when the sums of this network's
    layers are taken in another order: by onnxruntime's plain kernels, as in a graph that was not
    optimized."""
    session = onnx_file.session(model, optimized=False)
    rows = [onnx_file.run_feed(session, list(record), {INPUT_NAME: i[None]}) for i in pixels]
    plain = [np.concatenate(values) for values in zip(*rows, strict=True)]
    return task_named(spec.task).compare_golden(plain, list(record.values()))


def _selftest(path: Path, manifest: Manifest) -> None:
    """Open the real file as a device does, once with each variant."""
    for variant in manifest.variants:
        with Predictor(path, device="cpu", variant=variant.id, threads=1) as predictor:
            predictor.selftest()


def _json(value: Mapping[str, Any], what: str) -> bytes:
    try:
        text = json.dumps(value, sort_keys=True, indent=2, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise PackageError(
            f"{what} cannot be written as JSON: {exc}. Use numbers that are finite, text, lists "
            "and dicts with text keys; None for what was not measured."
        ) from exc
    return f"{text}\n".encode()
