"""Curves, colors and the canvas that faces are drawn with: Pillow and numpy only."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pipeline.datasets.drawn.face_attributes import RGB

HEIGHT, WIDTH = 218, 178  # of CelebA's aligned images, pixels
SUPERSAMPLING = 2  # Pillow draws polygons without antialiasing
Points = npt.NDArray[np.float64]  # (n, 2): x to the right, y down


def mix(a: RGB, b: RGB, t: float) -> RGB:
    """`a` at t = 0, `b` at t = 1."""
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


def luma(color: RGB) -> float:
    """Return the brightness, 0 to 255 (BT.601)."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


def darker(color: RGB, by: float) -> RGB:
    """Mix with black; ``by`` is black's share."""
    return mix(color, (0, 0, 0), by)


def lighter(color: RGB, by: float) -> RGB:
    """Mix with white; ``by`` is white's share."""
    return mix(color, (255, 255, 255), by)


def stack(x: npt.ArrayLike, y: npt.ArrayLike) -> Points:
    """Points from their coordinates; a scalar applies to all."""
    points = np.empty((max(np.size(x), np.size(y)), 2))  # a third of the time of np.stack
    points[:, 0] = x
    points[:, 1] = y
    return points


@functools.cache
def steps(start: float, stop: float, n: int) -> Points:
    """np.linspace for constant arguments, read-only because it is shared."""
    values = np.linspace(start, stop, n)
    values.flags.writeable = False
    return values


@functools.cache
def _unit_oval(power: float, n: int) -> Points:
    t = np.linspace(0, math.tau, n, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    e = 2.0 / power
    points = stack(np.sign(c) * np.abs(c) ** e, np.sign(s) * np.abs(s) ** e)
    points.flags.writeable = False
    return points


def oval(x: float, y: float, rx: float, ry: float, power: float = 2.0, n: int = 28) -> Points:
    """A superellipse: power 2 is an ellipse, larger ones grow towards a rectangle."""
    unit = _unit_oval(power, n)
    return stack(x + rx * unit[:, 0], y + ry * unit[:, 1])


def spline(points: Sequence[tuple[float, float]], per_segment: int = 6) -> Points:
    """A closed Catmull-Rom curve through the points."""
    p1 = np.asarray(points, float)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = np.linspace(0, 1, per_segment, endpoint=False)[None, :, None]
    a, b, c, d = (p[:, None, :] for p in (p0, p1, p2, p3))
    curve = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    flat: Points = curve.reshape(-1, 2)
    return flat


def mirror(points: Points) -> Points:
    """Reflect points left to right."""
    return stack(-points[:, 0], points[:, 1])


class Canvas:
    """Paints face units (origin between the eyes, about one pixel each) onto a picture."""

    def __init__(
        self, image: Image.Image, angle: float, scale: float, shift: tuple[float, float]
    ) -> None:
        """``angle`` in radians, ``shift`` in pixels of a 218x178 image."""
        self.image = image
        self._opaque = ImageDraw.Draw(image)  # faster than blending with alpha 255
        self._blend = ImageDraw.Draw(image, "RGBA")
        pixel = min(image.width / WIDTH, image.height / HEIGHT)
        self._scale = scale * pixel
        # The eyes are higher than CelebA's (y = 112), so that a center crop keeps the collar.
        self._origin = np.array(
            [image.width / 2 + shift[0] * pixel,
             image.height / 2 + (shift[1] - 10) * pixel]
        )  # fmt: skip
        self._head = self._rotation(angle)
        self._body = self._rotation(angle * 0.3)  # shoulders follow a tilted head a little
        self.turn = self._head

    def _rotation(self, angle: float) -> Points:
        c, s = math.cos(angle) * self._scale, math.sin(angle) * self._scale
        return np.array([[c, s], [-s, c]])

    def _pen(self, alpha: float) -> ImageDraw.ImageDraw:
        return self._opaque if alpha == 1 else self._blend

    def body(self) -> None:
        """Turn what is drawn next with the shoulders."""
        self.turn = self._body

    def head(self) -> None:
        """Turn what is drawn next with the head."""
        self.turn = self._head

    def fill(self, points: Points, color: RGB, alpha: float = 1.0) -> None:
        """Fill the polygon."""
        placed = points @ self.turn + self._origin
        self._pen(alpha).polygon(placed.ravel().tolist(), fill=ink(color, alpha))

    def line(self, points: Points, width: float, color: RGB, alpha: float = 1.0) -> None:
        """Draw the open line, ``width`` in face units."""
        placed = points @ self.turn + self._origin
        pen = max(1, round(width * self._scale))
        self._pen(alpha).line(placed.ravel().tolist(), ink(color, alpha), pen, joint="curve")

    def soft(self, x: float, y: float, r: float, color: RGB, alpha: float, ry: float = 0) -> None:
        """A spot that fades out: four ovals on top of each other."""
        for k in (1.0, 0.8, 0.6, 0.4):
            self.fill(oval(x, y, r * k, (ry or r) * k, n=20), color, alpha / 3)


def ink(color: RGB, alpha: float) -> tuple[int, int, int, int]:
    """Return Pillow's RGBA bytes."""
    r, g, b = color  # 0 .. 255; a tone may exceed them a little
    return _byte(r), _byte(g), _byte(b), round(255 * min(1.0, alpha))


def _byte(value: float) -> int:
    return min(255, max(0, round(value)))


def ribbon(x: Points, top: Points, bottom: Points) -> Points:
    """The area between two curves over the same x."""
    return np.concatenate([stack(x, top), stack(x[::-1], bottom[::-1])])
