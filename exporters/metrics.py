"""How good are probabilities? Plain numpy, so that PyTorch, ONNX and the packaged predictor are
judged by the same lines. Knows neither models nor gates."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def decide(probabilities: Floats, thresholds: NDArray[np.floating] | None) -> NDArray[np.int64]:
    """The answer behind probabilities [N, labels].

    Multi-class (``thresholds`` is None): the index of the largest, [N]. Multi-label: 1 where the
    probability reaches its label's threshold, [N, labels].
    """
    if thresholds is None:
        return np.asarray(probabilities.argmax(axis=1), np.int64)
    return (probabilities >= thresholds).astype(np.int64)


def correct(
    probabilities: Floats, labels: NDArray[np.integer], thresholds: NDArray[np.floating] | None
) -> NDArray[np.bool_]:
    """Which answers are right: [N] for multi-class, [N, labels] for multi-label."""
    return np.asarray(decide(probabilities, thresholds) == labels, np.bool_)


def balanced_accuracy(
    answers: NDArray[np.integer], labels: NDArray[np.integer]
) -> NDArray[np.float64]:
    """(sensitivity + specificity) / 2 of each label, [labels], from 0/1 arrays [N, labels].

    A label that is never, or always, present has only one of the two; that one counts.
    """
    truth, said = labels == 1, answers == 1
    positives, negatives = truth.sum(axis=0), (~truth).sum(axis=0)
    rates = np.stack(
        [
            np.where(positives > 0, (said & truth).sum(axis=0) / np.maximum(positives, 1), np.nan),
            np.where(
                negatives > 0, (~said & ~truth).sum(axis=0) / np.maximum(negatives, 1), np.nan
            ),
        ]
    )
    return np.asarray(np.nanmean(rates, axis=0), np.float64)


def best_thresholds(
    probabilities: Floats,
    labels: NDArray[np.integer],
    objective: Literal["balanced", "accuracy"] = "balanced",
) -> NDArray[np.float64]:
    """For each label the threshold with the best balanced (or plain) accuracy, [labels].

    Probabilities and 0/1 labels are [N, labels]. Of equally good thresholds the one nearest to
    0.5 is taken, so that a perfect label keeps 0.5. The grid has steps of 0.01: finer steps
    follow the noise of a validation split.
    """
    grid = np.linspace(0.05, 0.95, 91)
    answers = [decide(probabilities, np.full(1, threshold)) for threshold in grid]
    if objective == "balanced":
        scores = np.stack([balanced_accuracy(answer, labels) for answer in answers])
    else:
        scores = np.stack([(answer == labels).mean(axis=0) for answer in answers])
    penalty = 1e-9 * np.abs(grid - 0.5)[:, None]  # scores are [grid, labels]
    return np.asarray(grid[(scores - penalty).argmax(axis=0)].round(2), np.float64)
