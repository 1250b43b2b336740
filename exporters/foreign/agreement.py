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

from exporters.evaluate.gates import loss_bound, screen, tolerances_for
from exporters.evaluate.metrics import Floats, decide, softmax
from exporters.evaluate.parity import compare
from exporters.evaluate.parity_values import Assessment, Parity
from exporters.evaluate.signal_to_noise import LOST, Fidelity, fidelity
from exporters.foreign.model_inputs import ModelInputs
from exporters.graph import onnx_file
from exporters.options import GateOptions
from exporters.search.trial_evaluation import cross_entropy
from runtime.spec import ModelSpec

# multi-class: one answer for each image; multi-label: a yes or no for each label; values:
# anything else, such as images, boxes or embeddings
Task = Literal["multi-class", "multi-label", "values"]
# Inputs in memory at a time. A prime: another axis of an output hardly has the same size.
_CHUNK = 31
# Where classes are only a guess, the error has to stay below a third of what outputs differ by
# from input to input, too: points and embeddings have a largest number as well. Where the data has
# as many classes, the guess is a better one, and the error has to stay below that difference.
GUESSED_DB, LIKELY_DB = 10.0, 0.0
_UNDECIDED = 0.1  # yes and no of a label are nearer to 1 and 0 than this, mostly


@dataclass(frozen=True)
class Bounds:
    """What a form may lose against FP32."""

    gate: GateOptions  # of answers
    min_sqnr_db: float  # of values: 20 dB are noise of a hundredth of the power


@dataclass(frozen=True)
class Guess:
    """What outputs of FP32 look like; nothing in a file says it."""

    task: Task
    reason: str  # in words
    min_sqnr_db: float = GUESSED_DB  # of answers: what they must reach as values, too


@dataclass(frozen=True)
class Reference:
    """Inputs and what FP32 makes of them; judges other forms by it."""

    inputs: ModelInputs
    outputs: tuple[str, ...]  # names
    task: Task
    bounds: Bounds
    logits: bool  # of answers: True when they are no probabilities yet
    labels: NDArray[np.integer] | None  # None: FP32's own answers stand in for them
    values: tuple[NDArray[Any], ...] = field(repr=False)  # FP32's outputs, one row for each input
    # Of answers that are only guessed: what outputs must reach as values, too; None: they are known
    guessed_db: float | None = None

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
        """With the outputs of this FP32 file; a ``task`` of None is guessed from them."""
        values = tuple(_outputs(fp32, outputs, inputs))
        plain = cls(inputs, tuple(outputs), "values", bounds, False, None, values)
        if task is not None:
            return plain.judged_as(task, bounds, labels)
        found = guess(values, len(inputs))
        return plain.judged_as(found.task, bounds, labels, found.min_sqnr_db)

    def judged_as(
        self,
        task: Task,
        bounds: Bounds,
        labels: NDArray[np.integer] | None = None,
        guessed_db: float | None = None,
    ) -> Reference:
        """The same outputs, taken for something else."""
        return replace(
            self,
            task=task,
            bounds=bounds,
            logits=task != "values" and not _probable(self.values[0]),
            labels=labels if task == "multi-class" else None,
            guessed_db=None if task == "values" else guessed_db,
        )

    def first(self, count: int) -> Reference:
        """The same of the first ``count`` images; of all where outputs have no row for each."""
        if any(len(value) != len(self.inputs) for value in self.values):
            return self
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
        return self._assess_answers(found, variant)

    def assess_quickly(self, model: bytes) -> tuple[float, float]:
        """(cross entropy in nats, or noise by signal for values; SQNR in dB)."""
        found = _outputs(model, self.outputs, self.inputs)
        worst = self._worst(found).sqnr_db
        if self.task == "values":
            return 10 ** (-worst / 10), worst
        before, after = (self._probabilities(v) for v in (self.values[0], found[0]))
        return cross_entropy(after, self._truth(before)), worst

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

    def _assess_answers(self, found: Sequence[NDArray[Any]], variant: str) -> Assessment:
        worst = self._worst(found)
        if found[0].shape != self.values[0].shape:
            return self._lost(_not_comparable(self.outputs[0], self.values[0], found[0]))
        before, after = (self._probabilities(v) for v in (self.values[0], found[0]))
        truth = self._truth(before)
        parity = self._parity(before, after, truth)
        failures = screen(parity, self.bounds.gate, tolerances_for(variant)).failures
        if text := _not_comparable(self.outputs[0], self.values[0], found[0]):
            failures = (text, *failures)
        # Only the first output holds the answers; those after it are judged as values
        for name, was, now in list(zip(self.outputs, self.values, found, strict=True))[1:]:
            part = fidelity(name, was, now)
            if part.sqnr_db < self.bounds.min_sqnr_db:
                failures = (*failures, self._too_noisy(part))
        least = self.guessed_db
        if least is not None and worst.sqnr_db < least:
            failures = (
                *failures,
                f"{worst.part} has a signal-to-noise ratio of {worst.own_db:.1f} dB, and classes "
                f"are only a guess: at least {_asked(worst, least):g} are asked for. Say "
                f"--task {self.task} if it is right, or --task values",
            )
        return Assessment(
            passed=not failures,
            failures=failures,
            accuracy_percent=100 * parity.candidate_accuracy,
            lost_points=100 * (parity.reference_accuracy - parity.candidate_accuracy),
            loss=cross_entropy(after, truth),
            sqnr_db=worst.sqnr_db,
            worst_part=worst.part,
        )

    def _assess_values(self, found: Sequence[NDArray[Any]]) -> Assessment:
        worst = self._worst(found)
        noise = min(10 ** (-worst.sqnr_db / 10), 1.0)
        failures: tuple[str, ...] = ()
        if worst.sqnr_db < self.bounds.min_sqnr_db:
            texts = map(_not_comparable, self.outputs, self.values, found)
            failures = (
                self._too_noisy(worst),
                *filter(None, texts),
            )
        return Assessment(
            passed=not failures,
            failures=failures,
            accuracy_percent=100 * (1 - noise),
            lost_points=100 * noise,
            loss=noise,
            sqnr_db=worst.sqnr_db,
            worst_part=worst.part,
        )

    def _too_noisy(self, part: Fidelity) -> str:
        return (
            f"{part.part} has a signal-to-noise ratio of {part.own_db:.1f} dB against "
            f"FP32; at least {_asked(part, self.bounds.min_sqnr_db):g} dB are asked for"
        )

    def _lost(self, failure: str) -> Assessment:
        return Assessment(False, (failure,), 0.0, 100.0, 1.0, LOST)

    def _probabilities(self, values: NDArray[Any]) -> Floats:
        """[N, K]; what is no number counts as 0."""
        matrix = _matrix(values)
        assert matrix is not None  # only a matrix is judged by its answers
        matrix = np.nan_to_num(np.asarray(matrix, np.float32))
        if not self.logits:
            return np.asarray(np.clip(matrix, 0, 1), np.float32)
        if self.task == "multi-label":
            return np.asarray(0.5 + 0.5 * np.tanh(matrix / 2), np.float32)  # never overflows
        return softmax(matrix)

    def _worst(self, found: Sequence[NDArray[Any]]) -> Fidelity:
        """The part of the outputs that is farthest from FP32's. An output of another shape
        (fewer boxes, for one) cannot be compared and counts as nothing but noise."""
        parts = map(fidelity, self.outputs, self.values, found)
        return min(parts, key=lambda part: part.sqnr_db)


def guess(values: Sequence[NDArray[Any]], inputs: int, classes: int | None = None) -> Guess:
    """What outputs of FP32 look like, of so many ``inputs``: one matrix [N, K] of probabilities
    that add up to 1, of yes and no for each label, or of logits; or else values. ``classes`` is
    the number of the data's own, where it has any.

    Points, embeddings and other numbers are [N, K] as well, so classes are guessed only where
    inputs get different answers, and stay a guess.
    """
    if len(values) != 1:
        return Guess("values", f"there are {len(values)} outputs")
    matrix = _matrix(values[0])
    if matrix is None:
        return Guess("values", f"the output is {list(values[0].shape)}, and classes are [n, k]")
    rows, columns = matrix.shape
    if rows != inputs:
        return Guess("values", f"{inputs} inputs get {rows} rows")
    if np.isnan(matrix).any():
        return Guess("values", "some are not numbers")
    if _probable(matrix):
        return _guess_shares(matrix, LIKELY_DB if classes == columns else GUESSED_DB)
    if columns == 1:
        return Guess("values", "it is one number that exceeds [0, 1]")
    if np.allclose(np.square(matrix, dtype=np.float64).sum(axis=1), 1, atol=2e-3):
        return Guess("values", "each row has length 1, as embeddings have")
    if classes == columns:
        return Guess("multi-class", f"the data has {classes} classes, too", LIKELY_DB)
    if np.isneginf(matrix).any():
        return Guess("multi-class", "-inf switches a class off")
    if classes is not None:
        return Guess("values", f"the data has {classes} classes, and each row {columns} numbers")
    if len(np.unique(matrix.argmax(axis=1))) == 1:
        return Guess("values", "the same number is the largest for every input")
    return Guess("multi-class", "one number of each row is the largest, and not always the same")


def _guess_shares(matrix: NDArray[Any], least: float) -> Guess:
    """Of numbers in [0, 1]."""
    if _adds_up(matrix):
        return Guess("multi-class", "they lie in [0, 1] and add up to 1", least)
    decided = (matrix < _UNDECIDED) | (matrix > 1 - _UNDECIDED)
    varies = (matrix >= 0.5).any(axis=0) & (matrix < 0.5).any(axis=0)
    if decided.mean() < 0.5 or not varies.any():
        return Guess("values", "they lie in [0, 1] but are not like a yes or no")
    return Guess("multi-label", "they lie in [0, 1], most of them near its ends", least)


def task_of(values: Sequence[NDArray[Any]]) -> Task:
    """What outputs are where they are known to be answers: one matrix [N, K] of probabilities that
    add up to 1, of other probabilities, or of logits; "values" where they cannot be answers."""
    matrix = _matrix(values[0]) if len(values) == 1 else None
    if matrix is None:
        return "values"
    if not _probable(matrix):
        return "multi-class" if matrix.shape[1] > 1 else "values"
    return "multi-class" if _adds_up(matrix) else "multi-label"


def _adds_up(matrix: NDArray[Any]) -> bool:
    return matrix.shape[1] > 1 and np.allclose(matrix.sum(axis=1), 1, atol=1e-3)


def _asked(part: Fidelity, least: float) -> float:
    """The decibels that a part must have of its own to reach ``least`` as it is judged."""
    return least - (part.sqnr_db - part.own_db)


def _not_comparable(name: str, was: NDArray[Any], now: NDArray[Any]) -> str:
    """Other sizes, or the first value that is a number on one side only; "" for none of these."""
    if was.shape != now.shape:
        return f"output {name!r} has {now.size} values, FP32's {was.size}: they cannot be compared"
    same = (was == now) | (np.isnan(was) & np.isnan(now))
    odd = np.argwhere(~same & ~(np.isfinite(was) & np.isfinite(now)))
    if not len(odd):
        return ""
    place = tuple(odd[0])
    return f"output {name!r} at {[int(i) for i in place]} is {now[place]:g}, FP32 {was[place]:g}"


def _probable(values: NDArray[Any]) -> bool:
    return float(values.min()) >= 0 and float(values.max()) <= 1 + 1e-4


def _matrix(values: NDArray[Any]) -> NDArray[Any] | None:
    """[N, K], also of [N, K, 1, 1]; None for other shapes and for none at all."""
    if values.ndim < 2 or not values.size or any(size != 1 for size in values.shape[2:]):
        return None
    return values.reshape(values.shape[:2])


def _outputs(model: bytes, names: Sequence[str], inputs: ModelInputs) -> list[NDArray[Any]]:
    """The named outputs for all inputs, a few at a time, with a row for each input where that can
    be."""
    session = onnx_file.session(model)
    chunk = _CHUNK * (inputs.spec.batch or 1)
    parts = [
        onnx_file.run_by_image(session, names, {inputs.spec.name: inputs[start : start + chunk]})
        for start in range(0, len(inputs), chunk)
    ]
    return [onnx_file.joined(values) for values in zip(*parts, strict=True)]
