"""Shapes and ranges by which outputs are told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.tasks.protocol import Outputs


def matrix_of(values: NDArray[Any]) -> NDArray[Any] | None:
    """[N, K], also of [N, K, 1, 1]; None for other shapes and for empty outputs."""
    if values.ndim < 2 or not values.size or any(size != 1 for size in values.shape[2:]):
        return None
    return values.reshape(values.shape[:2])


def answer_matrix(values: Outputs, inputs: int) -> NDArray[Any] | None:
    """The only output as numbers [inputs, K]; None for anything else."""
    matrix = matrix_of(values[0]) if len(values) == 1 else None
    if matrix is None or len(matrix) != inputs or np.isnan(matrix).any():
        return None
    return matrix


def has_unit_rows(matrix: NDArray[Any]) -> bool:
    """True when each row has length 1, as embeddings have."""
    squares = np.square(matrix, dtype=np.float64).sum(axis=1)
    return bool(np.allclose(squares, 1, atol=2e-3))
