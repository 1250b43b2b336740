"""The stages, in the only place where their order is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.engine.stage import Stage, check_order
from pipeline.stages import (
    before_training,
    benchmark,
    data,
    export,
    package,
    quantize,
    train,
    validate,
)

STAGES: tuple[Stage[Any], ...] = (
    data.STAGE,
    replace(train.STAGE, check=before_training.check),
    export.STAGE,
    quantize.STAGE,
    validate.STAGE,
    benchmark.STAGE,
    package.STAGE,
)
check_order(STAGES)
