"""Images for calibration: a seeded choice, handed to the quantizer in small batches, so that
memory stays bounded however many there are. Knows nothing of ranges and scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.spec import INPUT_NAME

from .errors import QuantizeError

BATCH = 16  # images in memory at a time; activations of 64x64 networks stay under 100 MB


def choose(available: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """``wanted`` different indices below ``available``, ascending; the same for the same seed.

    Raises QuantizeError when there are not enough.
    """
    if not 0 < wanted <= available:
        raise QuantizeError(
            f"{wanted} calibration images were asked for and {available} are there; set "
            f"calibration_images to a number from 1 to {available}."
        )
    chosen = np.random.default_rng(seed).choice(available, size=wanted, replace=False)
    return np.sort(chosen.astype(np.int64))  # ascending: a memory-mapped file is read forwards


class ImageReader:
    """Reads chosen images [n, h, w, c], in batches of at most ``BATCH``; what onnxruntime calls a
    CalibrationDataReader, which it recognises by its methods.

    ``len`` is in images, and :meth:`set_range` moves the window that is read: with these
    onnxruntime's histogram calibrators can be fed piece by piece (they keep every activation of
    one piece in memory).
    """

    def __init__(self, images: NDArray[np.uint8], indices: NDArray[np.int64]) -> None:
        self._images, self._indices = images, indices
        self._next, self._end = 0, len(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Read images start..end (exclusive) of the chosen ones from now on."""
        self._next, self._end = start_index, min(end_index, len(self._indices))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next batch under the model's input name, or None at the end of the window."""
        if self._next >= self._end:
            return None
        upto = min(self._next + BATCH, self._end)
        batch = np.ascontiguousarray(self._images[self._indices[self._next : upto]])
        self._next = upto
        return {INPUT_NAME: batch}

    @property
    def piece(self) -> int:
        """The largest number of images up to four batches that divides ``len`` evenly, which
        onnxruntime requires of its stride."""
        return next(n for n in range(4 * BATCH, 0, -1) if len(self) % n == 0)
