"""Variants and reports -> one bundle, as specified by ``runtime/BUNDLE.md``. The caller decides on
the contents of the measurements and the model card."""

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

_KEPT = " Nothing was replaced."
# Of FP32's rounding, as measured when the bundle is written, that another CPU may show: kernels
# differ here by 1e-7 (digits) to 7e-6 (a ResNet-18), other CPUs by up to eight times the former.
_MARGIN = 10
_WIDEST = 1e-3


@dataclass(frozen=True)
class PackedVariant:
    """One variant with its file; the other fields are those of the manifest."""

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
    """Images that a device tests itself with; never from a data set that is not redistributable."""

    raw: tuple[NDArray[np.uint8], ...]  # any size, [H, W] or [H, W, C]; for preprocessing as well
    pixels: NDArray[np.uint8]  # [n, h, w, c], the model's own pixels; n may be 0


def golden_tolerance(precision: str, portable: bool) -> float:
    """Return the allowed difference between a device's probabilities and the recorded ones.

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
    """Return the allowed difference on a device other than the CPU."""
    if precision == "fp32":
        return 5e-3  # CUDA's TF32 keeps 11 bits of each factor
    # "portable" is a claim about integer kernels; a provider that sums 8-bit layers in float may
    # round a tensor to the next level.
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

    The golden outputs are computed here on the CPU by the predictor that ships. The bundle is
    written under another name, opened and selftested with every variant, and then renamed to
    ``path``: a failure keeps an existing bundle. The same arguments give the same bytes.

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
        replace_file(path, data, lambda written: _selftest(written, manifest))
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
    """Return golden.npz, and the tolerance of each variant by its id.

    The arrays are ``raw/<i>`` [H, W, C], ``pixels`` [n, h, w, c] (first those of the raw images)
    and ``probabilities/<variant>`` [n, labels].
    """
    if not variants:
        raise PackageError("there are no variants to package; expected at least one that passed.")
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
            # one by one, as most apps do; the selftest gives them in batches as well
            rows = [predictor(pixels[None]) for pixels in arrays["pixels"]]
            arrays[f"probabilities/{variant.id}"] = record = np.concatenate(rows)
        if variant.precision == "fp32":
            widened = min(_MARGIN * _rounding(variant.model, arrays["pixels"], record), _WIDEST)
            tolerances[variant.id] = max(variant.golden_tolerance, widened)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy stores without times: same bytes
    return buffer.getvalue(), tolerances


def _rounding(model: bytes, pixels: NDArray[np.uint8], record: NDArray[np.float32]) -> float:
    """Return the change of this network's probabilities when its sums have another order: that of
    onnxruntime's plain kernels, without graph optimization."""
    session = onnx_file.session(model, optimized=False)
    plain = np.concatenate([onnx_file.run(session, image[None]) for image in pixels])
    return float(np.abs(plain - record).max())


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
            f"{what} cannot be written as JSON: {exc}. Use finite numbers, text, lists and dicts "
            "with text keys, and None for missing measurements."
        ) from exc
    return f"{text}\n".encode()
