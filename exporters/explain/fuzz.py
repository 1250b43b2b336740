"""Differential testing: generated images on which two models may differ more than on any test set.
Families of images come first, then hill climbing from the worst of them, within a budget of images.
The same seed gives the same images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.evaluate.parity import Model

Images = NDArray[np.uint8]
Random = np.random.Generator
_BATCH = 64
_PARENTS = 8  # images to climb from at a time; each gets _BATCH / _PARENTS children


@dataclass(frozen=True)
class FuzzResult:
    """The worst images of a search."""

    images: Images  # [k, h, w, c], worst first
    differences: tuple[float, ...]  # largest difference of each one's probabilities
    families: tuple[str, ...]  # that each one started from
    tried: int
    before_climbing: float  # largest difference before hill climbing
    by_family: tuple[tuple[str, float], ...]  # (family, its largest difference), worst first


def fuzz(
    a: Model,
    b: Model,
    seeds: Images,
    *,
    budget: int = 4_000,
    keep: int = 16,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FuzzResult:
    """Search images [h, w, c] on which the probabilities of ``a`` and ``b`` differ most.

    ``seeds`` [n, h, w, c] are real images, which some families shift and blend. The families get
    half of the ``budget``, a number of images, and climbing gets the other half. Raises
    ExportError without seeds.
    """
    if not len(seeds):
        raise ExportError("there are no seeds; expected at least one image to start from.")
    random = np.random.default_rng(seed)
    pool = _Pool(a, b, max(keep, _PARENTS))
    families = list(FAMILIES)
    while pool.tried < budget // 2:
        name = families[(pool.tried // _BATCH) % len(families)]
        pool.add(FAMILIES[name](random, seeds, _BATCH), [name] * _BATCH)
        progress(min(pool.tried, budget), budget)
    before = pool.differences[0]
    while pool.tried < budget:
        parents = pool.images[:_PARENTS]
        names = pool.families[:_PARENTS]
        rows = np.arange(_BATCH) % len(parents)
        children = np.stack([_mutated(random, parents[row], seeds) for row in rows])
        pool.add(children, [names[row] for row in rows])
        progress(min(pool.tried, budget), budget)
    return FuzzResult(
        images=np.stack(pool.images[:keep]),
        differences=tuple(pool.differences[:keep]),
        families=tuple(pool.families[:keep]),
        tried=pool.tried,
        before_climbing=before,
        by_family=tuple(sorted(pool.largest.items(), key=lambda row: -row[1])),
    )


class _Pool:
    """The worst images so far, worst first."""

    def __init__(self, a: Model, b: Model, size: int) -> None:
        self._a, self._b, self._size = a, b, size
        self.images: list[Images] = []
        self.differences: list[float] = []
        self.families: list[str] = []
        self.largest: dict[str, float] = {}
        self.tried = 0

    def add(self, batch: Images, families: list[str]) -> None:
        """Try a batch and keep the worst images, each once."""
        batch = np.ascontiguousarray(batch)
        gap = np.abs(self._a(batch).astype(np.float64) - self._b(batch)).max(axis=1)
        self.tried += len(batch)
        for image, value, family in zip(batch, gap.tolist(), families, strict=True):
            self.largest[family] = max(self.largest.get(family, 0.0), value)
            full = len(self.images) == self._size
            if full and not value > self.differences[-1]:
                continue
            if any(np.array_equal(image, other) for other in self.images):
                continue
            rank = int(np.searchsorted(-np.array(self.differences), -value, side="right"))
            self.images.insert(rank, image)
            self.differences.insert(rank, value)
            self.families.insert(rank, family)
            del self.images[self._size :], self.differences[self._size :]
            del self.families[self._size :]


# --- families ------------------------------------------------------------------------------------


def _constant(random: Random, seeds: Images, count: int) -> Images:
    """Draw images of one color; black, white and the pure colors among them."""
    level = random.integers(0, 256, (count, 1, 1, seeds.shape[3]))
    pure = random.integers(0, 2, level.shape) * 255
    chosen = np.where(random.random((count, 1, 1, 1)) < 0.5, level, pure)
    return np.broadcast_to(chosen, (count, *seeds.shape[1:])).astype(np.uint8)


def _extreme(random: Random, seeds: Images, count: int) -> Images:
    """Draw blocks of 1 to 8 pixels, all 0 or 255, which drive activations to their ends."""
    return np.stack([_blocks(random, seeds.shape[1:]) for _ in range(count)])


def _blocks(random: Random, shape: tuple[int, ...]) -> Images:
    height, width, channels = shape
    size = int(random.choice([1, 2, 4, 8]))
    coarse = random.random((-(-height // size), -(-width // size), channels)) < random.random()
    fine = coarse.repeat(size, axis=0).repeat(size, axis=1)[:height, :width]
    return (255 * fine).astype(np.uint8)


def _noise(random: Random, seeds: Images, count: int) -> Images:
    """Draw noise of any strength around any level."""
    level = random.integers(0, 256, (count, 1, 1, 1))
    strength = 128 * random.random((count, 1, 1, 1))
    return _clip(level + strength * random.standard_normal((count, *seeds.shape[1:])))


def _shifted(random: Random, seeds: Images, count: int) -> Images:
    """Move real images by some pixels, as a careless crop does."""
    picked = _pick(random, seeds, count)
    largest = max(1, seeds.shape[1] // 4)
    moves = random.integers(-largest, largest + 1, (count, 2))
    return np.stack([np.roll(x, tuple(m), axis=(0, 1)) for x, m in zip(picked, moves, strict=True)])


def _blended(random: Random, seeds: Images, count: int) -> Images:
    """Blend two real images, which gives answers between the classes."""
    part = random.random((count, 1, 1, 1))
    return _clip(part * _pick(random, seeds, count) + (1 - part) * _pick(random, seeds, count))


def _contrast(random: Random, seeds: Images, count: int) -> Images:
    """Change the exposure of real images, up to clipping."""
    gain = 4 * random.random((count, 1, 1, 1))
    offset = random.integers(-128, 129, (count, 1, 1, 1))
    return _clip(gain * (_pick(random, seeds, count) - 128.0) + 128 + offset)


FAMILIES: dict[str, Callable[[Random, Images, int], Images]] = {
    "constant": _constant,
    "extreme": _extreme,
    "noise": _noise,
    "shifted": _shifted,
    "blended": _blended,
    "contrast": _contrast,
}


# --- climbing ------------------------------------------------------------------------------------


def _mutated(random: Random, image: Images, seeds: Images) -> Images:
    """Return a child of ``image`` with one of six changes, small or large."""
    kind = int(random.integers(6))
    if kind == 0:  # a patch of one color
        return _patched(random, image, random.integers(0, 256, (1, 1, image.shape[2])))
    if kind == 1:  # a patch of noise
        return _patched(random, image, random.integers(0, 256, image.shape))
    if kind == 2:  # single pixels to their ends
        changed = random.random(image.shape) < 0.02
        return np.where(changed, 255 * random.integers(0, 2, image.shape), image).astype(np.uint8)
    if kind == 3:  # a little noise everywhere
        return _clip(image + random.normal(0, 8, image.shape))
    if kind == 4:  # brightness and contrast
        return _clip((image - 128.0) * random.uniform(0.7, 1.4) + 128 + random.normal(0, 16))
    other = _pick(random, seeds, 1)[0]
    part = random.uniform(0.05, 0.3)
    return _clip((1 - part) * image + part * other)


def _patched(random: Random, image: Images, values: NDArray[np.integer]) -> Images:
    height, width = image.shape[:2]
    top, left = int(random.integers(height)), int(random.integers(width))
    bottom = top + int(random.integers(1, height // 2 + 2))
    right = left + int(random.integers(1, width // 2 + 2))
    result = image.copy()
    result[top:bottom, left:right] = np.broadcast_to(values, image.shape)[top:bottom, left:right]
    return result


def _pick(random: Random, seeds: Images, count: int) -> Images:
    picked: Images = seeds[random.integers(0, len(seeds), count)]
    return picked


def _clip(values: NDArray[np.floating]) -> Images:
    clipped: Images = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return clipped
