"""The agreement of a foreign model's candidates with its FP32 outputs, which may be probabilities,
logits, or anything else, with or without labels. ``search/trial_evaluation.py`` does this for our
own models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.parity_values import Assessment
from exporters.evaluate.tasks import Bounds, LabelTask, OutputPair, Task, guess, task_named
from exporters.foreign.model_inputs import ModelInputs
from exporters.graph import onnx_file

# Inputs in memory at a time. A prime: another axis of an output hardly has the same size.
_CHUNK = 31


@dataclass(frozen=True)
class Reference:
    """Inputs and the outputs of FP32, by which candidates are judged."""

    inputs: ModelInputs
    outputs: tuple[str, ...]  # names
    task: Task
    bounds: Bounds
    labels: NDArray[np.integer] | None  # None: FP32's own answers are used instead
    values: tuple[NDArray[Any], ...] = field(repr=False)  # FP32's outputs, one row for each input
    # Of a guessed task: what outputs must reach as values as well; None: the task was stated
    guessed_db: float | None = None

    @classmethod
    def of_fp32(
        cls,
        fp32: bytes,
        outputs: Sequence[str],
        inputs: ModelInputs,
        bounds: Bounds,
        *,
        task: str | None = None,
        labels: NDArray[np.integer] | None = None,
    ) -> Reference:
        """Run this FP32 file; a ``task`` of None is guessed from its outputs."""
        values = tuple(_outputs(fp32, outputs, inputs))
        guessed = guess(values, len(inputs))
        plain = cls(inputs, tuple(outputs), task_named(guessed.task), bounds, None, values)
        if task is not None:
            return plain.judged_as(task, bounds, labels)
        return plain.judged_as(guessed.task, bounds, labels, guessed.min_sqnr_db)

    def judged_as(
        self,
        task: str,
        bounds: Bounds,
        labels: NDArray[np.integer] | None = None,
        guessed_db: float | None = None,
    ) -> Reference:
        """Return the same outputs as those of another task; labels of another form than the task's
        are left out."""
        row, usable = task_named(task), None
        if isinstance(row, LabelTask) and labels is not None:
            shape = row.truth_shape(len(labels), self.values[0].shape[1])
            usable = labels if labels.shape == shape else None
        return replace(
            self,
            task=row,
            bounds=bounds,
            labels=usable,
            guessed_db=guessed_db if isinstance(row, LabelTask) else None,
        )

    def first(self, count: int) -> Reference:
        """Return the first ``count`` images; all where outputs have no row for each."""
        if any(len(value) != len(self.inputs) for value in self.values):
            return self
        return replace(
            self,
            inputs=self.inputs.first(count),
            labels=None if self.labels is None else self.labels[:count],
            values=tuple(value[:count] for value in self.values),
        )

    def accuracy(self) -> float:
        """Return the share of FP32's answers that equal the labels; nan without labels."""
        if self.labels is None or not isinstance(self.task, LabelTask):
            return math.nan
        return self.task.accuracy(self.values[0], self.labels)

    def assess(self, model: bytes, variant: str, portable: bool) -> Assessment:
        """Judge a model file against FP32. ``portable`` does not matter: someone else's runtime
        uses the kernels that it has."""
        return self.task.assess(self._pair(model), self.bounds, variant)

    def assess_quickly(self, model: bytes) -> tuple[float, float]:
        """Return (loss by which candidates are ordered, SQNR in dB)."""
        pair = self._pair(model)
        return self.task.quick_loss(pair), pair.worst.sqnr_db

    def loss_bound(self, model: bytes) -> float | None:
        """Return the most points of accuracy that a model file may lose, with the confidence of the
        gate; None where no answers are counted."""
        return self.task.loss_bound(self._pair(model), self.bounds.gate.alpha)

    def _pair(self, model: bytes) -> OutputPair:
        candidate = _outputs(model, self.outputs, self.inputs)
        return OutputPair(self.outputs, self.values, candidate, self.labels, self.guessed_db)


def _outputs(model: bytes, names: Sequence[str], inputs: ModelInputs) -> list[NDArray[Any]]:
    """Return the named outputs for all inputs, a few at a time, with a row for each input where
    possible."""
    session = onnx_file.session(model)
    chunk = _CHUNK * (inputs.spec.batch or 1)
    parts = [
        onnx_file.run_by_image(session, names, {inputs.spec.name: inputs[start : start + chunk]})
        for start in range(0, len(inputs), chunk)
    ]
    return [onnx_file.joined(values) for values in zip(*parts, strict=True)]
