"""How close is a form of a model to its FP32 self, whatever it puts out? What ``assess.py`` is for
our own models, for those of unknown making: their outputs may be probabilities, logits, or
anything else, and there may be no labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtime.spec import ModelSpec

from . import onnx_file
from .assess import cross_entropy
from .gates import loss_bound, screen, tolerances_for
from .metrics import Floats, decide, softmax
from .model_inputs import ModelInputs
from .options import GateOptions
from .parity import Parity, compare
from .sensitivity import sqnr_db
from .trial import Assessment

# multi-class: one answer for each image; multi-label: a yes or no for each label; values:
# anything else, such as images, boxes or embeddings
Task = Literal["multi-class", "multi-label", "values"]
_CHUNK = 32  # images in memory as inputs at a time


@dataclass(frozen=True)
class Bounds:
    """What a form may lose against FP32."""

    gate: GateOptions  # of answers
    min_sqnr_db: float  # of values: 20 dB are noise of a hundredth of the power


@dataclass(frozen=True)
class Reference:
    """Inputs and what FP32 makes of them; judges other forms by it."""

    inputs: ModelInputs
    outputs: tuple[str, ...]  # names
    task: Task
    bounds: Bounds
    logits: bool  # of answers: True when they are no probabilities yet
    labels: NDArray[np.integer] | None  # None: FP32's own answers stand in for them
    values: tuple[NDArray[Any], ...] = field(repr=False)  # FP32's outputs, as they came

    @classmethod
    def of_fp32(
        cls,
        fp32: bytes,
        outputs: Sequence[str],
        inputs: ModelInputs,
        bounds: Bounds,
        *,
        task: Task | None = None,
        labels: NDArray[np.integer] | None = None,
    ) -> Reference:
        """With the outputs of this FP32 file; a ``task`` of None is found from them."""
        values = tuple(_outputs(fp32, outputs, inputs))
        found = task or task_of(values)
        usable = labels if found == "multi-class" else None
        logits = found != "values" and not _probable(values[0])
        return cls(inputs, tuple(outputs), found, bounds, logits, usable, values)

    def first(self, count: int) -> Reference:
        """The same of the first ``count`` images."""
        return replace(
            self,
            inputs=self.inputs.first(count),
            labels=None if self.labels is None else self.labels[:count],
            values=tuple(value[:count] for value in self.values),
        )

    def accuracy(self) -> float:
        """The share of FP32's answers that are the labels; nan without labels."""
        if self.labels is None:
            return math.nan
        answers = decide(self._probabilities(self.values[0]), None)
        return float((answers == self.labels).mean())

    def assess(self, model: bytes, variant: str, portable: bool) -> Assessment:
        """Hold a model file against FP32. ``portable`` does not matter: someone else's runtime
        takes the kernels that it has.

        For values, accuracy is the share of the outputs' power that is no noise.
        """
        found = _outputs(model, self.outputs, self.inputs)
        if self.task == "values":
            return self._assess_values(found)
        return self._assess_answers(found[0], variant)

    def assess_quickly(self, model: bytes) -> tuple[float, float]:
        """(cross entropy in nats, or noise by signal for values; SQNR in dB)."""
        found = _outputs(model, self.outputs, self.inputs)
        if self.task == "values":
            worst, _ = self._worst(found)
            return 10 ** (-worst / 10), worst
        before, after = (self._probabilities(v) for v in (self.values[0], found[0]))
        return cross_entropy(after, self._truth(before)), sqnr_db(before, after)

    def loss_bound(self, model: bytes) -> float | None:
        """Points of accuracy that a model file loses at most, with the confidence of the gate; None
        where values are judged."""
        if self.task == "values":
            return None
        (found, *_) = _outputs(model, self.outputs, self.inputs)
        before, after = (self._probabilities(v) for v in (self.values[0], found))
        parity = self._parity(before, after, self._truth(before))
        return 100 * loss_bound(parity, self.bounds.gate.alpha)

    def _parity(self, before: Floats, after: Floats, truth: NDArray[np.integer]) -> Parity:
        assert self.task != "values"
        names = tuple(str(number) for number in range(before.shape[1]))
        return compare(before, after, truth, ModelSpec("model", self.task, 1, 1, 1, names))

    def _truth(self, before: Floats) -> NDArray[np.integer]:
        if self.labels is not None:
            return self.labels
        return decide(before, None if self.task == "multi-class" else np.full(1, 0.5))

    def _assess_answers(self, found: NDArray[Any], variant: str) -> Assessment:
        before, after = (self._probabilities(v) for v in (self.values[0], found))
        truth = self._truth(before)
        parity = self._parity(before, after, truth)
        verdict = screen(parity, self.bounds.gate, tolerances_for(variant))
        return Assessment(
            passed=verdict.passed,
            failures=verdict.failures,
            accuracy_percent=100 * parity.candidate_accuracy,
            lost_points=100 * (parity.reference_accuracy - parity.candidate_accuracy),
            loss=cross_entropy(after, truth),
            sqnr_db=sqnr_db(before, after),
        )

    def _assess_values(self, found: Sequence[NDArray[Any]]) -> Assessment:
        worst, name = self._worst(found)
        noise = min(10 ** (-worst / 10), 1.0)
        passed = worst >= self.bounds.min_sqnr_db
        text = (
            f"output {name!r} has a signal-to-noise ratio of {worst:.1f} dB against FP32; at "
            f"least {self.bounds.min_sqnr_db:g} dB are asked for"
        )
        return Assessment(
            passed=passed,
            failures=() if passed else (text,),
            accuracy_percent=100 * (1 - noise),
            lost_points=100 * noise,
            loss=noise,
            sqnr_db=worst,
        )

    def _probabilities(self, values: NDArray[Any]) -> Floats:
        """[N, K]; what is no number counts as 0."""
        matrix = _matrix(values)
        assert matrix is not None  # only a matrix is judged by its answers
        matrix = np.nan_to_num(np.asarray(matrix, np.float32))
        if not self.logits:
            return np.asarray(np.clip(matrix, 0, 1), np.float32)
        if self.task == "multi-label":
            return np.asarray(1 / (1 + np.exp(-matrix)), np.float32)
        return softmax(matrix)

    def _worst(self, found: Sequence[NDArray[Any]]) -> tuple[float, str]:
        """The SQNR of the output that has the lowest, and its name. An output of another shape
        (fewer boxes, for one) cannot be compared and counts as nothing but noise."""
        rows = [
            (sqnr_db(was, now) if was.shape == now.shape else -200.0, name)
            for was, now, name in zip(self.values, found, self.outputs, strict=True)
        ]
        return min(rows)


def task_of(values: Sequence[NDArray[Any]]) -> Task:
    """What outputs of FP32 look like: one matrix [N, K] of probabilities that add up to 1, of
    other probabilities, or of logits; or else values."""
    matrix = _matrix(values[0]) if len(values) == 1 else None
    if matrix is None:
        return "values"
    if not _probable(matrix):
        return "multi-class" if matrix.shape[1] > 1 else "values"
    return "multi-class" if np.allclose(matrix.sum(axis=1), 1, atol=1e-3) else "multi-label"


def _probable(values: NDArray[Any]) -> bool:
    return float(values.min()) >= 0 and float(values.max()) <= 1 + 1e-4


def _matrix(values: NDArray[Any]) -> NDArray[Any] | None:
    """[N, K], also of [N, K, 1, 1]; None for other shapes."""
    if values.ndim < 2 or any(size != 1 for size in values.shape[2:]):
        return None
    return values.reshape(values.shape[:2])


def _outputs(model: bytes, names: Sequence[str], inputs: ModelInputs) -> list[NDArray[Any]]:
    """The named outputs for all inputs, a few at a time."""
    session = onnx_file.session(model)
    chunk = _CHUNK * (inputs.spec.batch or 1)
    parts = [
        onnx_file.run_feed(session, names, {inputs.spec.name: inputs[start : start + chunk]})
        for start in range(0, len(inputs), chunk)
    ]
    return [
        np.concatenate([np.atleast_1d(v) for v in values]) for values in zip(*parts, strict=True)
    ]
