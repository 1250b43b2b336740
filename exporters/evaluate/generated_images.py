"""Generated test images, uint8 [n, h, w, c], by family. Their bytes depend on shape, count and seed
alone; files and figures of earlier versions were made with the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SEED = 2_026


def extreme_images(shape: Sequence[int], count: int = 8) -> NDArray[np.uint8]:
    """Return black, white, halves of both, chessboards, and noise of two values.

    Real images are kind: bright flat areas drive sums to their ends.
    """
    height, width = shape[0], shape[1]
    rows, columns = np.mgrid[0:height, 0:width]
    patterns = [
        np.zeros((height, width), bool),
        np.ones((height, width), bool),
        columns < width // 2,
        rows < height // 2,
        (rows + columns) % 2 == 0,
        (rows // 4 + columns // 4) % 2 == 0,
    ]
    random = np.random.default_rng(0)
    while len(patterns) < count:
        patterns.append(random.random((height, width)) < 0.5)
    flat = np.stack(patterns[:count]).astype(np.uint8) * 255
    return np.ascontiguousarray(np.broadcast_to(flat[..., None], (count, *shape)))


def noise_images(shape: Sequence[int], count: int) -> NDArray[np.uint8]:
    """Return noise of different strength; from three images on, one is black and one white."""
    random = np.random.default_rng(count)
    images = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    images //= random.integers(1, 5, (count, 1, 1, 1), dtype=np.uint8)
    if count > 2:
        images[0], images[1] = 0, 255
    return np.ascontiguousarray(images)


def mixed_images(shape: Sequence[int], count: int = 200) -> NDArray[np.uint8]:
    """Return noise of all strengths, flat and smooth images, and hard edges."""
    random = np.random.default_rng(_SEED)
    images = random.integers(0, 256, (count, *shape))
    strength = random.random((count, 1, 1, 1))
    ramp = np.linspace(0, 1, shape[1]).reshape(1, 1, -1, 1)
    level = random.integers(0, 256, (count, 1, 1, 1))
    smooth = level * ramp * np.ones((count, *shape))
    mixed = np.where(random.random((count, 1, 1, 1)) < 0.5, smooth, level)
    result = np.clip(mixed * (1 - strength) + images * strength, 0, 255)
    result[::10] = np.where(images[::10] > 127, 255, 0)
    return np.ascontiguousarray(result.astype(np.uint8))
