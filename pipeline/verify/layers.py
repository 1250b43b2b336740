"""The first layer that differs in a float variant on a target that breaks a promise. Quantized
tensors are compared in every run, the layers of float files only after a failure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from exporters.evaluate.error_metrics import relative_error
from exporters.explain.first_divergence import LIMITS
from pipeline.targets import launch
from pipeline.targets.job import (
    ImageLimits,
    JobVariant,
    TargetOutputs,
    VerificationJob,
    ask,
    read_outputs,
    write_job,
)
from pipeline.targets.table import REFERENCE, Target
from pipeline.verify.result import VariantCheck

_IMAGES = 8  # including the one that differs most
_ALL = ImageLimits({"fp32": 1, "fp16": 1, "int8": 1}, 1 << 31)


def with_layers(
    job: VerificationJob, target: Target, checks: tuple[VariantCheck, ...]
) -> tuple[VariantCheck, ...]:
    """Return the checks; those of failed float variants name the first layer that differs. Raises
    TargetError when the target does not finish."""
    failed = [check for check in checks if not check.passed and not check.tensors]
    if not failed:
        return checks
    pixels = np.fromfile(job.folder / "images.bin", np.uint8).reshape(-1, *job.spec.shape)
    rows = [check.worst_image for check in failed]
    chosen = [*rows, *(row for row in range(len(pixels)) if row not in rows)][:_IMAGES]
    traced = write_job(
        job.folder / "layers" / target.name,
        job.folder / "bundle.zip",
        pixels[chosen],
        variants=[check.variant for check in failed],
        float_layers=True,
    )
    here, there = _outputs(traced, REFERENCE), _outputs(traced, target)
    layers = {variant.row.id: _first(variant, here, there) for variant in traced.variants}
    return tuple(
        replace(
            check,
            parts_at=layers[check.variant],
            failures=(*check.failures, f"its layers differ from {layers[check.variant]} on"),
        )
        if layers.get(check.variant)
        else check
        for check in checks
    )


def _outputs(job: VerificationJob, target: Target) -> TargetOutputs:
    folder = ask(job, target, _ALL)
    launch.run(target, job.folder, folder)
    return read_outputs(folder)


def _first(variant: JobVariant, here: TargetOutputs, there: TargetOutputs) -> str | None:
    """Return the first layer whose result differs by more than rounding, or None."""
    for tensor in variant.tensors:
        expected = here.tapped(variant.row.id, tensor.name)
        values = there.tapped(variant.row.id, tensor.name)
        if not relative_error(expected, values) <= LIMITS[variant.row.precision]:
            return tensor.layer
    return None
