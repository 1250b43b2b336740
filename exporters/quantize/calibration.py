"""Images for calibration: a seeded choice, handed to the quantizer in small batches, so that memory
stays bounded for any number of them. Independent of ranges and scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True)
class ImageReader:
    """Chosen images [n, ...], read in batches."""

    images: Images = field(repr=False)
    indices: NDArray[np.int64]
    name: str = field(default=INPUT_NAME, kw_only=True)  # of the model's input
    batch: int = field(default=BATCH, kw_only=True)  # the most images in memory at a time
    multiple: int = field(default=1, kw_only=True)  # that a model with a fixed batch takes

    def first(self, count: int) -> ImageReader:
        """Return a reader of ``count`` of the images, rounded up to whole batches of a fixed size;
        evenly spread, as a data set may be sorted by class."""
        count = -(-count // self.multiple) * self.multiple
        return replace(self, indices=spread(self.indices, count))

    def batches(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the images, batch by batch, under the name of the model's input."""
        for start in range(0, len(self.indices), self.batch):
            chosen = self.indices[start : start + self.batch]
            yield {self.name: np.ascontiguousarray(self.images[chosen])}
