"""multi-class: exactly one of the labels is right. Measured by accuracy; two forms are compared
image by image (Tango's bound of the paired loss), and class by class on the images of each."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.metrics import class_probabilities, correct
from exporters.evaluate.paired_tests import Losses, tango_upper
from exporters.evaluate.probabilities import (
    Floats,
    add_up,
    answer_matrix,
    are_probabilities,
    has_unit_rows,
    matrix_of,
    softmax,
)
from exporters.evaluate.tasks.labels import GUESSED_DB, LIKELY_DB, LabelTask, Statistic
from exporters.evaluate.tasks.protocol import Guess, Outputs
from exporters.evaluate.weighted import Values, Weights, count, mean, ratio
from exporters.options import GateOptions

if TYPE_CHECKING:
    from exporters.evaluate.scoring import ModelOutputs

_SUM_SLACK = 1e-2  # of a softmax of any precision


class MultiClass(LabelTask):
    """The true labels are classes [N]."""

    name = "multi-class"
    unit = "images"
    label_noun = "class"
    metrics = ("accuracy", "balanced_accuracy")
    has_thresholds = False
    last_layer = "softmax"
    sums_to_one = True
    answers_each_label = False

    def truth_shape(self, images: int, labels: int) -> tuple[int, ...]:
        return (images,)

    def largest_truth(self, labels: int) -> int:
        return labels - 1

    def of_label(
        self, flags: NDArray[np.bool_], truth: NDArray[np.integer], index: int
    ) -> NDArray[np.bool_]:
        return np.asarray(flags[truth == index])

    def images_of_label(self, truth: NDArray[np.integer], index: int) -> int:
        return int((truth == index).sum())

    def majority_answer(self, truth: NDArray[np.integer], labels: int) -> NDArray[np.int64]:
        return np.asarray(np.bincount(truth, minlength=labels).argmax(), np.int64)

    def truth_probabilities(self, probabilities: Floats, truth: NDArray[np.integer]) -> Floats:
        return class_probabilities(probabilities, truth)

    def statistic(self, outputs: ModelOutputs, truth: NDArray[np.integer]) -> Statistic:
        """Accuracy and mean recall of all images; the recall of each class as its accuracy."""
        true = truth[:, None] == np.arange(outputs.probabilities.shape[1])
        right = true & correct(outputs.probabilities, truth, None)[:, None]

        def values(weights: Weights) -> tuple[Values, Values]:
            hits = count(right, weights)
            recall = ratio(hits, count(true, weights))
            undefined = np.full_like(recall, np.nan)
            accuracy = hits.sum(axis=1) / len(right)
            overall = np.stack([accuracy, mean(recall), undefined[:, 0]], axis=-1)
            return overall, np.stack([recall, undefined, undefined], axis=-1)

        return values

    def loss_upper(self, losses: Losses, labels: int, alpha: float) -> float:
        """Tango's bound: an image loses or wins one answer at most."""
        lost = sum(images for answers, images in losses if answers > 0)
        won = sum(images for answers, images in losses if answers < 0)
        total = sum(images for _, images in losses)
        return tango_upper(lost, won, max(total, 1), alpha)

    def images_needed(self, labels: int, options: GateOptions) -> int:
        """The smallest n with z^2 / (n + z^2) below the margin."""
        z = NormalDist().inv_cdf(1 - options.alpha)
        margin = options.margin_points / 100
        return math.floor(z * z * (1 - margin) / margin) + 1

    def probabilities(self, scores: Floats) -> Floats:
        return softmax(scores)

    def scores(
        self, a: Floats, b: Floats
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None:
        """Logarithms, less that of A's first choice: a softmax hides what all have in common."""
        if not all(add_up(values, _SUM_SLACK) for values in (a, b)):
            return None
        x, y = (np.log(np.maximum(v.astype(np.float64), 1e-45)) for v in (a, b))
        top = a.argmax(axis=1)[:, None]
        accurate = (a > 1e-30) & (b > 1e-30)  # float32 ends at 1e-45
        return x - np.take_along_axis(x, top, 1), y - np.take_along_axis(y, top, 1), accurate

    def guess(self, values: Outputs, inputs: int, classes: int | None) -> Guess | None:
        matrix = answer_matrix(values, inputs)
        if matrix is None:
            return None
        expected = matrix.shape[1] == classes
        if are_probabilities(matrix):
            minimum = LIKELY_DB if expected else GUESSED_DB
            reason = "they are in [0, 1] and add up to 1"
            return Guess(self.name, reason, minimum) if add_up(matrix) else None
        if matrix.shape[1] == 1 or has_unit_rows(matrix):
            return None
        if expected:
            return Guess(self.name, f"the data has {classes} classes, too", LIKELY_DB)
        if np.isneginf(matrix).any():
            return Guess(self.name, "-inf switches a class off", GUESSED_DB)
        if classes is not None or len(np.unique(matrix.argmax(axis=1))) == 1:
            return None
        reason = "one number of each row is the largest, and not always the same"
        return Guess(self.name, reason, GUESSED_DB)

    def could_return(self, values: Outputs) -> bool:
        """True for one softmax or scores of at least two classes, [N, K]."""
        matrix = matrix_of(values[0]) if len(values) == 1 else None
        if matrix is None or matrix.shape[1] == 1:
            return False
        return add_up(matrix) or not are_probabilities(matrix)


MULTI_CLASS = MultiClass()
