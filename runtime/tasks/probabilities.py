"""The part that tasks with labels share: one output, a row of probabilities for each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..graph_names import OUTPUT_NAME
from ..output_spec import OutputSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..output_spec import TaskSpec

# How far a probability may lie outside [0, 1], and the sum of a softmax from 1. A softmax in half
# precision rounds each by 2^-11 of itself, so its sum may be 0.0005 off; float32 needs 1e-6.
SLACK = 1e-3
_LOW, _HIGH = -SLACK, 1 + SLACK


class ProbabilityTask:
    """A task whose model returns ``probabilities``, float32 [N, labels]."""

    spec_version = 1
    has_labels = True
    sums_to_one: bool  # True: each row is a softmax

    def outputs(self, spec: TaskSpec) -> tuple[OutputSpec, ...]:
        """One column for each label."""
        return (OutputSpec(OUTPUT_NAME, (len(spec.labels),)),)

    def fault(self, arrays: Sequence[NDArray[np.float32]]) -> tuple[int, str] | None:
        """The first row with a value that is not a probability, or, for a softmax, another sum than
        1. Takes 3 us for one image, without any allocation that lasts."""
        (values,) = arrays
        # argmin and argmax stop at NaN and cost a third of min and max
        if values.item(values.argmin()) >= _LOW and values.item(values.argmax()) <= _HIGH:
            if not self.sums_to_one:
                return None
            sums = values.sum(1)
            if sums.item(sums.argmin()) >= 1 - SLACK and sums.item(sums.argmax()) <= _HIGH:
                return None
        for image, row in enumerate(values.tolist()):  # a row at the limit passes by its exact sum
            if reason := self._row_fault(row):
                return image, reason
        return None

    def compare_golden(
        self,
        arrays: Sequence[NDArray[np.float32]],
        record: Sequence[NDArray[np.float32]],
        first: int = 0,
    ) -> float:
        """The largest difference of a probability."""
        (values,), (recorded,) = arrays, record
        return float(abs(values - recorded[first : first + len(values)]).max())

    def _row_fault(self, row: list[float]) -> str | None:
        if not all(map(math.isfinite, row)):
            return "holds NaN or infinity; expected probabilities from 0 to 1"
        low, high, total = min(row), max(row), math.fsum(row)
        if low < _LOW or high > _HIGH:
            return f"has values from {low:.3g} to {high:.3g}; expected probabilities from 0 to 1"
        if self.sums_to_one and abs(total - 1) > SLACK:
            return f"sums to {total:.4g}; expected a softmax, which sums to 1"
        return None
