"""The part that tasks with labels share: probabilities [N, labels] that are right or wrong."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate import gates, parity
from exporters.evaluate.metrics import Objective, Thresholds, decide
from exporters.evaluate.paired_tests import Losses
from exporters.evaluate.parity_values import Assessment, Parity
from exporters.evaluate.probabilities import Floats, are_probabilities, matrix_of
from exporters.evaluate.signal_to_noise import LOST, fidelity
from exporters.evaluate.tasks.protocol import (
    Bounds,
    OutputPair,
    Task,
    not_comparable,
    required_db,
    too_noisy,
)
from exporters.evaluate.weighted import Values, Weights
from exporters.options import GateOptions

if TYPE_CHECKING:
    from exporters.evaluate.scoring import ModelOutputs

# Where labels are only a guess, the error has to stay below a third of what outputs differ by from
# input to input, too: points and embeddings have a largest number as well. Where the data has as
# many classes, the guess is a better one, and the error has to stay below that difference.
GUESSED_DB, LIKELY_DB = 10.0, 0.0
_SMALLEST = 1e-7  # probability: a float softmax may give 0, whose logarithm is infinite


# Weights of the images -> (over all images [samples, 3], of each label [samples, labels, 3])
Statistic = Callable[[Weights], tuple[Values, Values]]


class LabelTask(Task, ABC):
    """A task whose answers are labels."""

    unit: ClassVar[str]  # what a form loses and wins: "images", "answers"
    label_noun: ClassVar[str]  # "class", "attribute"
    metrics: ClassVar[tuple[str, ...]]  # fields of ``Metrics`` that are defined
    has_thresholds: ClassVar[bool]
    last_layer: ClassVar[str]  # "softmax", "sigmoid": makes probabilities of scores
    sums_to_one: ClassVar[bool]  # True: each row of probabilities is a softmax
    # True: every label is answered for every image, so overall figures are means over labels
    answers_each_label: ClassVar[bool]

    # --- counting

    @abstractmethod
    def truth_shape(self, images: int, labels: int) -> tuple[int, ...]:
        """The shape of the true labels."""

    @abstractmethod
    def largest_truth(self, labels: int) -> int:
        """The largest number among true labels; the smallest is 0."""

    @abstractmethod
    def of_label(
        self, flags: NDArray[np.bool_], truth: NDArray[np.integer], index: int
    ) -> NDArray[np.bool_]:
        """The part of ``flags``, one for each answer, that concerns one label."""

    @abstractmethod
    def images_of_label(self, truth: NDArray[np.integer], index: int) -> int:
        """The number of images that the accuracy of a label is a proportion of."""

    @abstractmethod
    def majority_answer(self, truth: NDArray[np.integer], labels: int) -> NDArray[np.int64]:
        """The most frequent answer among labels of the train split."""

    @abstractmethod
    def truth_probabilities(self, probabilities: Floats, truth: NDArray[np.integer]) -> Floats:
        """The probability that each true answer was given."""

    @abstractmethod
    def statistic(self, outputs: ModelOutputs, truth: NDArray[np.integer]) -> Statistic:
        """Accuracy, balanced accuracy and average precision of one form."""

    # --- thresholds; a task that has them overrides these

    def best_thresholds(
        self, probabilities: Floats, truth: NDArray[np.integer], objective: Objective
    ) -> Thresholds:
        """The thresholds [labels] of the reference, chosen on a validation split."""
        return None

    def adjusted_thresholds(
        self,
        probabilities: Floats,
        truth: NDArray[np.integer],
        reference: Thresholds,
        objective: Objective,
    ) -> Thresholds:
        """The thresholds of another form, away from ``reference`` only where that pays."""
        return None

    def default_thresholds(self, labels: int) -> tuple[float, ...] | None:
        """One of 0.5 for each label."""
        return (0.5,) * labels if self.has_thresholds else None

    def balanced_percent(
        self, probabilities: Floats, truth: NDArray[np.integer], thresholds: Thresholds
    ) -> NDArray[np.float64] | None:
        """The balanced accuracy of each label; None where labels have no false alarms to count."""
        return None

    # --- the gate

    @abstractmethod
    def loss_upper(self, losses: Losses, labels: int, alpha: float) -> float:
        """Upper bound, at one-sided level ``alpha``, of the share of accuracy that is lost."""

    @abstractmethod
    def images_needed(self, labels: int, options: GateOptions) -> int:
        """The number of test images that would pass without one changed answer."""

    # --- scores before and after the last layer

    @abstractmethod
    def probabilities(self, scores: Floats) -> Floats:
        """Probabilities [N, labels] of the network's scores."""

    @abstractmethod
    def scores(
        self, a: Floats, b: Floats
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None:
        """Scores behind the probabilities of two forms, up to what the last layer takes away, and
        where they are accurate; None where these are not probabilities of this task."""

    # --- outputs of unknown making

    def cross_entropy(self, probabilities: Floats, truth: NDArray[np.integer]) -> float:
        """Mean negative log-likelihood in nats."""
        chosen = self.truth_probabilities(probabilities, truth)
        return float(-np.log(np.maximum(chosen, _SMALLEST, dtype=np.float64)).mean())

    def assess_parity(
        self,
        comparison: Parity,
        candidate: Floats,
        truth: NDArray[np.integer],
        *,
        failures: Sequence[str],
        sqnr_db: float,
        worst_part: str | None = None,
        balanced_percent: float | None = None,
    ) -> Assessment:
        """A comparison with its failures as an Assessment."""
        return Assessment(
            passed=not failures,
            failures=tuple(failures),
            accuracy_percent=100 * comparison.pairs.candidate_accuracy,
            lost_points=comparison.pairs.lost_points,
            loss=self.cross_entropy(candidate, truth),
            sqnr_db=sqnr_db,
            balanced_percent=balanced_percent,
            worst_part=worst_part,
        )

    def fits(self, shape: tuple[int, ...], inputs: int) -> bool:
        """One row of answers for each input, [n, k]."""
        return (
            len(shape) > 1
            and shape[0] == inputs
            and shape[1] > 0
            and all(size == 1 for size in shape[2:])
        )

    def figure(self, labelled: bool) -> str:
        """The share of right answers, or of answers equal to FP32's."""
        return "right %" if labelled else "as fp32 %"

    def criterion(self, bounds: Bounds, labelled: bool, guessed: bool) -> str:
        """Accuracy and its margin."""
        margin = f"margin {bounds.gate.margin_points:g} points"
        if labelled:
            return f"accuracy by the labels, {margin}"
        task = f"{self.name} is a GUESS" if guessed else self.name
        return f"answers equal to FP32's ({task}; no labels), {margin}"

    def assess(self, pair: OutputPair, bounds: Bounds, variant: str) -> Assessment:
        """Judge the first output by its answers, and those after it by signal-to-noise."""
        worst = pair.worst
        reason = not_comparable(pair.names[0], pair.reference[0], pair.candidate[0])
        if pair.reference[0].shape != pair.candidate[0].shape:
            return Assessment(False, (reason,), 0.0, 100.0, 1.0, LOST)
        before, after, truth = self._answers(pair)
        comparison = self._compare(before, after, truth)
        tolerances = gates.tolerances_for(variant)
        failures = [reason] if reason else []
        failures += gates.screen(self, comparison, bounds.gate, tolerances).failures
        for output in list(zip(pair.names, pair.reference, pair.candidate, strict=True))[1:]:
            part = fidelity(*output)
            if part.sqnr_db < bounds.min_sqnr_db:
                failures.append(too_noisy(part, bounds.min_sqnr_db))
        if pair.guessed_db is not None and worst.sqnr_db < pair.guessed_db:
            failures.append(
                f"{worst.part} has a signal-to-noise ratio of {worst.own_db:.1f} dB; while "
                f"{self.name} is only a guess, the minimum is "
                f"{required_db(worst, pair.guessed_db):g}. Say --task {self.name} if it is right, "
                "or state another --task"
            )
        return self.assess_parity(
            comparison,
            after,
            truth,
            failures=failures,
            sqnr_db=worst.sqnr_db,
            worst_part=worst.part,
        )

    def quick_loss(self, pair: OutputPair) -> float:
        """Cross entropy in nats."""
        _, after, truth = self._answers(pair)
        return self.cross_entropy(after, truth)

    def loss_bound(self, pair: OutputPair, alpha: float) -> float | None:
        """Points of accuracy that a form loses at most."""
        comparison = self._compare(*self._answers(pair))
        return 100 * gates.loss_bound(self, comparison, alpha)

    def accuracy(self, values: NDArray[Any], truth: NDArray[np.integer]) -> float:
        """The share of answers that are ``truth``, of an output of unknown making."""
        probabilities = self._as_probabilities(values, are_probabilities(values))
        return float(self.correct(probabilities, truth).mean())

    def _answers(self, pair: OutputPair) -> tuple[Floats, Floats, NDArray[np.integer]]:
        """(FP32's probabilities, the candidate's, true labels)."""
        probable = are_probabilities(pair.reference[0])
        before, after = (
            self._as_probabilities(values[0], probable)
            for values in (pair.reference, pair.candidate)
        )
        truth = pair.truth
        if truth is None:
            truth = self._decide(before)
        return before, after, truth

    def correct(self, probabilities: Floats, truth: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which answers are right, with a threshold of 0.5 where the task has thresholds."""
        return np.asarray(self._decide(probabilities) == truth)

    def _decide(self, probabilities: Floats) -> NDArray[np.int64]:
        return decide(probabilities, np.full(1, 0.5) if self.has_thresholds else None)

    def _as_probabilities(self, values: NDArray[Any], probable: bool) -> Floats:
        """[N, K] of probabilities or scores; what is not finite counts as 0."""
        matrix = matrix_of(values)
        assert matrix is not None  # other shapes are not taken for this task
        matrix = np.nan_to_num(np.asarray(matrix, np.float32))
        return np.asarray(np.clip(matrix, 0, 1)) if probable else self.probabilities(matrix)

    def _compare(self, before: Floats, after: Floats, truth: NDArray[np.integer]) -> Parity:
        names = tuple(map(str, range(before.shape[1])))
        return parity.compare(self, before, after, truth, names)
