"""multi-label: each label is an attribute that an image has or not. Measured by accuracy, balanced
accuracy and average precision of each; two forms are compared by the mean over attributes, with the
image as the unit, since the answers to one image depend on each other."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.average_precision import Ranking
from exporters.evaluate.metrics import (
    Objective,
    Thresholds,
    adjusted_thresholds,
    attribute_probabilities,
    balanced_accuracy,
    best_thresholds,
    correct,
    decide,
)
from exporters.evaluate.paired_tests import Losses, mean_loss_upper
from exporters.evaluate.probabilities import (
    Floats,
    add_up,
    answer_matrix,
    are_probabilities,
    log_odds,
    matrix_of,
    sigmoid,
)
from exporters.evaluate.tasks.labels import GUESSED_DB, LIKELY_DB, LabelTask, Statistic
from exporters.evaluate.tasks.protocol import Guess, Outputs
from exporters.evaluate.weighted import Values, Weights, count, mean, ratio, share
from exporters.options import GateOptions

if TYPE_CHECKING:
    from exporters.evaluate.scoring import ModelOutputs

_UNDECIDED = 0.1  # yes and no of a label are nearer to 1 and 0 than this, mostly


class MultiLabel(LabelTask):
    """The true labels are 0 and 1 [N, labels]."""

    name = "multi-label"
    unit = "answers"
    label_noun = "attribute"
    metrics = ("accuracy", "balanced_accuracy", "average_precision")
    has_thresholds = True
    last_layer = "sigmoid"
    sums_to_one = False
    answers_each_label = True

    def truth_shape(self, images: int, labels: int) -> tuple[int, ...]:
        return (images, labels)

    def largest_truth(self, labels: int) -> int:
        return 1

    def of_label(
        self, flags: NDArray[np.bool_], truth: NDArray[np.integer], index: int
    ) -> NDArray[np.bool_]:
        return flags[:, index]

    def images_of_label(self, truth: NDArray[np.integer], index: int) -> int:
        return len(truth)

    def majority_answer(self, truth: NDArray[np.integer], labels: int) -> NDArray[np.int64]:
        return np.asarray(truth.mean(axis=0) >= 0.5, np.int64)

    def truth_probabilities(self, probabilities: Floats, truth: NDArray[np.integer]) -> Floats:
        return attribute_probabilities(probabilities, truth)

    def statistic(self, outputs: ModelOutputs, truth: NDArray[np.integer]) -> Statistic:
        probabilities, thresholds = outputs.probabilities, outputs.thresholds
        yes, present = decide(probabilities, thresholds["balanced"]) == 1, truth == 1
        right = correct(probabilities, truth, thresholds["accuracy"])
        hits, rejected = yes & present, ~(yes | present)
        rankings = [Ranking.of(*pair) for pair in zip(probabilities.T, truth.T, strict=True)]

        def values(weights: Weights) -> tuple[Values, Values]:
            positives = count(present, weights)
            negatives = len(present) - positives  # a sample has as many draws as images
            sensitivity = ratio(count(hits, weights), positives)
            specificity = ratio(count(rejected, weights), negatives)
            precision = [ranking.average_precision(weights) for ranking in rankings]
            balanced = (sensitivity + specificity) / 2
            figures = [share(right, weights), balanced, np.stack(precision, axis=-1)]
            labels = np.stack(figures, axis=-1)
            if outputs.labels is not None:
                labels[:, ~outputs.labels] = np.nan
            return mean(labels), labels

        return values

    def best_thresholds(
        self, probabilities: Floats, truth: NDArray[np.integer], objective: Objective
    ) -> Thresholds:
        return best_thresholds(probabilities, truth, objective)

    def adjusted_thresholds(
        self,
        probabilities: Floats,
        truth: NDArray[np.integer],
        reference: Thresholds,
        objective: Objective,
    ) -> Thresholds:
        assert reference is not None  # this task's always are
        return adjusted_thresholds(probabilities, truth, reference, objective)

    def balanced_percent(
        self, probabilities: Floats, truth: NDArray[np.integer], thresholds: Thresholds
    ) -> NDArray[np.float64] | None:
        return 100 * balanced_accuracy(decide(probabilities, thresholds), truth)

    def loss_upper(self, losses: Losses, labels: int, alpha: float) -> float:
        return mean_loss_upper(losses, labels, alpha)

    def images_needed(self, labels: int, options: GateOptions) -> int:
        """The bound of :func:`mean_loss_upper` without losses, solved for the images."""
        z = NormalDist().inv_cdf(1 - options.alpha)
        return math.ceil(z * math.sqrt(2) / (options.margin_points / 100 * labels))

    def probabilities(self, scores: Floats) -> Floats:
        return sigmoid(scores)

    def scores(
        self, a: Floats, b: Floats
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None:
        accurate = (a > 1e-30) & (b > 1e-30) & (a < 1 - 1e-6) & (b < 1 - 1e-6)
        return log_odds(a), log_odds(b), accurate

    def guess(self, values: Outputs, inputs: int, classes: int | None) -> Guess | None:
        matrix = answer_matrix(values, inputs)
        if matrix is None or not are_probabilities(matrix) or add_up(matrix):
            return None
        decided = (matrix < _UNDECIDED) | (matrix > 1 - _UNDECIDED)
        varies = (matrix >= 0.5).any(axis=0) & (matrix < 0.5).any(axis=0)
        if decided.mean() < 0.5 or not varies.any():
            return None
        minimum = LIKELY_DB if classes == matrix.shape[1] else GUESSED_DB
        return Guess(self.name, "they are in [0, 1], most of them near its ends", minimum)

    def could_return(self, values: Outputs) -> bool:
        matrix = matrix_of(values[0]) if len(values) == 1 else None
        return matrix is not None and are_probabilities(matrix)


MULTI_LABEL = MultiLabel()
