"""Answers behind probabilities, their accuracy, and thresholds. Plain numpy, so that PyTorch, ONNX
and the packaged predictor are judged by the same lines."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.probabilities import Floats

Thresholds = NDArray[np.float64] | None  # [labels] or [N, labels]; None: a task without them


def decide(probabilities: Floats, thresholds: Thresholds) -> NDArray[np.int64]:
    """Return the answers behind probabilities [N, labels].

    Without thresholds: the index of the largest, [N]. With them: 1 where the probability reaches
    its label's threshold, [N, labels].
    """
    if thresholds is None:
        return np.asarray(probabilities.argmax(axis=1), np.int64)
    return (probabilities >= thresholds).astype(np.int64)


def correct(
    probabilities: Floats, labels: NDArray[np.integer], thresholds: Thresholds
) -> NDArray[np.bool_]:
    """Return which answers are right, in the shape of :func:`decide`'s."""
    return np.asarray(decide(probabilities, thresholds) == labels, np.bool_)


def balanced_accuracy(
    answers: NDArray[np.integer], labels: NDArray[np.integer]
) -> NDArray[np.float64]:
    """(sensitivity + specificity) / 2 of each label, [labels], from 0/1 arrays [N, labels].

    A label that is never, or always, present has only one of the two; that one counts.
    """
    truth, yes = labels == 1, answers == 1
    positives, negatives = truth.sum(axis=0), (~truth).sum(axis=0)
    rates = np.stack(
        [
            np.where(positives > 0, (yes & truth).sum(axis=0) / np.maximum(positives, 1), np.nan),
            np.where(negatives > 0, (~yes & ~truth).sum(axis=0) / np.maximum(negatives, 1), np.nan),
        ]
    )
    return np.asarray(np.nanmean(rates, axis=0), np.float64)


Objective = Literal["balanced", "accuracy"]


def best_thresholds(
    probabilities: Floats, labels: NDArray[np.integer], objective: Objective = "balanced"
) -> NDArray[np.float64]:
    """Return for each label the threshold with the best balanced (or plain) accuracy, [labels].

    Probabilities and 0/1 labels are [N, labels]. Of equally good thresholds the one nearest to
    0.5 is taken, so that a perfect label keeps 0.5. The grid has steps of 0.01: finer steps
    follow the noise of a validation split.
    """
    grid = np.linspace(0.05, 0.95, 91)
    scores = np.stack(
        [
            _score(probabilities, labels, np.full(labels.shape[1], threshold), objective)
            for threshold in grid
        ]
    )  # (grid, labels)
    penalty = 1e-9 * np.abs(grid - 0.5)[:, None]
    return np.asarray(grid[(scores - penalty).argmax(axis=0)].round(2), np.float64)


def adjusted_thresholds(
    probabilities: Floats,
    labels: NDArray[np.integer],
    reference: NDArray[np.float64],
    objective: Objective = "balanced",
) -> NDArray[np.float64]:
    """Return thresholds [labels] of another form of a model whose own are ``reference``.

    A threshold moves to the best one of this form only where that is better by more than a
    standard error on these images. Scores are flat around their best: without that, the noise of
    the validation split would flip hundreds of answers where quantization changed hardly any.
    """
    own = best_thresholds(probabilities, labels, objective)
    gain = _score(probabilities, labels, own, objective) - _score(
        probabilities, labels, reference, objective
    )
    return np.where(
        gain > _standard_error(probabilities, labels, reference, objective), own, reference
    )


def _score(
    probabilities: Floats,
    labels: NDArray[np.integer],
    thresholds: NDArray[np.float64],
    objective: Objective,
) -> NDArray[np.float64]:
    """The accuracy that a threshold is chosen by, [labels]."""
    answers = decide(probabilities, thresholds)
    if objective == "balanced":
        return balanced_accuracy(answers, labels)
    return np.asarray((answers == labels).mean(axis=0), np.float64)


def _standard_error(
    probabilities: Floats,
    labels: NDArray[np.integer],
    thresholds: NDArray[np.float64],
    objective: Objective,
) -> NDArray[np.float64]:
    """The binomial standard error of :func:`_score`, [labels]."""
    right = decide(probabilities, thresholds) == labels
    if objective == "accuracy":
        share = right.mean(axis=0)
        return np.asarray(np.sqrt(share * (1 - share) / len(labels)), np.float64)
    variance = np.zeros(labels.shape[1])
    for present in (True, False):  # sensitivity, specificity
        chosen = (labels == 1) == present
        count = np.maximum(chosen.sum(axis=0), 1)
        share = (right & chosen).sum(axis=0) / count
        variance += share * (1 - share) / count / 4
    return np.asarray(np.sqrt(variance), np.float64)
