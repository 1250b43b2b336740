"""One target's answers compared with this machine's, then judged by the promise of the variant."""

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
    """Return the promise of a variant for every CPU, from the manifest."""
    if variant.portable:
        return Promise(True, 1e-6, "equal integers; the float softmax or sigmoid behind them")
    if variant.precision == "fp32":
        return Promise(False, 1e-4, "float32 sums in another order; 2e-5 was measured")
    why = "16-bit arithmetic of the CPU" if variant.precision == "fp16" else "may saturate"
    return Promise(False, variant.golden_tolerance, f"not portable: {why}")


def check_variant(variant: JobVariant, here: TargetOutputs, there: TargetOutputs) -> VariantCheck:
    """Compare one variant's answers; ``there`` may have fewer images than ``here``. Raises
    TargetError for rows of different lengths."""
    row = variant.row
    plain = there.probabilities(row.id)
    answers, expected, unchanged = plain, here.probabilities(row.id)[: len(plain)], None
    if variant.tensors:  # the copy saw more images, and must answer as the file does
        answers = there.tapped(row.id, OUTPUT_NAME)
        expected = here.tapped(row.id, OUTPUT_NAME)[: len(answers)]
        unchanged = bool(np.array_equal(plain, answers[: len(plain)]))
    if answers.shape != expected.shape:
        raise TargetError(
            f"{row.id} gave probabilities of shape {answers.shape}; expected {expected.shape}."
        )
    difference = np.abs(expected.astype(np.float64) - answers).max(axis=1)
    parts_at, steps = None, 0
    for tensor in variant.tensors:
        values = there.tapped(row.id, tensor.name)
        step = largest_step(here.tapped(row.id, tensor.name)[: len(values)], values)
        steps = max(steps, step)
        if step and parts_at is None:
            parts_at = tensor.layer
    thresholds = None if row.thresholds is None else np.asarray(row.thresholds)
    agreement = float((decide(expected, thresholds) == decide(answers, thresholds)).mean())
    check = VariantCheck(
        variant=row.id,
        images=len(answers),
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
            f"its quantized tensors differ from {check.parts_at} on, by up to "
            f"{check.largest_step} levels"
        )
    if not check.max_difference <= check.promise.max_difference:  # true of NaN as well
        failures.append(
            f"its probabilities differ by {check.max_difference:.2g} at image "
            f"{check.worst_image}; promised is {check.promise.max_difference:g} "
            f"({check.promise.reason})"
        )
    if check.taps_change_nothing is False:
        failures.append(
            "the copy that returns its quantized tensors answers differently than the file itself"
        )
    return replace(check, failures=tuple(failures))


def largest_step(expected: NDArray[Any], values: NDArray[Any]) -> int:
    """Return the largest difference of two 8-bit arrays, in levels."""
    if expected.shape != values.shape:
        return 255
    if np.array_equal(expected, values):
        return 0
    return int(np.abs(expected.astype(np.int16) - values).max())


def pixels_identical(
    job: VerificationJob, here: TargetOutputs, there: TargetOutputs
) -> bool | None:
    """Return True where preprocess.onnx makes the same bytes; None without golden images."""
    if not job.raw_shapes:
        return None
    names = [f"pixels/{number}" for number in range(len(job.raw_shapes))]
    return all(np.array_equal(here.arrays[name], there.arrays[name]) for name in names)
