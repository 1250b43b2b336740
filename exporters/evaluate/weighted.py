"""Shares and means of images that count by weight, so that a bootstrap sample is a weighted sum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Shares of one, [1 + samples, labels, 3], or over all images [1 + samples, 3]: accuracy, balanced
# accuracy and average precision. The first row counts each image once; nan is undefined.
Values = NDArray[np.float64]
Weights = NDArray[np.uint8]  # [N, samples], how often an image counts


def count(flags: NDArray[np.bool_], weights: Weights) -> Values:
    """Images that have a flag, by weight: [samples, flags] for [N] or [N, flags]."""
    # whole numbers up to 2^24 are exact in float32, whose product is quick
    total = weights.T.astype(np.float32) @ flags.reshape(len(flags), -1).astype(np.float32)
    return np.asarray(total, np.float64)


def share(flags: NDArray[np.bool_], weights: Weights) -> Values:
    """The share of images that have a flag, [samples, flags]."""
    return count(flags, weights) / len(flags)


def ratio(part: Values, whole: Values) -> Values:
    """``part`` / ``whole``; nan where the whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def mean(values: Values) -> Values:
    """The mean over labels, axis 1, of those that are defined; nan where none is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1).astype(float))
