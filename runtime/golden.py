"""The golden samples of a bundle: recorded inputs and outputs, and their comparison with those of
this device. Independent of sessions; ``BUNDLE.md`` describes ``golden.npz``."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import AnswerError, BundleError, BundleFormatError, SelftestError
from .manifest import GOLDEN_NAME, Variant
from .spec import ModelSpec
from .tasks import Task, task_named
from .zip_reader import ZipReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .tasks import Arrays

MAX_GOLDEN_BYTES = 1 << 28  # of golden.npz, and of its arrays together
_ADVICE = "The device or its onnxruntime computes differently from where the bundle was made."
_MIXES = (
    "One by one they come out as recorded, so the model mixes the images of a batch. Export it "
    "again, each image on its own."
)
# The head of a .npy as NumPy writes it. NumPy itself reads it with Python's parser, and takes
# every dtype; here are two dtypes, up to eight dimensions and no parser.
_NPY = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|\x02\x00....)"
    rb"\{'descr': '(\|u1|<f4)', 'fortran_order': (False|True), "
    rb"'shape': \(((?:\d{1,9}, ?){0,7}\d{0,9}),?\),? ?\} *\n",
    re.DOTALL,
)
_MAX_HEAD_BYTES = 512
_DTYPES: dict[bytes, np.dtype[Any]] = {b"|u1": np.dtype(np.uint8), b"<f4": np.dtype("<f4")}


@dataclass(frozen=True)
class Golden:
    """Arrays of ``golden.npz``, checked against the spec."""

    raw: tuple[NDArray[np.uint8], ...]  # R images [H, W, C] of any size
    pixels: NDArray[np.uint8]  # [n, h, w, c]; the first R are the preprocessed raw images
    records: dict[str, tuple[NDArray[np.float32], ...]]  # variant id -> [n, ...] of each output
    task: Task

    @classmethod
    def from_npz(cls, data: bytes, spec: ModelSpec) -> Golden:
        """Read the member of a bundle; raises BundleFormatError."""
        try:
            arrays = _arrays(data)
        except BundleError as exc:
            raise BundleFormatError(f"{GOLDEN_NAME} is not a readable .npz file: {exc}") from exc
        raw: list[NDArray[np.uint8]] = []
        while (image := arrays.pop(f"raw/{len(raw)}", None)) is not None:
            raw.append(image)
        pixels = arrays.pop("pixels", np.empty(0))
        outputs = [output.name for output in spec.outputs]
        variants = dict.fromkeys(
            variant
            for output, _, variant in (name.partition("/") for name in sorted(arrays))
            if variant and output in outputs
        )
        missing = [f"{o}/{v}" for v in variants for o in outputs if f"{o}/{v}" not in arrays]
        if missing:
            raise BundleFormatError(f"{GOLDEN_NAME} lacks the arrays {missing}.")
        records = {v: tuple(arrays.pop(f"{o}/{v}") for o in outputs) for v in variants}
        golden = cls(tuple(raw), pixels, records, task_named(spec.task))
        golden._check(spec, unknown=sorted(arrays))
        return golden

    def _check(self, spec: ModelSpec, unknown: list[str]) -> None:
        problems = [f"unknown array {name!r}" for name in unknown]
        samples = self.pixels.shape[0] if self.pixels.ndim else 0
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
            f"{output.name}/{variant} are {array.dtype} {array.shape}"
            for variant, arrays in self.records.items()
            for output, array in zip(spec.outputs, arrays, strict=True)
            if array.dtype != np.float32
            or array.shape[:1] != (samples,)
            or not output.fits(array.shape[1:])
        ]
        if problems:
            raise BundleFormatError(f"{GOLDEN_NAME}: " + "; ".join(problems) + ".")

    def check_pixels(self, index: int, pixels: NDArray[np.uint8]) -> None:
        """Raise SelftestError unless preprocessing ``raw[index]`` gave the recorded bytes."""
        expected = self.pixels[index]
        if not np.array_equal(pixels, expected):
            different = int(np.count_nonzero(pixels != expected))
            raise SelftestError(
                f"preprocess.onnx gives other pixels for golden image {index}: {different} of "
                f"{expected.size} bytes differ; expected none. {_ADVICE}"
            )

    def replay(
        self,
        variant: Variant,
        answer: Callable[[NDArray[np.uint8]], Arrays],
        tolerance: float,
    ) -> float:
        """Run the samples one by one, in pairs and all together; returns the largest difference to
        the record.

        ``answer`` gives the checked outputs of pixels [N, h, w, c]. The first and
        the last sample have a stranger next to them, so that no sample is always at an end of its
        batch. Raises SelftestError beyond the tolerance and for an answer that is refused.
        """
        samples = len(self.pixels)
        padded = np.concatenate([255 - self.pixels[:1], self.pixels, 255 - self.pixels[-1:]])
        largest = 0.0
        for size, how in ((1, "one by one"), (2, "in pairs"), (len(padded), "all together")):
            for start in range(len(padded) - size + 1):
                first, end = max(start, 1), min(start + size, samples + 1)  # without strangers
                if first >= end:
                    continue
                try:
                    arrays = answer(padded[start : start + size])
                except AnswerError as exc:
                    raise SelftestError(f"variant {variant.id!r}, samples {how}: {exc}") from exc
                kept = [array[first - start : end - start] for array in arrays]
                difference = self._difference(variant, kept, first - 1)
                self._judge(variant, difference, tolerance, how, _ADVICE if size == 1 else _MIXES)
                largest = max(largest, difference)
        self._check_record(variant)
        return largest

    def check_together(self, variant: Variant, arrays: Arrays, tolerance: float) -> float:
        """The largest difference of all samples' outputs to the record; raises SelftestError beyond
        the tolerance."""
        difference = self._difference(variant, arrays, 0)
        self._judge(variant, difference, tolerance, "all together", _ADVICE)
        self._check_record(variant)
        return difference

    def _difference(self, variant: Variant, arrays: Arrays, first: int) -> float:
        """The largest difference of the samples from ``first`` on to their record."""
        if variant.id not in self.records:
            raise SelftestError(f"{GOLDEN_NAME} has no outputs for variant {variant.id!r}.")
        return self.task.compare_golden(arrays, self.records[variant.id], first)

    def _check_record(self, variant: Variant) -> None:
        """A tolerance may be as wide as 1: what was recorded must be an answer by itself."""
        if fault := self.task.fault(self.records[variant.id]):
            sample, reason = fault
            raise SelftestError(
                f"{GOLDEN_NAME}: what was recorded of variant {variant.id!r} for sample {sample} "
                f"{reason}. Build the bundle again."
            )

    def _judge(
        self, variant: Variant, difference: float, tolerance: float, how: str, advice: str
    ) -> None:
        if not difference <= tolerance:  # true of NaN too
            raise SelftestError(
                f"variant {variant.id!r} differs from its golden outputs by "
                f"{difference:.3g}; expected at most {tolerance:.3g} (samples {how}). {advice}"
            )


def _arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Every array of a .npz, with no allocation beyond the bounded sizes of its directory."""
    archive = ZipReader(io.BytesIO(data), GOLDEN_NAME)
    total = sum(member.size_bytes for member in archive.members.values())
    if total > MAX_GOLDEN_BYTES:
        raise BundleFormatError(
            f"its arrays have {total} bytes; expected at most {MAX_GOLDEN_BYTES}."
        )
    return {
        name.removesuffix(".npy"): _array(name, archive.inflate(name, MAX_GOLDEN_BYTES))
        for name in archive.members
    }


def _array(name: str, data: bytes) -> NDArray[Any]:
    """The array in a .npy file whose head promises just as many bytes as follow it."""
    head = _NPY.match(data[:_MAX_HEAD_BYTES])
    if head is None:
        raise BundleFormatError(
            f"{name} is not an array of uint8 or float32 (it begins with {data[:80]!r})."
        )
    dtype = _DTYPES[head[1]]
    shape = tuple(int(size) for size in head[3].split(b",") if size.strip())
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - head.end() != expected:
        raise BundleFormatError(
            f"{name} has {len(data) - head.end()} bytes of values; expected {expected} for the "
            f"shape {shape} of {dtype}."
        )
    values: NDArray[Any] = np.frombuffer(data, dtype, offset=head.end())
    return values.reshape(shape[::-1]).T if head[2] == b"True" else values.reshape(shape)
