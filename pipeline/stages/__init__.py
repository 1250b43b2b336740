"""The stages, in the only place where their order is written."""

from __future__ import annotations

from pipeline.stage import check_order

from . import benchmark, data, export, package, quantize, train, validate

STAGES = (
    data.STAGE,
    train.STAGE,
    export.STAGE,
    quantize.STAGE,
    validate.STAGE,
    benchmark.STAGE,
    package.STAGE,
)
check_order(STAGES)
