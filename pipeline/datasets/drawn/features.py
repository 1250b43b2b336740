"""Head, body, eyes, nose, mouth, beard, and what is worn on them."""

from __future__ import annotations

import math

import numpy as np

from pipeline.datasets.drawn.canvas import (
    Canvas,
    Points,
    darker,
    lighter,
    luma,
    mirror,
    mix,
    oval,
    ribbon,
    spline,
    stack,
    steps,
)
from pipeline.datasets.drawn.face_attributes import RGB
from pipeline.datasets.drawn.person import (
    EYESHADOWS,
    FRAMES,
    IRISES,
    LIPSTICKS,
    METALS,
    Face,
    Person,
)


def paint_body(canvas: Canvas, face: Face) -> None:
    """Draw neck and shoulders, with a collar or a necktie."""
    coat, shirt, _ = face.photo.cloth
    neck = darker(face.skin, 0.10)
    canvas.fill(stack([-17, 17, 21, -21], [30, 30, 100, 100]), neck)
    chin = face.person.chin
    canvas.fill(oval(face.turn * 0.6, chin, 20, 11), darker(neck, 0.35), 0.5)  # shadow
    shoulders = spline(
        [(-21, 82), (-58, 94), (-92, 118), (-104, 190), (104, 190), (92, 118), (58, 94), (21, 82),
         (0, 90)]
    )  # fmt: skip
    canvas.fill(shoulders, coat)
    if face.has("Wearing_Necktie"):
        _paint_tie(canvas, face)
    elif face.photo.collar == 1:  # an open shirt collar, so that a collar does not imply a tie
        canvas.fill(stack([-19, 19, 0], [80, 80, 112]), neck)
        _paint_collar(canvas, shirt)
    elif face.photo.collar == 2:
        canvas.fill(oval(0, 80, 23, 17), neck)
    canvas.line(stack([-62, -66], [112, 160]), 1.5, darker(coat, 0.35))
    canvas.line(stack([62, 66], [112, 160]), 1.5, darker(coat, 0.35))


def _paint_collar(canvas: Canvas, shirt: RGB) -> None:
    for side in (-1, 1):
        canvas.fill(stack(np.array([17, 24, 19, 3]) * side, [74, 84, 104, 88]), shirt)
        canvas.line(stack(np.array([3, 19, 24]) * side, [88, 104, 84]), 1.2, darker(shirt, 0.3))


def _paint_tie(canvas: Canvas, face: Face) -> None:
    _, shirt, tie = face.photo.cloth
    if abs(luma(tie) - luma(shirt)) < 90:
        tie = darker(tie, 0.55)
    canvas.fill(stack([-24, 24, 34, -34], [80, 80, 170, 170]), shirt)
    canvas.fill(stack([-6, 6, 13, -13], [94, 94, 170, 170]), tie)
    canvas.fill(stack([-9, 9, 6, -6], [80, 80, 96, 96]), darker(tie, 0.2))
    _paint_collar(canvas, shirt)


def _head_outline(person: Person) -> Points:
    t = np.linspace(0, math.tau, 48, endpoint=False)
    up = np.sin(t)
    low = np.clip(-up, 0, 1)  # 0 above the cheeks, 1 at the chin
    x = person.half_width * np.cos(t) * (1 - person.taper * low**1.5)
    return stack(x, np.where(up > 0, -2 - 62 * up, -2 + (person.chin + 2) * low))


def paint_head(canvas: Canvas, face: Face) -> None:
    """Draw ears and the shaded head."""
    person, skin = face.person, face.skin
    for side in (-1, 1):
        ear = side * (person.half_width + 1)
        canvas.fill(oval(ear, 5, 6 * person.ear, 11 * person.ear), darker(skin, 0.07))
        canvas.fill(oval(ear, 5, 3 * person.ear, 7 * person.ear), darker(skin, 0.25))
    outline = _head_outline(person)
    canvas.fill(outline, skin)
    away = -math.copysign(1, face.photo.key_light)
    depth = abs(face.photo.key_light)
    for k in (0.10, 0.20, 0.32):  # the side away from the light, three steps deep
        x = outline[:, 0]
        crescent = stack(np.where(x * away > 0, x, -x * (1 - 2 * k)), outline[:, 1])
        canvas.fill(crescent, darker(skin, 0.6), 0.13 * depth)
    if face.has("Bald"):
        canvas.soft(-away * 14, -46, 13, (255, 255, 255), 0.35, 7)


def paint_makeup(canvas: Canvas, face: Face) -> None:
    """Draw rosy cheeks and eye shadow, where the face has them."""
    x = face.turn
    if face.has("Rosy_Cheeks"):
        rose = (232, 40, 66) if luma(face.skin) > 120 else (214, 34, 58)
        for side in (-1, 1):
            canvas.soft(x + side * 25, 21, 11, rose, 0.62, 9)
    if face.has("Heavy_Makeup"):
        color = EYESHADOWS[face.photo.eyeshadow]
        for side in (-1, 1):
            eye = x + side * face.person.eye_x
            canvas.fill(oval(eye + side * 1.5, -4.5, face.person.eye_width + 4.5, 8.5), color, 0.85)


def paint_nose(canvas: Canvas, face: Face) -> None:
    """Draw the nose with its shaded ridge."""
    size, shade = face.person.nose, darker(face.skin, 0.32)
    x = face.turn * 1.7
    side = math.copysign(1, face.photo.key_light)
    ridge = stack([face.turn - side * 3, x - side * 5 * size, x - side * 7 * size], [2, 16, 22])
    canvas.line(ridge, 1.6, shade, 0.7)
    canvas.fill(oval(x, 22, 7.5 * size, 4), darker(face.skin, 0.14))
    for nostril in (-1, 1):
        canvas.fill(oval(x + nostril * 4 * size, 24, 2.1 * size, 1.4, n=12), darker(shade, 0.3))


def paint_mouth(canvas: Canvas, face: Face) -> None:
    """Upper and lower lip along one curve; an open mouth shows teeth and a dark gap."""
    person, photo = face.person, face.photo
    smiling, is_open = face.has("Smiling"), face.has("Mouth_Slightly_Open")
    t = steps(-1, 1, 17)
    bulge = np.clip(1 - t**2, 0, 1)
    width = person.mouth_width * (1.16 if smiling else 0.92)
    lift = 8.5 + 3.5 * photo.smile if smiling else -2.5 + 2.5 * photo.smile
    gap = (8.0 + 5.0 * photo.opening if is_open else 0.0) * bulge
    x = face.turn * 1.2 + width * t
    middle = person.mouth_y + lift * 0.35 - lift * t**2
    upper, lower = middle - gap * 0.35, middle + gap * 0.65
    bow = person.lip * bulge**0.6 * (1 - 0.3 * np.exp(-((t / 0.22) ** 2)))
    color = mix(face.skin, (158, 66, 66), 0.42)
    if face.has("Wearing_Lipstick"):
        color = LIPSTICKS[photo.lipstick]
    if is_open:
        canvas.fill(ribbon(x, upper, lower), (62, 14, 20))
        canvas.fill(ribbon(x, upper, upper + gap * 0.42), (246, 244, 238))
    canvas.fill(ribbon(x, upper - bow, upper), color)
    canvas.fill(ribbon(x, lower, lower + person.lip * 1.15 * bulge**0.6), lighter(color, 0.08))
    if not is_open:
        canvas.line(stack(x, middle), 1.8, darker(color, 0.65))
    if smiling:
        _paint_smile_lines(canvas, face, width)


def _paint_smile_lines(canvas: Canvas, face: Face, width: float) -> None:
    t = steps(0, 1, 6)
    for side in (-1, 1):
        x = face.turn * 1.2 + side * (12 + (width - 5) * np.sin(t * 1.5) * 0.72)
        canvas.line(stack(x, 22 + 15 * t), 1.4, darker(face.skin, 0.35), 0.8)


def paint_beard(canvas: Canvas, face: Face) -> None:
    """Draw mustache and goatee, where the face has them."""
    person, more = face.person, face.photo.beard
    x = face.turn * 1.2
    if face.has("Mustache"):
        y = person.mouth_y - 5.5
        half = spline(
            [(0, y - 4.5), (9, y - 4), (17 + 4 * more, y + 2 + 2 * more), (10, y + 2.2), (0, y + 1)]
        )
        for points in (half, mirror(half)):
            canvas.fill(points + np.array([x, 0]), face.natural)
    if face.has("Goatee"):
        top, bottom = person.mouth_y + 11.5, person.chin + 3 + 8 * more
        wide = 9 + 3 * more
        tuft = spline(
            [(-wide * 0.6, top), (wide * 0.6, top), (wide, (top + bottom) / 2),
             (wide * 0.5, bottom), (-wide * 0.5, bottom), (-wide, (top + bottom) / 2)]
        )  # fmt: skip
        canvas.fill(tuft + np.array([face.turn, 0]), face.natural)


def paint_eye(canvas: Canvas, face: Face, side: int) -> None:
    """Draw the right (``side = 1``) or left (-1) eye."""
    person, photo = face.person, face.photo
    # The eye on the side to which the head turns is seen more from its side.
    width = person.eye_width * (1 - 0.10 * max(0.0, side * photo.yaw))
    height = person.eye_opening * 0.36 if face.has("Narrow_Eyes") else person.eye_opening
    x = face.turn + side * person.eye_x
    t = steps(-1, 1, 13)
    lid = height * (1 - t**2)
    canvas.fill(ribbon(x + width * t, -lid, lid * 0.85), (246, 246, 244))
    iris = oval(x + photo.gaze[0], photo.gaze[1] * height / 6, 5, 5, n=18)
    iris[:, 1] = np.clip(iris[:, 1], -height * 0.92, height * 0.78)
    canvas.fill(iris, IRISES[person.iris])
    pupil = (iris - iris.mean(0)) * 0.5 + iris.mean(0)
    canvas.fill(pupil, (12, 10, 12))
    canvas.fill(oval(x + photo.gaze[0] + 1.5, -height * 0.35, 1.2, 1.2, n=8), (255, 255, 255))
    lash = 3.0 if face.has("Heavy_Makeup") else 1.8
    canvas.line(stack(x + width * t, -lid), lash, (32, 22, 22))
    canvas.line(stack(x + width * t, lid * 0.85), 1.0, darker(face.skin, 0.45))


def paint_brow(canvas: Canvas, face: Face, side: int) -> None:
    """Draw the right (``side = 1``) or left (-1) eyebrow."""
    person, photo = face.person, face.photo
    bushy = face.has("Bushy_Eyebrows")
    thick = 7.6 + 2.0 * photo.brow if bushy else 2.0 + 1.0 * photo.brow
    t = steps(-1, 1, 9)
    half = person.eye_width + (4.5 if bushy else 2.5)
    x = face.turn + side * (person.eye_x + 0.5 + half * t)
    y = person.brow_y - (1 - t**2) * 2.5 + person.brow_tilt * t
    body = thick / 2 * np.clip(1.15 - np.abs(t + 0.25) ** 3, 0.2, 1)
    canvas.fill(ribbon(x, y - body, y + body), face.natural)


def paint_glasses(canvas: Canvas, face: Face) -> None:
    """Draw lenses, bridge and temples."""
    photo, person = face.photo, face.person
    color, pen = FRAMES[photo.frame], photo.frame_width
    if abs(luma(color) - luma(face.skin)) < 45:
        color = darker(color, 0.7)
    for side in (-1, 1):
        x = face.turn + side * (person.eye_x + 0.5)
        lens = oval(x, 1.5, 16.2, 12.5, power=photo.frame_shape, n=32)
        canvas.fill(lens, (235, 245, 255), 0.10)
        canvas.line(np.concatenate([lens, lens[:2]]), pen, color)
        temple = stack([x + side * 16, side * (person.half_width + 2)], [-2, -3])
        canvas.line(temple, pen, color)
    canvas.line(stack([face.turn - 5, face.turn, face.turn + 5], [0, -2.5, 0]), pen, color)


def paint_earrings(canvas: Canvas, face: Face) -> None:
    """Draw two discs or hoops."""
    photo = face.photo
    color, size = METALS[photo.metal], 5.2 + 1.8 * photo.earring
    for side in (-1, 1):
        x, y = side * (face.person.half_width + 3), 18 + size
        canvas.fill(oval(x, y, size + 1.3, size + 1.3, n=20), (40, 30, 28))
        canvas.fill(oval(x, y, size, size, n=20), color)
        if photo.earring > 0.5:  # a hoop, else a disc
            canvas.fill(oval(x, y, size * 0.45, size * 0.45, n=14), (40, 30, 28))
