"""The order of the train images in an epoch.

Nothing is stored: seed and epoch decide. A set that fits into a window is shuffled as a whole. A
larger one is shuffled in two stages, so that neither the order nor the pages being read grow with
it: chunks of neighboring images are shuffled, then the images of as many chunks as fill a window.
One window after the other is read, each from few long stretches of the file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Pages of one window have to stay in memory while its images are read in random order ...
WINDOW_BYTES = 2 * 1024**3
WINDOW_IMAGES = 2**18  # ... and their order is held: 2 MB; the train split of CelebA fits in
CHUNK_BYTES = 8 * 1024**2  # long enough for a disk to read at full speed
_ORDER = 1  # separates these random numbers from others of the same seed


class EpochOrder:
    """A permutation of 0 .. ``count`` - 1, computed window by window."""

    def __init__(self, count: int, seed: int, epoch: int, window: int, chunk: int) -> None:
        """``window`` and ``chunk`` in images; see ``sizes_of``."""
        self.count, self._key = count, (seed, _ORDER, epoch)
        self._chunk = count if count <= window else chunk
        self._chunks_in_window = max(1, window // self._chunk)
        self._window = self._chunks_in_window * self._chunk
        chunks = -(-count // self._chunk)
        # The last chunk may be shorter than the others: it stays last, so that windows are even.
        self._chunk_order = np.arange(chunks)
        np.random.default_rng(self._key).shuffle(self._chunk_order[: count // self._chunk])
        self._kept, self._shuffled = -1, np.zeros(0, np.int64)

    def part(self, start: int, stop: int) -> NDArray[np.int64]:
        """The images visited from ``start`` to before ``stop``."""
        pieces = []
        while start < stop:
            window, offset = divmod(start, self._window)
            piece = self._images(window)[offset : offset + stop - start]
            if not len(piece):
                raise IndexError(f"images up to {stop} of {self.count}")
            pieces.append(piece)
            start += len(piece)
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)

    def _images(self, window: int) -> NDArray[np.int64]:
        """The shuffled images of one window; the last one is kept."""
        if window != self._kept:
            first = window * self._chunks_in_window
            chunks = self._chunk_order[first : first + self._chunks_in_window]
            images = (chunks[:, None] * self._chunk + np.arange(self._chunk)).ravel()
            images = images[images < self.count].astype(np.int64)
            np.random.default_rng((*self._key, window)).shuffle(images)
            self._kept, self._shuffled = window, images
        return self._shuffled


def sizes_of(image_bytes: int) -> tuple[int, int]:
    """(window, chunk) in images of ``image_bytes`` each."""
    chunk = max(1, CHUNK_BYTES // image_bytes)
    return max(chunk, min(WINDOW_IMAGES, WINDOW_BYTES // image_bytes)), chunk
