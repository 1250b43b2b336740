"""metrics.py: thresholds that move for a reason."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from exporters.evaluate.metrics import (
    adjusted_thresholds,
    balanced_accuracy,
    best_thresholds,
    decide,
)


def scored(images: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities [n, 2] of two labels that overlap; the second label is rare."""
    random = np.random.default_rng(seed)
    labels = (random.random((images, 2)) < (0.5, 0.1)).astype(np.int64)
    logits = 3 * labels - 1.5 + random.normal(size=labels.shape)
    return (1 / (1 + np.exp(-logits))).astype(np.float32), labels


def test_best_thresholds_find_the_better_side() -> None:
    probabilities = np.array([[0.2], [0.3], [0.4], [0.9]], np.float32)
    labels = np.array([[0], [0], [1], [1]])
    (thresholds,) = best_thresholds(probabilities, labels)
    assert 0.3 < thresholds <= 0.4
    assert balanced_accuracy(decide(probabilities, np.array([thresholds])), labels) == 1


def test_noise_flips_no_threshold() -> None:
    """Rounding must not cost answers by moving a threshold along a flat score."""
    probabilities, labels = scored(4_000)
    reference = best_thresholds(probabilities, labels)
    noise = np.random.default_rng(1).normal(scale=0.02, size=probabilities.shape)
    moved = np.clip(probabilities + noise, 0, 1).astype(np.float32)
    assert not np.array_equal(best_thresholds(moved, labels), reference)  # this would have
    assert np.array_equal(adjusted_thresholds(moved, labels, reference), reference)


@pytest.mark.parametrize("objective", ["balanced", "accuracy"])
def test_a_shift_of_all_probabilities_is_followed(objective: str) -> None:
    probabilities, labels = scored(4_000)
    reference = best_thresholds(probabilities, labels, objective)  # type: ignore[arg-type]
    low = (probabilities * 0.5).astype(np.float32)
    thresholds = adjusted_thresholds(low, labels, reference, objective)  # type: ignore[arg-type]
    before = (decide(low, reference) == labels).mean(axis=0)
    after = (decide(low, thresholds) == labels).mean(axis=0)
    assert thresholds[0] < reference[0] - 0.1
    if objective == "accuracy":
        assert (after >= before).all() and after[0] > before[0] + 0.01


def test_thresholds_move_label_by_label() -> None:
    probabilities, labels = scored(4_000)
    reference = best_thresholds(probabilities, labels)
    half = probabilities.copy()
    half[:, 0] *= 0.4
    thresholds = adjusted_thresholds(half, labels, reference)
    assert thresholds[0] != reference[0] and thresholds[1] == reference[1]
