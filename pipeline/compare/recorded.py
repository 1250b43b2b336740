"""Outputs that some model gave earlier, read from an array file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import UNREADABLE
from pipeline.errors import DataError


def recorded_outputs(path: Path, array: str = "") -> NDArray[np.float32]:
    """Read [n, labels] from a .npy or .npz; ``array`` names one of several arrays.

    Without a name the array "probabilities" is read, or the only one. Raises DataError.
    """
    try:
        loaded = np.load(path)
        if isinstance(loaded, np.ndarray):
            return loaded.astype(np.float32)
        with loaded as archive:
            arrays = {key: archive[key] for key in archive.files}
    except UNREADABLE as exc:
        raise DataError(f"{path} has no recorded outputs: {exc}.") from exc
    key = array or ("probabilities" if "probabilities" in arrays else "")
    if not key and len(arrays) == 1:
        (key,) = arrays
    if key not in arrays:
        raise DataError(
            f"{path} has the arrays {', '.join(sorted(arrays))}; expected "
            f"{key or 'probabilities'}. Name the array: {path}:NAME."
        )
    outputs: NDArray[np.float32] = arrays[key].astype(np.float32)
    return outputs
