"""Probabilities: made of scores, recognized among other numbers, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError

Floats = NDArray[np.float32]

SLACK = 1e-4  # by which rounding may carry a probability past 0 or 1
_SUM_SLACK = 1e-3  # by which rounding may carry the sum of a softmax past 1


def softmax(scores: Floats) -> Floats:
    """Probabilities [N, K] of scores [N, K]; each row sums to 1."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def sigmoid(scores: Floats) -> Floats:
    """Probabilities of scores, each by itself. It never overflows."""
    return np.asarray(0.5 + 0.5 * np.tanh(scores / 2), np.float32)


def log_odds(
    probabilities: Floats, lowest: float = 1e-12, from_one: float = 1e-7
) -> NDArray[np.float64]:
    """The scores whose sigmoid these probabilities are, taken to be no nearer to 0 than ``lowest``
    and no nearer to 1 than ``from_one``."""
    p = np.clip(probabilities.astype(np.float64), lowest, 1 - from_one)
    return np.asarray(np.log(p / (1 - p)))


def are_probabilities(values: NDArray[Any]) -> bool:
    """True when all values are in [0, 1], apart from rounding. NaN is not a probability."""
    return bool(values.min() >= -SLACK and values.max() <= 1 + SLACK)


def add_up(values: NDArray[Any], slack: float = _SUM_SLACK) -> bool:
    """True when [N, K], K > 1, has rows that sum to 1, as those of a softmax do."""
    return values.shape[1] > 1 and bool(np.abs(values.sum(axis=1) - 1).max() <= slack)


def matrix_of(values: NDArray[Any]) -> NDArray[Any] | None:
    """[N, K], also of [N, K, 1, 1]; None for other shapes and for empty outputs."""
    if values.ndim < 2 or not values.size or any(size != 1 for size in values.shape[2:]):
        return None
    return values.reshape(values.shape[:2])


def answer_matrix(values: Sequence[NDArray[Any]], inputs: int) -> NDArray[Any] | None:
    """The only output as numbers [inputs, K]; None for anything else."""
    matrix = matrix_of(values[0]) if len(values) == 1 else None
    if matrix is None or len(matrix) != inputs or np.isnan(matrix).any():
        return None
    return matrix


def has_unit_rows(matrix: NDArray[Any]) -> bool:
    """True when each row has length 1, as embeddings have."""
    squares = np.square(matrix, dtype=np.float64).sum(axis=1)
    return bool(np.allclose(squares, 1, atol=2e-3))


def check_probabilities(
    values: Floats, rows: int, columns: int | None, what: str = "the model"
) -> None:
    """Raise ExportError unless ``values`` are probabilities [rows, columns]; a ``columns`` of None
    accepts any number of them."""
    if values.ndim != 2 or len(values) != rows or columns not in (None, values.shape[1]):
        raise ExportError(
            f"{what} returned probabilities of shape {values.shape}; expected "
            f"({rows}, {'labels' if columns is None else columns})."
        )
    if not are_probabilities(values):
        raise ExportError(
            f"{what} returned values from {values.min():g} to {values.max():g}; expected "
            "probabilities from 0 to 1. Does the network end in a softmax or sigmoid?"
        )
