"""One cartoon face from a person, a day's photograph and the attributes that must be seen. Knows
nothing of files, and nothing of how real faces look. Pillow and numpy only."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from pipeline.datasets.drawn.face_attributes import DYED, HAIR_COLOURS, HAIR_SHAPES, RGB, check

HEIGHT, WIDTH = 218, 178  # of CelebA's aligned images, pixels
SUPERSAMPLING = 2  # Pillow draws polygons without antialiasing

Points = npt.NDArray[np.float64]  # (n, 2): x to the right, y down
Pixels = npt.NDArray[np.uint8]  # (height, width, 3)


# --- What varies without being an attribute -----------------------------------------------------

_SKIN_RAMP: Points = np.array(
    [(226, 176, 138), (206, 150, 110), (178, 122, 84), (146, 96, 66), (112, 74, 54)], float
)  # light to dark; the lightest is still well apart from _PALE
_PALE: RGB = (248, 232, 224)
_IRISES: tuple[RGB, ...] = ((66, 42, 26), (96, 66, 38), (52, 98, 150), (70, 122, 84), (88, 96, 104))
_LIPSTICKS: tuple[RGB, ...] = ((196, 18, 38), (214, 28, 112), (146, 10, 62), (226, 52, 40))
_SHADOWS: tuple[RGB, ...] = ((48, 88, 204), (136, 52, 186), (24, 142, 126), (188, 36, 132))
_METALS: tuple[RGB, ...] = ((240, 200, 70), (232, 236, 242), (214, 40, 60), (40, 170, 190))
_FRAMES: tuple[RGB, ...] = ((24, 22, 24), (78, 40, 24), (140, 24, 34), (30, 48, 104), (70, 72, 78))


_LENSES = (2.0, 3.0, 5.0)  # powers of their superellipse: round, soft, square


@dataclass(frozen=True)
class Person:
    """What a person keeps from picture to picture besides labels. Lengths in face units."""

    skin: float  # 0 light .. 1 dark
    undertone: float
    half_width: float  # of the head
    chin: float  # y of its lowest point
    taper: float  # 0 square jaw .. 0.4 pointed
    eye_x: float
    eye_width: float
    eye_opening: float
    iris: int
    brow_y: float
    brow_tilt: float
    nose: float
    mouth_y: float
    mouth_width: float
    lip: float  # thickness
    ear: float
    hair_tone: float
    dye: int
    natural: int  # colour of brows and beard where no hair is seen
    hair_length: float  # y of the tips
    hair_volume: float
    hairline: float
    parting: float
    wave: float  # wavelength


def sample_person(rng: np.random.Generator) -> Person:
    """What one new person looks like whatever the attributes: skin, shape of face, eyes."""
    u = rng.uniform
    return Person(
        skin=u(0, 1), undertone=u(-1, 1),
        half_width=u(39, 46), chin=u(58, 67), taper=u(0.05, 0.36),
        eye_x=u(18, 21), eye_width=u(8.5, 10.5), eye_opening=u(5.8, 7.4),
        iris=int(rng.integers(len(_IRISES))),
        brow_y=u(-19.5, -17), brow_tilt=u(-2.5, 2.5), nose=u(0.75, 1.3),
        mouth_y=u(37, 40), mouth_width=u(15, 19), lip=u(3.4, 5.2), ear=u(0.8, 1.2),
        hair_tone=u(-1, 1), dye=int(rng.integers(len(DYED))),
        natural=int(rng.integers(len(HAIR_COLOURS))),
        hair_length=u(42, 88), hair_volume=u(8, 13), hairline=u(-47, -40), parting=u(-1, 1),
        wave=u(21, 29),
    )  # fmt: skip


@dataclass(frozen=True)
class _Photo:
    """What changes from picture to picture besides labels. Lengths in face units."""

    angle: float  # radians
    scale: float
    shift: tuple[float, float]  # pixels of the 178x218 image
    yaw: float  # -1 .. 1: how far the features move sideways
    gaze: tuple[float, float]
    smile: float  # each 0 .. 1: strength within what the attribute says
    opening: float
    bangs: float
    bangs_slant: float
    brow: float
    phase: float  # of the waves of the hair
    hat: int
    hat_tone: tuple[RGB, RGB]
    frame: int
    frame_shape: float
    frame_width: float
    lipstick: int
    eyeshadow: int
    metal: int
    earring: float
    beard: float
    collar: int
    cloth: tuple[RGB, RGB, RGB]  # jacket or jumper, shirt, tie
    key_light: float  # -1 from the left .. 1 from the right


def _sample_colour(rng: np.random.Generator) -> RGB:
    r, g, b = (float(v) for v in rng.uniform(25, 235, 3))
    grey = (r + g + b) / 3
    return _mix((r, g, b), (grey, grey, grey), rng.uniform(0, 0.6))


def _sample_photo(rng: np.random.Generator) -> _Photo:
    u = rng.uniform
    shirt = 255 - rng.uniform(0, 60) * rng.random(3)  # light, as shirts under a tie mostly are
    return _Photo(
        angle=float(np.clip(rng.normal(0, 0.09), -0.22, 0.22)), scale=u(0.84, 1.0),
        shift=(u(-9, 9), u(-7, 6)), yaw=u(-1, 1), gaze=(u(-2.2, 2.2), u(-0.8, 0.8)),
        smile=u(0, 1), opening=u(0, 1), bangs=u(0, 1), bangs_slant=u(-1, 1), brow=u(0, 1),
        phase=u(0, math.tau),
        hat=int(rng.integers(3)), hat_tone=(_sample_colour(rng), _sample_colour(rng)),
        frame=int(rng.integers(len(_FRAMES))), frame_shape=_LENSES[int(rng.integers(3))],
        frame_width=u(2.4, 3.8),
        lipstick=int(rng.integers(len(_LIPSTICKS))), eyeshadow=int(rng.integers(len(_SHADOWS))),
        metal=int(rng.integers(len(_METALS))), earring=u(0, 1), beard=u(0, 1),
        collar=int(rng.integers(3)),
        cloth=(
            _sample_colour(rng),
            (float(shirt[0]), float(shirt[1]), float(shirt[2])),
            _sample_colour(rng),
        ),
        key_light=u(-1, 1),
    )  # fmt: skip


# --- Geometry and paint -------------------------------------------------------------------------


def _mix(a: RGB, b: RGB, t: float) -> RGB:
    """`a` at t = 0, `b` at t = 1."""
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


def _luma(colour: RGB) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _darker(colour: RGB, by: float) -> RGB:
    return _mix(colour, (0, 0, 0), by)


def _lighter(colour: RGB, by: float) -> RGB:
    return _mix(colour, (255, 255, 255), by)


def _stack(x: npt.ArrayLike, y: npt.ArrayLike) -> Points:
    """Points from their coordinates; a scalar stands for all."""
    points = np.empty((max(np.size(x), np.size(y)), 2))  # a third of the time of np.stack
    points[:, 0] = x
    points[:, 1] = y
    return points


@functools.cache
def _steps(start: float, stop: float, n: int) -> Points:
    """np.linspace for constant arguments, read-only because it is shared."""
    values = np.linspace(start, stop, n)
    values.flags.writeable = False
    return values


@functools.cache
def _unit_oval(power: float, n: int) -> Points:
    t = np.linspace(0, math.tau, n, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    e = 2.0 / power
    points = _stack(np.sign(c) * np.abs(c) ** e, np.sign(s) * np.abs(s) ** e)
    points.flags.writeable = False
    return points


def _oval(x: float, y: float, rx: float, ry: float, power: float = 2.0, n: int = 28) -> Points:
    """A superellipse: power 2 is an ellipse, larger ones grow towards a rectangle."""
    unit = _unit_oval(power, n)
    return _stack(x + rx * unit[:, 0], y + ry * unit[:, 1])


def _spline(points: Sequence[tuple[float, float]], per_segment: int = 6) -> Points:
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


def _mirror(points: Points) -> Points:
    return _stack(-points[:, 0], points[:, 1])


class _Canvas:
    """Paints face units (origin between the eyes, about one pixel each) onto a picture."""

    def __init__(self, image: Image.Image, photo: _Photo) -> None:
        self.image = image
        self._opaque = ImageDraw.Draw(image)  # faster than blending with alpha 255
        self._blend = ImageDraw.Draw(image, "RGBA")
        pixel = min(image.width / WIDTH, image.height / HEIGHT)
        self._scale = photo.scale * pixel
        # The eyes stand higher than CelebA's (y = 112), so that a centre crop keeps the collar.
        self._origin = np.array(
            [image.width / 2 + photo.shift[0] * pixel,
             image.height / 2 + (photo.shift[1] - 10) * pixel]
        )  # fmt: skip
        self._head = self._rotation(photo.angle)
        self._body = self._rotation(photo.angle * 0.3)  # shoulders follow a tilted head a little
        self.turn = self._head

    def _rotation(self, angle: float) -> Points:
        c, s = math.cos(angle) * self._scale, math.sin(angle) * self._scale
        return np.array([[c, s], [-s, c]])

    def _pen(self, alpha: float) -> ImageDraw.ImageDraw:
        return self._opaque if alpha == 1 else self._blend

    def body(self) -> None:
        self.turn = self._body

    def head(self) -> None:
        self.turn = self._head

    def fill(self, points: Points, colour: RGB, alpha: float = 1.0) -> None:
        placed = points @ self.turn + self._origin
        self._pen(alpha).polygon(placed.ravel().tolist(), fill=_ink(colour, alpha))

    def line(self, points: Points, width: float, colour: RGB, alpha: float = 1.0) -> None:
        placed = points @ self.turn + self._origin
        pen = max(1, round(width * self._scale))
        self._pen(alpha).line(placed.ravel().tolist(), _ink(colour, alpha), pen, joint="curve")

    def soft(self, x: float, y: float, r: float, colour: RGB, alpha: float, ry: float = 0) -> None:
        """A spot that fades out: four ovals on top of each other."""
        for k in (1.0, 0.8, 0.6, 0.4):
            self.fill(_oval(x, y, r * k, (ry or r) * k, n=20), colour, alpha / 3)


def _ink(colour: RGB, alpha: float) -> tuple[int, int, int, int]:
    r, g, b = colour  # 0 .. 255; a tone may exceed them a little
    return _byte(r), _byte(g), _byte(b), round(255 * min(1.0, alpha))


def _byte(value: float) -> int:
    return min(255, max(0, round(value)))


# --- The parts of a face ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Face:
    """One face to draw: who, in which picture, with which attributes, and colours they imply."""

    person: Person
    photo: _Photo
    true: frozenset[str]
    skin: RGB
    hair: RGB
    natural: RGB  # brows and beard

    def has(self, attribute: str) -> bool:
        return attribute in self.true

    @property
    def turn(self) -> float:
        """How far features move sideways, face units."""
        return self.photo.yaw * 5.0

    @property
    def hair_shape(self) -> str | None:
        return next((name for name in HAIR_SHAPES if name in self.true), None)

    @property
    def shows_hair(self) -> bool:
        return not self.has("Bald") and (not self.has("Wearing_Hat") or self.hair_shape is not None)


def _face(person: Person, photo: _Photo, true: frozenset[str]) -> _Face:
    hair = next((HAIR_COLOURS[n] for n in HAIR_COLOURS if n in true), DYED[person.dye])
    hair = _tone(hair, person.hair_tone)
    skin = _skin(person, "Pale_Skin" in true)
    dyed = not true & set(HAIR_COLOURS)
    natural = tuple(HAIR_COLOURS.values())[person.natural] if dyed else hair
    return _Face(person, photo, true, skin, hair, _apart(_darker(natural, 0.35), skin))


def _tone(colour: RGB, tone: float) -> RGB:
    """Up to 16 % lighter or darker, warmer or cooler."""
    gain = 1 + 0.16 * tone
    return colour[0] * gain, colour[1] * (1 + 0.13 * tone), colour[2] * (1 + 0.08 * tone)


def _skin(person: Person, pale: bool) -> RGB:
    if pale:
        return _mix(_PALE, (240, 214, 206), person.skin * 0.5)
    at = person.skin * (len(_SKIN_RAMP) - 1)
    low = min(int(at), len(_SKIN_RAMP) - 2)
    r, g, b = _SKIN_RAMP[low] + (_SKIN_RAMP[low + 1] - _SKIN_RAMP[low]) * (at - low)
    return float(r) + 4 * person.undertone, float(g), float(b) - 6 * person.undertone


def _apart(colour: RGB, skin: RGB) -> RGB:
    """The colour, darkened until it stands out from the skin."""
    most = _luma(skin) - 72
    if _luma(colour) <= most:
        return colour
    return _darker(colour, 1 - max(most, 8) / _luma(colour))


def _paint_face(canvas: _Canvas, face: _Face) -> None:
    canvas.head()
    if face.shows_hair:
        _paint_back_hair(canvas, face)
    canvas.body()
    _paint_body(canvas, face)
    canvas.head()
    _paint_head(canvas, face)
    _paint_makeup(canvas, face)
    _paint_nose(canvas, face)
    _paint_mouth(canvas, face)
    _paint_beard(canvas, face)
    for side in (-1, 1):
        _paint_eye(canvas, face, side)
        _paint_brow(canvas, face, side)
    if face.shows_hair:
        _paint_front_hair(canvas, face)
    if face.has("Eyeglasses"):
        _paint_glasses(canvas, face)
    if face.has("Wearing_Earrings"):
        _paint_earrings(canvas, face)
    if face.has("Wearing_Hat"):
        _PAINT_HAT[face.photo.hat](canvas, face)


def _paint_body(canvas: _Canvas, face: _Face) -> None:
    coat, shirt, _ = face.photo.cloth
    neck = _darker(face.skin, 0.10)
    canvas.fill(_stack([-17, 17, 21, -21], [30, 30, 100, 100]), neck)
    chin = face.person.chin
    canvas.fill(_oval(face.turn * 0.6, chin, 20, 11), _darker(neck, 0.35), 0.5)  # shadow
    shoulders = _spline(
        [(-21, 82), (-58, 94), (-92, 118), (-104, 190), (104, 190), (92, 118), (58, 94), (21, 82),
         (0, 90)]
    )  # fmt: skip
    canvas.fill(shoulders, coat)
    if face.has("Wearing_Necktie"):
        _paint_tie(canvas, face)
    elif face.photo.collar == 1:  # an open shirt collar, so that a collar is no sign of a tie
        canvas.fill(_stack([-19, 19, 0], [80, 80, 112]), neck)
        _paint_collar(canvas, shirt)
    elif face.photo.collar == 2:
        canvas.fill(_oval(0, 80, 23, 17), neck)
    canvas.line(_stack([-62, -66], [112, 160]), 1.5, _darker(coat, 0.35))
    canvas.line(_stack([62, 66], [112, 160]), 1.5, _darker(coat, 0.35))


def _paint_collar(canvas: _Canvas, shirt: RGB) -> None:
    for side in (-1, 1):
        canvas.fill(_stack(np.array([17, 24, 19, 3]) * side, [74, 84, 104, 88]), shirt)
        canvas.line(_stack(np.array([3, 19, 24]) * side, [88, 104, 84]), 1.2, _darker(shirt, 0.3))


def _paint_tie(canvas: _Canvas, face: _Face) -> None:
    _, shirt, tie = face.photo.cloth
    if abs(_luma(tie) - _luma(shirt)) < 90:
        tie = _darker(tie, 0.55)
    canvas.fill(_stack([-24, 24, 34, -34], [80, 80, 170, 170]), shirt)
    canvas.fill(_stack([-6, 6, 13, -13], [94, 94, 170, 170]), tie)
    canvas.fill(_stack([-9, 9, 6, -6], [80, 80, 96, 96]), _darker(tie, 0.2))
    _paint_collar(canvas, shirt)


def _head_outline(person: Person) -> Points:
    t = np.linspace(0, math.tau, 48, endpoint=False)
    up = np.sin(t)
    low = np.clip(-up, 0, 1)  # 0 above the cheeks, 1 at the chin
    x = person.half_width * np.cos(t) * (1 - person.taper * low**1.5)
    return _stack(x, np.where(up > 0, -2 - 62 * up, -2 + (person.chin + 2) * low))


def _paint_head(canvas: _Canvas, face: _Face) -> None:
    person, skin = face.person, face.skin
    for side in (-1, 1):
        ear = side * (person.half_width + 1)
        canvas.fill(_oval(ear, 5, 6 * person.ear, 11 * person.ear), _darker(skin, 0.07))
        canvas.fill(_oval(ear, 5, 3 * person.ear, 7 * person.ear), _darker(skin, 0.25))
    outline = _head_outline(person)
    canvas.fill(outline, skin)
    away = -math.copysign(1, face.photo.key_light)
    depth = abs(face.photo.key_light)
    for k in (0.10, 0.20, 0.32):  # the side away from the light, three steps deep
        x = outline[:, 0]
        crescent = _stack(np.where(x * away > 0, x, -x * (1 - 2 * k)), outline[:, 1])
        canvas.fill(crescent, _darker(skin, 0.6), 0.13 * depth)
    if face.has("Bald"):
        canvas.soft(-away * 14, -46, 13, (255, 255, 255), 0.35, 7)


def _paint_makeup(canvas: _Canvas, face: _Face) -> None:
    x = face.turn
    if face.has("Rosy_Cheeks"):
        rose = (232, 40, 66) if _luma(face.skin) > 120 else (214, 34, 58)
        for side in (-1, 1):
            canvas.soft(x + side * 25, 21, 11, rose, 0.62, 9)
    if face.has("Heavy_Makeup"):
        colour = _SHADOWS[face.photo.eyeshadow]
        for side in (-1, 1):
            eye = x + side * face.person.eye_x
            canvas.fill(
                _oval(eye + side * 1.5, -4.5, face.person.eye_width + 4.5, 8.5), colour, 0.85
            )


def _paint_nose(canvas: _Canvas, face: _Face) -> None:
    size, shade = face.person.nose, _darker(face.skin, 0.32)
    x = face.turn * 1.7
    side = math.copysign(1, face.photo.key_light)
    ridge = _stack([face.turn - side * 3, x - side * 5 * size, x - side * 7 * size], [2, 16, 22])
    canvas.line(ridge, 1.6, shade, 0.7)
    canvas.fill(_oval(x, 22, 7.5 * size, 4), _darker(face.skin, 0.14))
    for nostril in (-1, 1):
        canvas.fill(_oval(x + nostril * 4 * size, 24, 2.1 * size, 1.4, n=12), _darker(shade, 0.3))


def _paint_mouth(canvas: _Canvas, face: _Face) -> None:
    """Upper and lower lip along one curve; an open mouth shows teeth and a dark gap."""
    person, photo = face.person, face.photo
    smiling, is_open = face.has("Smiling"), face.has("Mouth_Slightly_Open")
    t = _steps(-1, 1, 17)
    bulge = np.clip(1 - t**2, 0, 1)
    width = person.mouth_width * (1.16 if smiling else 0.92)
    lift = 8.5 + 3.5 * photo.smile if smiling else -2.5 + 2.5 * photo.smile
    gap = (8.0 + 5.0 * photo.opening if is_open else 0.0) * bulge
    x = face.turn * 1.2 + width * t
    middle = person.mouth_y + lift * 0.35 - lift * t**2
    upper, lower = middle - gap * 0.35, middle + gap * 0.65
    bow = person.lip * bulge**0.6 * (1 - 0.3 * np.exp(-((t / 0.22) ** 2)))
    colour = _mix(face.skin, (158, 66, 66), 0.42)
    if face.has("Wearing_Lipstick"):
        colour = _LIPSTICKS[photo.lipstick]
    if is_open:
        canvas.fill(_ribbon(x, upper, lower), (62, 14, 20))
        canvas.fill(_ribbon(x, upper, upper + gap * 0.42), (246, 244, 238))
    canvas.fill(_ribbon(x, upper - bow, upper), colour)
    canvas.fill(_ribbon(x, lower, lower + person.lip * 1.15 * bulge**0.6), _lighter(colour, 0.08))
    if not is_open:
        canvas.line(_stack(x, middle), 1.8, _darker(colour, 0.65))
    if smiling:
        _paint_smile_lines(canvas, face, width)


def _paint_smile_lines(canvas: _Canvas, face: _Face, width: float) -> None:
    t = _steps(0, 1, 6)
    for side in (-1, 1):
        x = face.turn * 1.2 + side * (12 + (width - 5) * np.sin(t * 1.5) * 0.72)
        canvas.line(_stack(x, 22 + 15 * t), 1.4, _darker(face.skin, 0.35), 0.8)


def _ribbon(x: Points, top: Points, bottom: Points) -> Points:
    """The area between two curves over the same x."""
    return np.concatenate([_stack(x, top), _stack(x[::-1], bottom[::-1])])


def _paint_beard(canvas: _Canvas, face: _Face) -> None:
    person, more = face.person, face.photo.beard
    x = face.turn * 1.2
    if face.has("Mustache"):
        y = person.mouth_y - 5.5
        half = _spline(
            [(0, y - 4.5), (9, y - 4), (17 + 4 * more, y + 2 + 2 * more), (10, y + 2.2), (0, y + 1)]
        )
        for points in (half, _mirror(half)):
            canvas.fill(points + np.array([x, 0]), face.natural)
    if face.has("Goatee"):
        top, bottom = person.mouth_y + 11.5, person.chin + 3 + 8 * more
        wide = 9 + 3 * more
        tuft = _spline(
            [(-wide * 0.6, top), (wide * 0.6, top), (wide, (top + bottom) / 2),
             (wide * 0.5, bottom), (-wide * 0.5, bottom), (-wide, (top + bottom) / 2)]
        )  # fmt: skip
        canvas.fill(tuft + np.array([face.turn, 0]), face.natural)


def _paint_eye(canvas: _Canvas, face: _Face, side: int) -> None:
    person, photo = face.person, face.photo
    # The eye on the side to which the head turns is seen more from its side.
    width = person.eye_width * (1 - 0.10 * max(0.0, side * photo.yaw))
    height = person.eye_opening * 0.36 if face.has("Narrow_Eyes") else person.eye_opening
    x = face.turn + side * person.eye_x
    t = _steps(-1, 1, 13)
    lid = height * (1 - t**2)
    canvas.fill(_ribbon(x + width * t, -lid, lid * 0.85), (246, 246, 244))
    iris = _oval(x + photo.gaze[0], photo.gaze[1] * height / 6, 5, 5, n=18)
    iris[:, 1] = np.clip(iris[:, 1], -height * 0.92, height * 0.78)
    canvas.fill(iris, _IRISES[person.iris])
    pupil = (iris - iris.mean(0)) * 0.5 + iris.mean(0)
    canvas.fill(pupil, (12, 10, 12))
    canvas.fill(_oval(x + photo.gaze[0] + 1.5, -height * 0.35, 1.2, 1.2, n=8), (255, 255, 255))
    lash = 3.0 if face.has("Heavy_Makeup") else 1.8
    canvas.line(_stack(x + width * t, -lid), lash, (32, 22, 22))
    canvas.line(_stack(x + width * t, lid * 0.85), 1.0, _darker(face.skin, 0.45))


def _paint_brow(canvas: _Canvas, face: _Face, side: int) -> None:
    person, photo = face.person, face.photo
    bushy = face.has("Bushy_Eyebrows")
    thick = 7.6 + 2.0 * photo.brow if bushy else 2.0 + 1.0 * photo.brow
    t = _steps(-1, 1, 9)
    half = person.eye_width + (4.5 if bushy else 2.5)
    x = face.turn + side * (person.eye_x + 0.5 + half * t)
    y = person.brow_y - (1 - t**2) * 2.5 + person.brow_tilt * t
    body = thick / 2 * np.clip(1.15 - np.abs(t + 0.25) ** 3, 0.2, 1)
    canvas.fill(_ribbon(x, y - body, y + body), face.natural)


def _paint_glasses(canvas: _Canvas, face: _Face) -> None:
    photo, person = face.photo, face.person
    colour, pen = _FRAMES[photo.frame], photo.frame_width
    if abs(_luma(colour) - _luma(face.skin)) < 45:
        colour = _darker(colour, 0.7)
    for side in (-1, 1):
        x = face.turn + side * (person.eye_x + 0.5)
        lens = _oval(x, 1.5, 16.2, 12.5, power=photo.frame_shape, n=32)
        canvas.fill(lens, (235, 245, 255), 0.10)
        canvas.line(np.concatenate([lens, lens[:2]]), pen, colour)
        temple = _stack([x + side * 16, side * (person.half_width + 2)], [-2, -3])
        canvas.line(temple, pen, colour)
    canvas.line(_stack([face.turn - 5, face.turn, face.turn + 5], [0, -2.5, 0]), pen, colour)


def _paint_earrings(canvas: _Canvas, face: _Face) -> None:
    photo = face.photo
    colour, size = _METALS[photo.metal], 5.2 + 1.8 * photo.earring
    for side in (-1, 1):
        x, y = side * (face.person.half_width + 3), 18 + size
        canvas.fill(_oval(x, y, size + 1.3, size + 1.3, n=20), (40, 30, 28))
        canvas.fill(_oval(x, y, size, size, n=20), colour)
        if photo.earring > 0.5:  # a hoop, else a disc
            canvas.fill(_oval(x, y, size * 0.45, size * 0.45, n=14), (40, 30, 28))


# --- Hair ---------------------------------------------------------------------------------------


def _hair_half_width(face: _Face, y: Points, side: int) -> Points:
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


def _hair_bottom(face: _Face) -> float:
    return face.person.hair_length if face.hair_shape else -2.0


def _hair_top(face: _Face) -> float:
    return -66.0 - (face.person.hair_volume if face.hair_shape else 5.0)


def _paint_back_hair(canvas: _Canvas, face: _Face) -> None:
    y = np.linspace(_hair_top(face), _hair_bottom(face), 44)
    right, left = _hair_half_width(face, y, 1), -_hair_half_width(face, y, -1)
    canvas.fill(_ribbon(y, left, right)[:, ::-1], _darker(face.hair, 0.28))


def _paint_front_hair(canvas: _Canvas, face: _Face) -> None:
    if face.hair_shape:
        for side in (-1, 1):
            _paint_lock(canvas, face, side)
    if face.has("Wearing_Hat"):
        return
    y = np.linspace(_hair_top(face), -10, 26)
    right, left = _hair_half_width(face, y, 1), -_hair_half_width(face, y, -1)
    line = _hairline(face)
    outer = np.concatenate([_stack(left, y)[::-1], _stack(right, y)])
    canvas.fill(np.concatenate([outer, line[::-1]]), face.hair)
    _paint_strands_on_top(canvas, face, line)


def _hairline(face: _Face) -> Points:
    """The lower edge of the hair over the forehead, from left to right."""
    person, photo = face.person, face.photo
    edge = person.half_width - 1
    t = _steps(-1, 1, 19)
    if face.has("Bangs"):
        fringe = np.where(np.arange(19) % 2 == 0, 1.8, -0.6)  # tips
        y = -25.5 - 2.5 * photo.bangs + 2.5 * photo.bangs_slant * t + fringe
        y = np.where(np.abs(t) > 0.93, -12, y)
    else:
        peak = (t - 0.45 * person.parting) / 1.45
        y = person.hairline + (-12 - person.hairline) * np.abs(peak) ** 3.2
    return _stack(edge * t, y)


def _paint_lock(canvas: _Canvas, face: _Face, side: int) -> None:
    """The hair that falls beside the cheek, over the ear."""
    person = face.person
    y = np.linspace(-40, _hair_bottom(face), 30)
    outer = _hair_half_width(face, y, side)
    skull = np.sqrt(np.clip(1 - (np.clip(-8 - y, 0, None) / 62) ** 2, 0, 1))
    inner = (person.half_width - 4) * skull - 0.02 * np.clip(y, 0, None)
    if face.hair_shape == "Wavy_Hair":
        inner = inner + 0.35 * (outer - outer.mean())
    inner = np.minimum(inner, outer - 3)
    canvas.fill(_stack(*_swap(_ribbon(y, side * inner, side * outer))), face.hair)
    for k in (0.3, 0.55, 0.8):
        tone = _lighter(face.hair, 0.22) if k == 0.55 else _darker(face.hair, 0.3)
        strand = side * (inner + (outer - inner) * k)
        canvas.line(_stack(strand, y), 1.4, tone, 0.75)


def _swap(points: Points) -> tuple[Points, Points]:
    return points[:, 1], points[:, 0]


def _paint_strands_on_top(canvas: _Canvas, face: _Face, line: Points) -> None:
    """Strands from the parting to the hairline, which show how the hair lies."""
    top = np.array([face.person.parting * 14, _hair_top(face) + 5])
    t = _steps(0, 1, 7)[:, None]
    for index, end in enumerate(line[1:-1:2]):
        bend = np.array([(end[0] - top[0]) * 0.35, -7.0])
        strand = top + (end - top) * t + bend * (4 * t * (1 - t)) * 0.5
        if face.hair_shape == "Wavy_Hair":
            strand[:, 0] += 2.4 * np.sin(9 * t[:, 0] + face.photo.phase + index)
        tone = _lighter(face.hair, 0.2) if index % 3 == 1 else _darker(face.hair, 0.28)
        canvas.line(strand, 1.3, tone, 0.65)


# --- Hats ---------------------------------------------------------------------------------------


def _crown(face: _Face, base: float, top: float, power: float) -> Points:
    """The part of a hat over the skull: a half superellipse above y = base."""
    t = np.linspace(math.pi, 0, 24)
    c, e = np.cos(t), 2.0 / power
    wide = face.person.half_width + (face.person.hair_volume if face.hair_shape else 4) + 2
    x = wide * np.sign(c) * np.abs(c) ** e
    return _stack(x, base - (base - top) * np.abs(np.sin(t)) ** e)


def _band(points: Points, base: float, depth: float) -> Points:
    edge = float(points[:, 0].max())
    t = _steps(-1, 1, 13)
    sag = 2.5 * (1 - t**2)
    return _ribbon(edge * t, base - depth + sag, base + sag)


def _paint_beanie(canvas: _Canvas, face: _Face) -> None:
    wool, trim = face.photo.hat_tone
    crown = _crown(face, -30, -82, 2.2)
    canvas.fill(crown, wool)
    for x in (-26.0, -9.0, 9.0, 26.0):
        canvas.line(_stack([x * 0.7, x], [-76, -36]), 1.5, _darker(wool, 0.3))
    canvas.fill(_band(crown, -28, 14), trim)
    canvas.fill(_oval(0, -84, 8, 7), trim)


def _paint_cap(canvas: _Canvas, face: _Face) -> None:
    cloth, trim = face.photo.hat_tone
    crown = _crown(face, -32, -78, 2.4)
    canvas.fill(crown, cloth)
    canvas.fill(_oval(0, -54, 11, 9), trim)  # a badge
    edge = float(crown[:, 0].max())
    visor = _spline([(-edge - 3, -33), (0, -40), (edge + 3, -33), (edge * 0.6, -26), (0, -24),
                     (-edge * 0.6, -26)])  # fmt: skip
    canvas.fill(visor, _darker(trim, 0.35))


def _paint_brimmed(canvas: _Canvas, face: _Face) -> None:
    felt, trim = face.photo.hat_tone
    crown = _crown(face, -36, -80, 3.4) * np.array([0.9, 1.0])
    canvas.fill(crown, felt)
    canvas.fill(_band(crown, -37, 10), trim)
    edge = float(crown[:, 0].max())
    canvas.fill(_oval(0, -34, edge + 24, 7.5), _darker(felt, 0.18))


_PAINT_HAT: tuple[Callable[[_Canvas, _Face], None], ...] = (
    _paint_beanie, _paint_cap, _paint_brimmed,
)  # fmt: skip


# --- The picture --------------------------------------------------------------------------------


def _background(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """A soft gradient of random colours with a few spots and bars, supersampled."""
    base = rng.uniform(40, 220, 3)
    grid = base + rng.uniform(0.1, 1.0) * rng.uniform(-75, 75, (4, 3, 3))
    colourful = rng.uniform(0.15, 0.85)  # most walls and gardens are
    grid = grid.mean(2, keepdims=True) * (1 - colourful) + grid * colourful
    coarse = Image.fromarray(np.clip(grid, 0, 255).astype(np.uint8))
    # Smooth at the final size only: the picture is reduced to it, and this is four times faster.
    fine = coarse.resize((width, height), Image.Resampling.BILINEAR)
    doubled = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    image = fine.resize(doubled, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image, "RGBA")
    count = int(rng.integers(0, 7))
    for x, y, size, shape, alpha in rng.random((6, 5))[:count]:
        colour = _ink(_sample_colour(rng), 0.15 + 0.55 * float(alpha))
        points = _oval(0, 0, 1, 1, power=2 if shape < 0.6 else 9, n=24)
        reach = np.array([0.08 + 0.3 * size, 0.08 + 0.5 * size * (1 - shape)]) * doubled[0]
        placed = points * reach + np.array([x * doubled[0], y * doubled[1]])
        draw.polygon(placed.ravel().tolist(), fill=colour)
    return image


def _expose(image: Image.Image, rng: np.random.Generator) -> Pixels:
    """What a camera adds: blur, contrast, light from one side, a colour cast, noise."""
    blur, contrast, gain, gx, gy, sigma = (
        float(v)
        for v in rng.uniform((0, 0.82, 0.80, -0.32, -0.22, 1.0), (0.8, 1.12, 1.16, 0.32, 0.22, 7.0))
    )
    cast = rng.uniform(0.94, 1.06, 3)
    if blur > 0.3:  # below, it would cost time and change nothing
        image = image.filter(ImageFilter.BoxBlur(blur))
    width, height = image.size
    # Rows of 3 * width float32 numbers: numpy is several times slower along an axis of length 3.
    across = np.repeat(np.linspace(1 - gx, 1 + gx, width), 3).astype(np.float32)
    down = np.linspace(-gy, gy, height).astype(np.float32)
    tint = np.tile(gain * contrast * cast, width).astype(np.float32)
    pixels = np.asarray(image).reshape(height, -1).astype(np.float32)
    pixels += 128 / contrast - 128  # with the factor in `tint`: contrast about 128
    pixels *= across + down[:, None]
    pixels *= tint
    pixels += np.repeat(_noise(rng, height, width) * np.float32(sigma), 3, axis=1)
    return pixels.clip(0, 255, out=pixels).astype(np.uint8).reshape(height, width, 3)


def _noise(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """Noise of mean 0 and deviation 1 from the sum of two bytes: faster than a normal."""
    dice = rng.integers(0, 256, (2, height, width), dtype=np.uint8)
    noise: npt.NDArray[np.float32] = dice[0].astype(np.float32) + dice[1]
    noise -= 255
    noise /= 104.5  # sqrt((256**2 - 1) / 6)
    return noise


def draw_person(
    rng: np.random.Generator, person: Person, true: frozenset[str], height: int, width: int
) -> Pixels:
    """One picture of a person, uint8 [height, width, 3]; ``true`` holds what must be seen."""
    # Every random number is drawn whether or not an attribute needs it: with the same seed, two
    # pictures differ only where their attributes do.
    photo = _sample_photo(rng)
    image = _background(rng, height, width)
    _paint_face(_Canvas(image, photo), _face(person, photo, true))
    return _expose(image.reduce(SUPERSAMPLING), rng)


def draw_face(
    rng: np.random.Generator,
    attributes: Mapping[str, bool],
    height: int = HEIGHT,
    width: int = WIDTH,
) -> npt.NDArray[np.uint8]:
    """One picture of one new person, uint8 (height, width, 3), RGB.

    `attributes` holds names of `ATTRIBUTES`; a name left out counts as False, and neither hair
    colour means dyed hair, neither hair shape short hair (which a hat hides).
    Raises ValueError for an unknown name, a true one that isn't in `DRAWN`, and for two that
    exclude each other.
    """
    true = check(attributes)
    return draw_person(rng, sample_person(rng), true, height, width)
