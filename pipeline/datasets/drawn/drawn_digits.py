"""Digits that look written by hand on paper, drawn from a random generator.

They replace photographs: as the golden raw images of a bundle, which must not contain anybody's
pictures, and in the test that a digit drawn dark on white, off center, on a large page is read.
They are not training data: two or three ways to write each digit are far from the variety of the
people who wrote MNIST. The same state of the generator gives the same bytes with the same
numpy and Pillow; other versions of the two may round a pixel differently.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

__all__ = ["draw_digit"]

_Points: TypeAlias = tuple[tuple[float, float], ...]
_Floats: TypeAlias = npt.NDArray[np.float64]

# For each digit its allographs, for each allograph its strokes, for each stroke the (x, y) control
# points in a unit square, y down. A point written twice is a corner, the others are rounded.
# fmt: off
_ALLOGRAPHS: Final[tuple[tuple[tuple[_Points, ...], ...], ...]] = (
    (  # 0: round, and narrow with its ends crossing
        (
            (
                (0.55, 0.02), (0.22, 0.12), (0.08, 0.50), (0.24, 0.90), (0.52, 0.98),
                (0.80, 0.86), (0.92, 0.48), (0.80, 0.12), (0.52, 0.02),
            ),
        ),
        (
            (
                (0.66, 0.06), (0.44, 0.01), (0.24, 0.20), (0.20, 0.60), (0.36, 0.96),
                (0.60, 0.96), (0.78, 0.66), (0.76, 0.24), (0.56, 0.03), (0.44, 0.06),
            ),
        ),
    ),
    (  # 1: a bar, with a flag, with a flag and a foot
        (((0.52, 0.00), (0.50, 0.50), (0.49, 1.00)),),
        (((0.30, 0.24), (0.54, 0.00), (0.54, 0.00), (0.53, 0.50), (0.52, 1.00)),),
        (
            ((0.30, 0.22), (0.52, 0.00), (0.52, 0.00), (0.51, 0.50), (0.50, 0.99)),
            ((0.26, 1.00), (0.50, 0.99), (0.76, 0.98)),
        ),
    ),
    (  # 2: with a flat foot, with a loop at the foot, with a straight neck
        (
            (
                (0.12, 0.26), (0.26, 0.06), (0.52, 0.00), (0.80, 0.12), (0.82, 0.36), (0.58, 0.66),
                (0.10, 0.98), (0.10, 0.98), (0.50, 0.97), (0.92, 0.96),
            ),
        ),
        (
            (
                (0.16, 0.20), (0.38, 0.01), (0.70, 0.06), (0.82, 0.30), (0.62, 0.64), (0.28, 0.94),
                (0.10, 0.94), (0.14, 0.78), (0.34, 0.78), (0.60, 0.94), (0.94, 0.92),
            ),
        ),
        (
            (
                (0.16, 0.16), (0.46, 0.01), (0.78, 0.10), (0.76, 0.38), (0.14, 0.96), (0.14, 0.96),
                (0.90, 1.00),
            ),
        ),
    ),
    (  # 3: round, and with a flat top
        (
            (
                (0.14, 0.14), (0.42, 0.00), (0.76, 0.10), (0.76, 0.34), (0.42, 0.47), (0.42, 0.47),
                (0.80, 0.56), (0.86, 0.82), (0.52, 1.00), (0.10, 0.88),
            ),
        ),
        (
            (
                (0.14, 0.03), (0.46, 0.02), (0.84, 0.00), (0.84, 0.00), (0.44, 0.40), (0.44, 0.40),
                (0.80, 0.50), (0.86, 0.78), (0.56, 0.99), (0.12, 0.90),
            ),
        ),
    ),
    (  # 4: open in two strokes, open with a slanted arm, closed
        (
            ((0.20, 0.02), (0.14, 0.36), (0.12, 0.58), (0.12, 0.58), (0.50, 0.58), (0.92, 0.55)),
            ((0.72, 0.06), (0.70, 0.52), (0.68, 1.00)),
        ),
        (
            ((0.36, 0.00), (0.22, 0.30), (0.08, 0.60), (0.08, 0.60), (0.50, 0.62), (0.94, 0.60)),
            ((0.66, 0.28), (0.62, 0.64), (0.58, 1.00)),
        ),
        (
            (
                (0.66, 1.00), (0.68, 0.50), (0.70, 0.00), (0.70, 0.00), (0.40, 0.34), (0.08, 0.66),
                (0.08, 0.66), (0.50, 0.66), (0.94, 0.65),
            ),
        ),
    ),
    (  # 5: with a bar of its own, and in one stroke
        (
            (
                (0.24, 0.04), (0.22, 0.24), (0.20, 0.44), (0.20, 0.44), (0.50, 0.36), (0.82, 0.50),
                (0.84, 0.80), (0.52, 1.00), (0.12, 0.90),
            ),
            ((0.24, 0.04), (0.54, 0.03), (0.86, 0.01)),
        ),
        (
            (
                (0.86, 0.02), (0.56, 0.02), (0.28, 0.04), (0.28, 0.04), (0.20, 0.42), (0.20, 0.42),
                (0.54, 0.38), (0.82, 0.56), (0.76, 0.88), (0.42, 1.00), (0.10, 0.88),
            ),
        ),
    ),
    (  # 6: bent, and with a straight back
        (
            (
                (0.74, 0.04), (0.42, 0.14), (0.18, 0.46), (0.14, 0.78), (0.40, 1.00), (0.74, 0.90),
                (0.82, 0.66), (0.56, 0.50), (0.28, 0.60), (0.15, 0.76),
            ),
        ),
        (
            (
                (0.58, 0.00), (0.34, 0.34), (0.18, 0.70), (0.28, 0.94), (0.56, 1.00), (0.78, 0.82),
                (0.70, 0.60), (0.44, 0.56), (0.20, 0.74),
            ),
        ),
    ),
    (  # 7: plain, bent, with a bar across
        (((0.10, 0.06), (0.50, 0.04), (0.88, 0.02), (0.88, 0.02), (0.60, 0.50), (0.38, 1.00)),),
        (((0.10, 0.10), (0.40, 0.05), (0.84, 0.03), (0.76, 0.28), (0.54, 0.62), (0.46, 1.00)),),
        (
            ((0.10, 0.06), (0.50, 0.04), (0.86, 0.02), (0.86, 0.02), (0.58, 0.50), (0.36, 1.00)),
            ((0.32, 0.52), (0.56, 0.50), (0.80, 0.48)),
        ),
    ),
    (  # 8: in one stroke, and as two rings
        (
            (
                (0.76, 0.14), (0.48, 0.01), (0.22, 0.16), (0.34, 0.40), (0.66, 0.56), (0.82, 0.80),
                (0.50, 1.00), (0.18, 0.82), (0.34, 0.56), (0.66, 0.38), (0.78, 0.16),
            ),
        ),
        (
            (
                (0.50, 0.46), (0.26, 0.34), (0.28, 0.10), (0.52, 0.01), (0.76, 0.12), (0.74, 0.36),
                (0.50, 0.46),
            ),
            (
                (0.50, 0.46), (0.20, 0.60), (0.18, 0.88), (0.50, 1.00), (0.82, 0.88), (0.80, 0.60),
                (0.50, 0.46),
            ),
        ),
    ),
    (  # 9: with a straight tail, and with a bent one
        (
            (
                (0.80, 0.18), (0.54, 0.01), (0.24, 0.12), (0.20, 0.38), (0.48, 0.50), (0.76, 0.36),
                (0.82, 0.12), (0.82, 0.12), (0.78, 0.56), (0.72, 1.00),
            ),
        ),
        (
            (
                (0.80, 0.20), (0.56, 0.00), (0.24, 0.14), (0.22, 0.40), (0.50, 0.50), (0.78, 0.32),
                (0.82, 0.16), (0.82, 0.50), (0.70, 0.86), (0.44, 1.00), (0.20, 0.92),
            ),
        ),
    ),
)
# fmt: on

_INKS: Final = (  # RGB of pens and pencils
    (20, 20, 24), (24, 34, 96), (36, 60, 150), (112, 24, 30), (24, 82, 52), (78, 78, 82),
)  # fmt: skip
_SUPERSAMPLING: Final = 3  # the pen is drawn three times as large and averaged: smooth edges
_SMALLEST_PAGE: Final = 80  # pixels; room for the smallest digit, 60, and the pen


def _spline(points: _Points, per_segment: int = 24) -> _Floats:
    """Return a smooth curve (uniform Catmull-Rom spline) through control points: (n, 2)."""
    controls = np.array([points[0], *points, points[-1]], np.float64)
    t = np.linspace(0.0, 1.0, per_segment, endpoint=False)[:, None]
    curves = []
    for a, b, c, d in zip(controls, controls[1:], controls[2:], controls[3:], strict=False):
        curves.append(
            0.5
            * (
                2 * b
                + (c - a) * t
                + (2 * a - 5 * b + 4 * c - d) * t**2
                + (3 * b - a - 3 * c + d) * t**3
            )
        )
    return np.concatenate([*curves, controls[-1:]])


def _hand(rng: np.random.Generator, strokes: tuple[_Points, ...]) -> list[_Floats]:
    """Return the strokes as one hand writes them once, with jitter, proportions, slant and turn.
    The result spans 1 vertically or horizontally, from (0, 0)."""
    jitter = 0.022
    shift = {p: rng.normal(0.0, jitter, 2) for stroke in strokes for p in stroke}
    curves = [
        _spline(tuple((x + shift[x, y][0], y + shift[x, y][1]) for x, y in stroke))
        for stroke in strokes
    ]
    turn = rng.normal(0.0, 0.08)
    slant = rng.normal(0.12, 0.14)  # most people lean to the right
    narrow = rng.uniform(0.55, 0.9)
    shape = np.array([[narrow, 0.0], [-slant, 1.0]]) @ np.array(
        [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    )
    curves = [curve @ shape for curve in curves]
    every = np.concatenate(curves)
    low, span = every.min(axis=0), np.ptp(every, axis=0).max()
    return [(curve - low) / span for curve in curves]


def _coverage(
    rng: np.random.Generator, curves: list[_Floats], height: int, width: int, pen: float
) -> _Floats:
    """Return the share of each pixel that the pen covers, 0 to 1: (height, width). Curves are in
    pixels (x, y)."""
    factor = _SUPERSAMPLING
    mask = Image.new("L", (width * factor, height * factor))
    draw = ImageDraw.Draw(mask)
    for curve in curves:
        steps = len(curve)
        knots = rng.uniform(0.85, 1.15, 5)  # pressure along the stroke
        pressure = np.interp(np.linspace(0, 4, steps), np.arange(5), knots)
        for (x0, y0), (x1, y1), radius in zip(
            curve[:-1] * factor, curve[1:] * factor, pressure * pen * factor / 2, strict=False
        ):
            draw.line((x0, y0, x1, y1), fill=255, width=max(1, round(2 * radius)))
            for x, y in ((x0, y0), (x1, y1)):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    small = mask.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, np.float64) / 255


def _paper(rng: np.random.Generator, height: int, width: int) -> _Floats:
    """Return whitish paper in uneven light, without grain: (height, width, 3), 0 to 255."""
    tone = rng.uniform(205, 250) + rng.uniform(-6, 6, 3)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle, fall = rng.uniform(0, 2 * np.pi), rng.uniform(0, 16)
    light = fall * (x * np.cos(angle) + y * np.sin(angle)) - rng.uniform(0, 10) * (x**2 + y**2)
    return np.asarray(tone + light[:, :, None], np.float64)


def draw_digit(
    rng: np.random.Generator, digit: int, height: int = 300, width: int = 400
) -> npt.NDArray[np.uint8]:
    """Draw one digit on a page: uint8 (height, width, 3), RGB.

    The digit is 60 to 200 pixels long (less on a small page) and is placed anywhere on the page;
    the pen is 3 to 16 pixels wide, at most a seventh of the digit's length so that rings stay open;
    the ink is dark, the paper whitish, unevenly lit and grainy. The same state of `rng` gives the
    same image.

    Raises ValueError for a number that is not a digit, and for a page that is too small.
    """
    if not 0 <= digit <= 9:
        raise ValueError(f"digit is {digit}; expected 0 to 9.")
    if min(height, width) < _SMALLEST_PAGE:
        raise ValueError(
            f"the page has {height} x {width} pixels; expected at least {_SMALLEST_PAGE} on each "
            "side. Draw on a larger page and reduce it."
        )
    allographs = _ALLOGRAPHS[digit]
    curves = _hand(rng, allographs[int(rng.integers(len(allographs)))])
    length = rng.uniform(60, max(60.0, min(200.0, 0.75 * min(height, width))))
    pen = rng.uniform(3, min(16.0, length / 7))
    extent = np.concatenate(curves).max(axis=0) * length
    free = np.array([width, height]) - extent - 2 * pen
    corner = pen + rng.uniform(0, 1, 2) * np.maximum(free, 0)
    covered = _coverage(rng, [c * length + corner for c in curves], height, width, pen)
    ink = np.array(_INKS[int(rng.integers(len(_INKS)))], np.float64)
    covered *= rng.uniform(0.85, 1.0)
    page = _paper(rng, height, width)
    page += (ink - page) * covered[:, :, None]
    page += rng.normal(0.0, rng.uniform(1, 6), (height, width, 1))
    return np.clip(np.rint(page), 0, 255).astype(np.uint8)
