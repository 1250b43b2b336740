"""Pictures before preprocessing, drawn by seed: of many sizes, gray, in color and with alpha. Equal
preprocessing graphs treat them alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
_SEED = 2_027
_CHANNELS = {1: "gray", 3: "color", 4: "color and alpha"}
_LARGEST = 6_000  # pixels of a side
_STEPS = 8  # times the model's side, from which on ``resize_graph`` reads every n-th row


@dataclass(frozen=True)
class Picture:
    """One decoded image and its description."""

    words: str  # "noise, color, 37 x 53 (rows x columns)"
    pixels: Pixels  # [H, W, C]


def sizes(height: int, width: int, more: Iterable[int] = ()) -> tuple[Size, ...]:
    """Return (rows, columns) to try for a model of ``height`` x ``width``: tiny, odd, wide, tall,
    smaller and larger than the model, large enough to be sampled; and sides around each of
    ``more``."""
    h, w = height, width
    near = [(h, w), (h + 1, w), (h, w + 1), (max(h - 1, 1), max(w - 1, 1)), (w, h)]
    scaled = [(2 * h, 2 * w), (2 * h + 1, 3 * w - 1), (-(-h // 2), -(-w // 2)), (3 * h, w)]
    sampled = [(_STEPS * h, _STEPS * w), (2 * _STEPS * h + 3, 3 * _STEPS * w + 5)]
    fixed = [(1, 1), (1, 7), (9, 1), (2, 3), (3, 2), (7, 5), (37, 53), (60, 900), (900, 60)]
    usual = [(218, 178), (480, 640), (641, 479), (1_100, 1_300), (2_049, 1_537)]
    around = [(n + step, other) for n in more for step in (-1, 0, 1) for other in (h + 7,)]
    around += [(b, a) for a, b in around]
    all_sizes = (*near, *scaled, (h, 3 * w), *fixed, *usual, *sampled, *around)
    inside = [(a, b) for a, b in all_sizes if 1 <= a <= _LARGEST and 1 <= b <= _LARGEST]
    return tuple(dict.fromkeys(inside))


def pictures(tried: Iterable[Size]) -> Iterator[Picture]:
    """Draw pictures of every kind in each size; the same at each call."""
    for size in tried:
        random = np.random.default_rng((_SEED, *size))
        for kind, draw in _KINDS.items():
            large = size[0] * size[1] > 1_000_000
            for channels in (3,) if large and kind != "strokes" else _CHANNELS:
                height, width = size
                words = f"{kind}, {_CHANNELS[channels]}, {height} x {width} (rows x columns)"
                yield Picture(words, draw(random, height, width, channels))


def _noise(random: np.random.Generator, height: int, width: int, channels: int) -> Pixels:
    """Draw noise of every level, which distinguishes one resampling from another."""
    return random.integers(0, 256, (height, width, channels), dtype=np.uint8)


def _ramps(random: np.random.Generator, height: int, width: int, channels: int) -> Pixels:
    """Draw ramps that differ by channel and have no symmetry, which show a tone curve, exchanged
    channels or a crop."""
    y = np.linspace(0, 1, height)[:, None, None]
    x = np.linspace(0, 1, width)[None, :, None]
    slopes = np.array([[0.9, 0.1], [0.2, 0.7], [0.45, 0.45], [0.1, 0.3]])[:channels]
    bent = (slopes[:, 0] * y**1.5 + slopes[:, 1] * x) * 255
    return np.clip(np.rint(bent + [0, 12, 40, 180][:channels]), 0, 255).astype(np.uint8)


def _strokes(random: np.random.Generator, height: int, width: int, channels: int) -> Pixels:
    """Draw bright lines on dark ground, or dark ones on bright, as on a page with a digit."""
    dark = (height + width) % 2 == 1
    plane = np.full((height, width), 20, np.uint8)
    thick = max(1, min(height, width) // 12)
    top, left = height // 5, width // 3
    plane[top : top + thick, left : left + max(1, width // 3)] = 230
    for row in range(top, max(top + 1, height * 4 // 5)):  # a slanted stroke below it: a seven
        at = left + max(0, width // 3 - (row - top) * width // (3 * max(height, 1)))
        plane[row, at : at + thick] = 210
    plane = 255 - plane if dark else plane
    planes = [plane, np.maximum(plane, 60), plane // 2 + 40, 255 - plane // 3][:channels]
    return np.ascontiguousarray(np.stack(planes, axis=2))


_KINDS = {"noise": _noise, "ramps": _ramps, "strokes": _strokes}
