"""A beanie, a cap and a hat with a brim."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pipeline.datasets.drawn.canvas import (
    Canvas,
    Points,
    darker,
    oval,
    ribbon,
    spline,
    stack,
    steps,
)
from pipeline.datasets.drawn.person import Face


def _crown(face: Face, base: float, top: float, power: float) -> Points:
    """The part of a hat over the skull: a half superellipse above y = base."""
    t = np.linspace(math.pi, 0, 24)
    c, e = np.cos(t), 2.0 / power
    wide = face.person.half_width + (face.person.hair_volume if face.hair_shape else 4) + 2
    x = wide * np.sign(c) * np.abs(c) ** e
    return stack(x, base - (base - top) * np.abs(np.sin(t)) ** e)


def _band(points: Points, base: float, depth: float) -> Points:
    edge = float(points[:, 0].max())
    t = steps(-1, 1, 13)
    sag = 2.5 * (1 - t**2)
    return ribbon(edge * t, base - depth + sag, base + sag)


def _paint_beanie(canvas: Canvas, face: Face) -> None:
    wool, trim = face.photo.hat_tone
    crown = _crown(face, -30, -82, 2.2)
    canvas.fill(crown, wool)
    for x in (-26.0, -9.0, 9.0, 26.0):
        canvas.line(stack([x * 0.7, x], [-76, -36]), 1.5, darker(wool, 0.3))
    canvas.fill(_band(crown, -28, 14), trim)
    canvas.fill(oval(0, -84, 8, 7), trim)


def _paint_cap(canvas: Canvas, face: Face) -> None:
    cloth, trim = face.photo.hat_tone
    crown = _crown(face, -32, -78, 2.4)
    canvas.fill(crown, cloth)
    canvas.fill(oval(0, -54, 11, 9), trim)  # a badge
    edge = float(crown[:, 0].max())
    visor = spline([(-edge - 3, -33), (0, -40), (edge + 3, -33), (edge * 0.6, -26), (0, -24),
                     (-edge * 0.6, -26)])  # fmt: skip
    canvas.fill(visor, darker(trim, 0.35))


def _paint_brimmed(canvas: Canvas, face: Face) -> None:
    felt, trim = face.photo.hat_tone
    crown = _crown(face, -36, -80, 3.4) * np.array([0.9, 1.0])
    canvas.fill(crown, felt)
    canvas.fill(_band(crown, -37, 10), trim)
    edge = float(crown[:, 0].max())
    canvas.fill(oval(0, -34, edge + 24, 7.5), darker(felt, 0.18))


PAINT_HAT: tuple[Callable[[Canvas, Face], None], ...] = (
    _paint_beanie, _paint_cap, _paint_brimmed,
)  # fmt: skip
