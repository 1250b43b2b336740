"""Ten digits as a hand draws them: strokes through points on a unit square, from the left and the
top, smoothed and shaken a little."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Strokes through these points, x,y in percent of the paper's side; drawn for this file.
DIGITS = {
    "0": ("56,18 36,26 29,52 38,78 56,82 70,62 69,35 56,19",),
    "1": ("40,34 54,18 52,50 50,83",),
    "2": ("31,32 40,19 58,18 66,33 56,53 33,79 34,80 52,78 72,79",),
    "3": ("33,22 52,16 66,28 58,43 46,48 60,52 69,67 56,83 32,79",),
    "4": (
        "46,17 38,36 29,56 30,58 50,56 74,55",
        "61,36 59,58 57,85",
    ),
    "5": (
        "40,20 37,35 36,46 52,42 68,54 64,74 48,83 31,76",
        "40,20 54,20 69,18",
    ),
    "6": ("60,17 42,34 33,58 39,79 57,82 66,68 57,55 42,60 36,70",),
    "7": ("30,22 50,21 70,20 69,23 57,48 47,83",),
    "8": ("62,26 48,17 37,28 44,42 60,56 63,73 49,83 36,72 42,57 58,42 63,28",),
    "9": ("64,33 53,19 38,27 38,43 52,49 64,36 66,30 63,55 57,84",),
}
_STEPS = 5  # between two points
_TREMOR = 0.003  # of the paper's side


def strokes(digit: str, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """The strokes of a digit, each as points [n, 2] on the unit square; another hand each time."""
    scale, lean = rng.uniform(0.85, 1.1), rng.uniform(-0.12, 0.12)
    offset = rng.uniform(-0.06, 0.06, 2)
    lines = []
    for stroke in DIGITS[digit]:
        points = [[int(n) / 100 for n in point.split(",")] for point in stroke.split()]
        line = _smooth(np.array(points)) - 0.5
        line[:, 0] -= lean * line[:, 1]
        line = line * scale + 0.5 + offset + rng.normal(0, _TREMOR, line.shape)
        lines.append(np.clip(line, 0.02, 0.98))
    return lines


def _smooth(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A curve through the points (Catmull and Rom, 1974)."""
    ends = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    p0, p1, p2, p3 = (ends[i : len(ends) - 3 + i, np.newaxis] for i in range(4))
    t = np.linspace(0, 1, _STEPS, endpoint=False)[np.newaxis, :, np.newaxis]
    curve = (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    ) / 2
    return np.concatenate([curve.reshape(-1, 2), points[-1:]])
