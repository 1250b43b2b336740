"""Hair: behind the head, in front of it, and its strands."""

from __future__ import annotations

import math

import numpy as np

from pipeline.datasets.drawn.canvas import Canvas, Points, darker, lighter, ribbon, stack, steps
from pipeline.datasets.drawn.person import Face


def _hair_half_width(face: Face, y: Points, side: int) -> Points:
    """Half width of the hair's outline at heights y: the skull's arc, then falling locks."""
    person, shape = face.person, face.hair_shape
    volume = person.hair_volume if shape else 5.0
    full = person.half_width + volume
    arc = np.sqrt(np.clip(1 - (np.clip(-8 - y, 0, None) / (58 + volume)) ** 2, 0, 1))
    fall = np.clip(y + 8, 0, None)
    if shape != "Wavy_Hair":
        return full * arc + 0.04 * fall
    ramp = np.clip((y + 48) / 40, 0, 1)
    wave = np.sin(math.tau * y / person.wave + face.photo.phase + side)
    return full * arc + 0.06 * fall + ramp * (3.5 + 6.5 * wave)


def _hair_bottom(face: Face) -> float:
    return face.person.hair_length if face.hair_shape else -2.0


def _hair_top(face: Face) -> float:
    return -66.0 - (face.person.hair_volume if face.hair_shape else 5.0)


def paint_back_hair(canvas: Canvas, face: Face) -> None:
    """Draw the hair behind the head."""
    y = np.linspace(_hair_top(face), _hair_bottom(face), 44)
    right, left = _hair_half_width(face, y, 1), -_hair_half_width(face, y, -1)
    canvas.fill(ribbon(y, left, right)[:, ::-1], darker(face.hair, 0.28))


def paint_front_hair(canvas: Canvas, face: Face) -> None:
    """Draw the locks and, without a hat, the hair over the forehead."""
    if face.hair_shape:
        for side in (-1, 1):
            _paint_lock(canvas, face, side)
    if face.has("Wearing_Hat"):
        return
    y = np.linspace(_hair_top(face), -10, 26)
    right, left = _hair_half_width(face, y, 1), -_hair_half_width(face, y, -1)
    line = _hairline(face)
    outer = np.concatenate([stack(left, y)[::-1], stack(right, y)])
    canvas.fill(np.concatenate([outer, line[::-1]]), face.hair)
    _paint_strands_on_top(canvas, face, line)


def _hairline(face: Face) -> Points:
    """The lower edge of the hair over the forehead, from left to right."""
    person, photo = face.person, face.photo
    edge = person.half_width - 1
    t = steps(-1, 1, 19)
    if face.has("Bangs"):
        fringe = np.where(np.arange(19) % 2 == 0, 1.8, -0.6)  # tips
        y = -25.5 - 2.5 * photo.bangs + 2.5 * photo.bangs_slant * t + fringe
        y = np.where(np.abs(t) > 0.93, -12, y)
    else:
        peak = (t - 0.45 * person.parting) / 1.45
        y = person.hairline + (-12 - person.hairline) * np.abs(peak) ** 3.2
    return stack(edge * t, y)


def _paint_lock(canvas: Canvas, face: Face, side: int) -> None:
    """Draw the hair that falls next to the cheek, over the ear."""
    person = face.person
    y = np.linspace(-40, _hair_bottom(face), 30)
    outer = _hair_half_width(face, y, side)
    skull = np.sqrt(np.clip(1 - (np.clip(-8 - y, 0, None) / 62) ** 2, 0, 1))
    inner = (person.half_width - 4) * skull - 0.02 * np.clip(y, 0, None)
    if face.hair_shape == "Wavy_Hair":
        inner = inner + 0.35 * (outer - outer.mean())
    inner = np.minimum(inner, outer - 3)
    canvas.fill(stack(*_swap(ribbon(y, side * inner, side * outer))), face.hair)
    for k in (0.3, 0.55, 0.8):
        tone = lighter(face.hair, 0.22) if k == 0.55 else darker(face.hair, 0.3)
        strand = side * (inner + (outer - inner) * k)
        canvas.line(stack(strand, y), 1.4, tone, 0.75)


def _swap(points: Points) -> tuple[Points, Points]:
    return points[:, 1], points[:, 0]


def _paint_strands_on_top(canvas: Canvas, face: Face, line: Points) -> None:
    """Draw strands from the parting to the hairline, which show how the hair is combed."""
    top = np.array([face.person.parting * 14, _hair_top(face) + 5])
    t = steps(0, 1, 7)[:, None]
    for index, end in enumerate(line[1:-1:2]):
        bend = np.array([(end[0] - top[0]) * 0.35, -7.0])
        strand = top + (end - top) * t + bend * (4 * t * (1 - t)) * 0.5
        if face.hair_shape == "Wavy_Hair":
            strand[:, 0] += 2.4 * np.sin(9 * t[:, 0] + face.photo.phase + index)
        tone = lighter(face.hair, 0.2) if index % 3 == 1 else darker(face.hair, 0.28)
        canvas.line(strand, 1.3, tone, 0.65)
