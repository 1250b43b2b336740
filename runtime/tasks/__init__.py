"""The tasks: what a model can answer. Everything that differs between them is in one file for each;
``TASKS`` lists them. No other module of the runtime mentions a task by its name.

Importing this package loads no numpy, so that a recipe can be checked without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ..errors import BundleFormatError
from .multi_class import MULTI_CLASS, Candidate, Prediction
from .multi_label import MULTI_LABEL, Attribute, AttributePrediction
from .values import VALUES, Values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..output_spec import OutputSpec, TaskSpec

    Arrays = Sequence[NDArray[np.float32]]  # one for each output of the spec, in its order

Answer = Prediction | AttributePrediction | Values


class Task(Protocol):
    """One row of the table."""

    name: str  # as specs and recipes have it
    spec_version: int  # the oldest version of a spec that can express it; specs are written in it
    has_labels: bool  # True: one column of each answer for each label; False: no labels at all
    has_thresholds: bool  # True: each variant has one threshold for each label

    def outputs(self, spec: TaskSpec) -> tuple[OutputSpec, ...]:
        """The outputs of a model of this spec; the task may leave them to ``spec.outputs``."""

    def fault(self, arrays: Arrays) -> tuple[int, str] | None:
        """The number of the first image whose values cannot be an answer, and what they are; None
        for sound ones. The arrays have the shapes of the spec."""

    def answers(
        self,
        arrays: Arrays,
        spec: TaskSpec,
        thresholds: tuple[float, ...] | None,
        min_probability: float = 0.0,
    ) -> Sequence[Answer]:
        """One answer for each image of the batch; the arrays were checked."""

    def compare_golden(self, arrays: Arrays, record: Arrays, first: int = 0) -> float:
        """The largest difference of the arrays, for the samples from ``first`` on, to the record of
        all samples, in the unit of ``golden_tolerance``; NaN where a value is NaN, infinity where
        a shape differs."""


TASKS: dict[str, Task] = {task.name: task for task in (MULTI_CLASS, MULTI_LABEL, VALUES)}


def task_named(name: str) -> Task:
    """The task of that name; raises BundleFormatError, which lists the names."""
    task = TASKS.get(name)
    if task is None:
        raise BundleFormatError(f"model spec has task {name!r}; expected one of {_NAMES}.")
    return task


_NAMES = ", ".join(map(repr, TASKS))

__all__ = [
    "TASKS",
    "Answer",
    "Attribute",
    "AttributePrediction",
    "Candidate",
    "Prediction",
    "Task",
    "Values",
    "task_named",
]
