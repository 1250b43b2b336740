"""One target's answers beside this machine's: first measured, then judged by what the variant
promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.metrics import decide
from pipeline.errors import TargetError
from pipeline.targets.job import JobVariant, TargetOutputs, VerificationJob
from pipeline.verify.result import Promise, VariantCheck
from runtime import Variant
from runtime.spec import OUTPUT_NAME


def promise(variant: Variant) -> Promise:
    """What a variant promises of every CPU, from the manifest."""
    if variant.portable:
        return Promise(True, 1e-6, "equal integers; the float softmax or sigmoid behind them")
    if variant.precision == "fp32":
        return Promise(False, 1e-4, "float32 sums in another order; 2e-5 was measured")
    why = "16-bit arithmetic of the CPU" if variant.precision == "fp16" else "may saturate"
    return Promise(False, variant.golden_tolerance, f"not portable: {why}")


def check_variant(variant: JobVariant, here: TargetOutputs, there: TargetOutputs) -> VariantCheck:
    """Compare one variant's answers; ``there`` may hold fewer images than ``here``. Raises
    TargetError for rows of another length."""
    row = variant.row
    plain = there.probabilities(row.id)
    found, expected, unchanged = plain, here.probabilities(row.id)[: len(plain)], None
    if variant.tensors:  # the copy saw more images, and answers as the file does
        found = there.tapped(row.id, OUTPUT_NAME)
        expected = here.tapped(row.id, OUTPUT_NAME)[: len(found)]
        unchanged = bool(np.array_equal(plain, found[: len(plain)]))
    if found.shape != expected.shape:
        raise TargetError(
            f"{row.id} gave probabilities of shape {found.shape}; expected {expected.shape}."
        )
    difference = np.abs(expected.astype(np.float64) - found).max(axis=1)
    parts_at, steps = None, 0
    for tensor in variant.tensors:
        values = there.tapped(row.id, tensor.name)
        step = largest_step(here.tapped(row.id, tensor.name)[: len(values)], values)
        steps = max(steps, step)
        if step and parts_at is None:
            parts_at = tensor.layer
    thresholds = None if row.thresholds is None else np.asarray(row.thresholds)
    agreement = float((decide(expected, thresholds) == decide(found, thresholds)).mean())
    check = VariantCheck(
        variant=row.id,
        images=len(found),
        tensors=len(variant.tensors),
        identical=None if not variant.tensors else not steps,
        parts_at=parts_at,
        largest_step=steps,
        max_difference=float(difference.max()),
        agreement=agreement,
        worst_image=int(difference.argmax()),
        taps_change_nothing=unchanged,
        promise=promise(row),
        failures=(),
    )
    return _judged(check)


def _judged(check: VariantCheck) -> VariantCheck:
    failures = []
    if check.promise.bit_identical and check.identical is not True:
        failures.append(
            f"its quantized tensors part at {check.parts_at}, by up to {check.largest_step} levels"
        )
    if not check.max_difference <= check.promise.max_difference:  # true of NaN too
        failures.append(
            f"its probabilities differ by {check.max_difference:.2g} at image "
            f"{check.worst_image}; promised is {check.promise.max_difference:g} "
            f"({check.promise.reason})"
        )
    if check.taps_change_nothing is False:
        failures.append(
            "the copy that returns its quantized tensors answers otherwise than the file itself"
        )
    return replace(check, failures=tuple(failures))


def largest_step(expected: NDArray[Any], found: NDArray[Any]) -> int:
    """The largest difference of two 8-bit arrays, in levels."""
    if expected.shape != found.shape:
        return 255
    if np.array_equal(expected, found):
        return 0
    return int(np.abs(expected.astype(np.int16) - found).max())


def pixels_identical(
    job: VerificationJob, here: TargetOutputs, there: TargetOutputs
) -> bool | None:
    """Whether preprocess.onnx makes the same bytes; None without golden images."""
    if not job.raw_shapes:
        return None
    names = [f"pixels/{number}" for number in range(len(job.raw_shapes))]
    return all(np.array_equal(here.arrays[name], there.arrays[name]) for name in names)
