"""Images for calibration: a seeded choice, handed to the quantizer in small batches, so that memory
stays bounded for any number of them. Independent of ranges and scales."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exporters.errors import QuantizeError
from runtime.spec import INPUT_NAME

BATCH = 16  # images in memory at a time; activations of 64x64 networks stay under 100 MB


def choose(available: int, count: int, seed: int) -> NDArray[np.int64]:
    """Return ``count`` different indices below ``available``, ascending; fixed by ``seed``.

    Raises QuantizeError when there are not enough.
    """
    if not 0 < count <= available:
        raise QuantizeError(
            f"{count} calibration images were requested and {available} exist; set "
            f"calibration_images to a number from 1 to {available}."
        )
    chosen = np.random.default_rng(seed).choice(available, size=count, replace=False)
    return np.sort(chosen.astype(np.int64))  # ascending: a memory-mapped file is read forward


class Images(Protocol):
    """An array, or something that makes its rows on demand."""

    def __getitem__(self, chosen: NDArray[np.int64], /) -> NDArray[Any]:
        """Return the chosen images, [n, ...] as the model takes them."""


def spread(values: NDArray[Any], count: int) -> NDArray[Any]:
    """Return at most ``count`` rows of ``values`` [n, ...], evenly spread, including the first."""
    return values[:: max(len(values) // count, 1)][:count]


class ImageReader:
    """A reader of chosen images [n, ...] in batches: onnxruntime's CalibrationDataReader, which it
    recognizes by its methods."""

    def __init__(
        self,
        images: Images,
        indices: NDArray[np.int64],
        *,
        name: str = INPUT_NAME,
        batch: int = BATCH,
        multiple: int = 1,
    ) -> None:
        """``name`` is the model's input, ``batch`` the most images in memory at a time; a model
        with a fixed batch takes a ``multiple`` of images only."""
        self._images, self._indices = images, indices
        self._name, self._batch, self._multiple = name, batch, multiple
        self._next = 0

    def __len__(self) -> int:
        return len(self._indices)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch under the model's input name, or None at the end."""
        if self._next >= len(self._indices):
            return None
        chosen = self._indices[self._next : self._next + self._batch]
        self._next += self._batch
        return {self._name: np.ascontiguousarray(self._images[chosen])}

    def first(self, count: int = 1) -> ImageReader:
        """Return a reader of ``count`` of the images, rounded up to whole batches of a fixed size;
        evenly spread, as a data set may be sorted by class."""
        return self._of(spread(self._indices, -(-count // self._multiple) * self._multiple))

    def pieces(self) -> Iterator[ImageReader]:
        """Yield a reader of each batch, from the start. The histograms of onnxruntime are fed piece
        by piece, because they keep every activation of what they are given at once."""
        for start in range(0, len(self._indices), self._batch):
            yield self._of(self._indices[start : start + self._batch])

    def _of(self, indices: NDArray[np.int64]) -> ImageReader:
        return ImageReader(
            self._images,
            indices,
            name=self._name,
            batch=self._batch,
            multiple=self._multiple,
        )
