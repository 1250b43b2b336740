"""The golden samples of a bundle: recorded inputs and outputs, and the comparison with what
comes out here. Knows nothing of sessions; ``BUNDLE.md`` describes ``golden.npz``."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BundleFormatError, SelftestError
from .manifest import GOLDEN_NAME, Variant
from .spec import ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ADVICE = "The device or its onnxruntime computes otherwise than where the bundle was made."


@dataclass(frozen=True)
class Golden:
    """Arrays of ``golden.npz``, checked against the spec."""

    raw: tuple[NDArray[np.uint8], ...]  # R images [H, W, C] of any size
    pixels: NDArray[np.uint8]  # [n, h, w, c]; the first R are the preprocessed raw images
    probabilities: dict[str, NDArray[np.float32]]  # variant id -> [n, labels]

    @classmethod
    def from_npz(cls, data: bytes, spec: ModelSpec) -> Golden:
        """Read the member of a bundle; raises BundleFormatError."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                found: dict[str, NDArray[Any]] = {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as exc:
            raise BundleFormatError(f"{GOLDEN_NAME} is no readable .npz file: {exc}.") from exc
        raw: list[NDArray[np.uint8]] = []
        while (image := found.pop(f"raw/{len(raw)}", None)) is not None:
            raw.append(image)
        pixels = found.pop("pixels", np.empty(0))
        probabilities = {
            name.removeprefix("probabilities/"): found.pop(name)
            for name in sorted(found)
            if name.startswith("probabilities/")
        }
        golden = cls(tuple(raw), pixels, probabilities)
        golden._check(spec, unknown=sorted(found))
        return golden

    def _check(self, spec: ModelSpec, unknown: list[str]) -> None:
        problems = [f"unknown array {name!r}" for name in unknown]
        samples = len(self.pixels)
        expected = (samples, len(spec.labels))
        if self.pixels.shape != (samples, *spec.shape) or self.pixels.dtype != np.uint8:
            problems.append(f"pixels are {self.pixels.dtype} {self.pixels.shape}")
        if not 0 < max(1, len(self.raw)) <= samples:
            problems.append(f"{samples} pixels for {len(self.raw)} raw images")
        problems += [
            f"raw/{i} is {image.dtype} {image.shape}"
            for i, image in enumerate(self.raw)
            if image.dtype != np.uint8 or image.ndim != 3
        ]
        problems += [
            f"probabilities/{name} are {array.dtype} {array.shape}"
            for name, array in self.probabilities.items()
            if array.dtype != np.float32 or array.shape != expected
        ]
        if problems:
            raise BundleFormatError(f"{GOLDEN_NAME}: " + "; ".join(problems) + ".")

    def check_pixels(self, index: int, found: NDArray[np.uint8]) -> None:
        """Raise SelftestError unless preprocessing ``raw[index]`` gave the recorded bytes."""
        expected = self.pixels[index]
        if not np.array_equal(found, expected):
            different = int(np.count_nonzero(found != expected))
            raise SelftestError(
                f"preprocess.onnx gives other pixels for golden image {index}: {different} of "
                f"{expected.size} bytes differ; expected none. {_ADVICE}"
            )

    def check_probabilities(self, variant: Variant, found: NDArray[np.float32]) -> float:
        """The largest difference to the record; raises SelftestError beyond the tolerance."""
        if variant.id not in self.probabilities:
            raise SelftestError(f"{GOLDEN_NAME} has no probabilities for variant {variant.id!r}.")
        difference = float(np.abs(found - self.probabilities[variant.id]).max())
        if not difference <= variant.golden_tolerance:  # true of NaN too
            raise SelftestError(
                f"variant {variant.id!r} differs from its golden probabilities by "
                f"{difference:.3g}; expected at most {variant.golden_tolerance:.3g}. {_ADVICE}"
            )
        return difference
