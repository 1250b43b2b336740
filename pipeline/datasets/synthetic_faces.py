"""Cartoon faces in the layout of the official CelebA folder, for those who have no copy of it.

CelebA may not be redistributed. Without a local copy the `celeba` recipe runs on this set, which
has the same files, image size and attribute names, so every later stage takes the same path.

Each picture shows one head and shoulders before a soft background: a person (skin, face shape,
hair) photographed once to six times with another pose, light, mouth, hat, glasses, make-up and
clothes. The attributes named in `DRAWN` are really drawn and their labels are exact; the other
official attributes are written as -1 for everybody and must be left out of model and metrics
(`SYNTHETIC.json` lists `drawn`; the file is written last and its presence marks the set as
complete and as synthetic).

What this module does not know: how real faces look. A number measured on this set says that a
pipeline works, nothing about people. It draws no gender, age, beauty or body shape, writes no
landmarks and no boxes, and its label frequencies are not CelebA's. The same seed gives the same
bytes with the same numpy and Pillow, whatever the number of workers; other versions of the two
may round or encode a pixel differently.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter
from PIL import __version__ as pillow_version

# Part of SYNTHETIC.json: raise it whenever the same seed would give other pictures or labels.
GENERATOR_VERSION = 1

# All 40 names of list_attr_celeba.txt, in its order.
ATTRIBUTES: tuple[str, ...] = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs",
    "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows",
    "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup",
    "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard",
    "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns",
    "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat",
    "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip

# The attributes that are truly drawn, in the official order. Each is plain to see at 64x64.
DRAWN: tuple[str, ...] = (
    "Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Bushy_Eyebrows", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes",
    "Pale_Skin", "Rosy_Cheeks", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings",
    "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necktie",
)  # fmt: skip

HEIGHT, WIDTH = 218, 178  # of CelebA's aligned images, pixels
MARKER = "SYNTHETIC.json"
SPLIT_SHARES = (
    0.70,
    0.12,
    0.18,
)  # train, val, test, of images; the set is small, so more than 10 % test
MAX_IMAGES_PER_PERSON = 6
JPEG_QUALITY = 90  # 12 kB an image on average
CHUNK = 64  # images a worker writes between two reports: about half a second
POOL_PAYS_FROM = 256  # images; below, starting the workers costs more than it saves
SUPERSAMPLING = 2  # Pillow draws polygons without antialiasing

RGB = tuple[float, float, float]
Points = npt.NDArray[np.float64]  # (n, 2): x to the right, y down
Pixels = npt.NDArray[np.uint8]  # (height, width, 3)
Progress = Callable[[int, int], None]  # (images written, images in all)


# --- Attributes -------------------------------------------------------------------------------

HAIR_COLOURS: dict[str, RGB] = {
    "Black_Hair": (30, 26, 28),
    "Blond_Hair": (228, 190, 104),
    "Brown_Hair": (108, 64, 34),
    "Gray_Hair": (172, 173, 178),
}
HAIR_SHAPES = ("Straight_Hair", "Wavy_Hair")
# Hair of no official colour, so that "not black, blond or brown" doesn't mean grey.
_DYED: tuple[RGB, ...] = ((205, 62, 138), (44, 150, 158), (118, 66, 182), (206, 52, 36))
_HAIR_WEIGHTS = (0.29, 0.20, 0.24, 0.16, 0.11)  # in the order of HAIR_COLOURS, then dyed

# P(attribute) in two loose clusters of habits, drawn with equal chance per person. They make
# attributes co-occur as they do in life (lipstick with earrings, necktie with mustache), yet
# both clusters know every value, so that no attribute follows from another.
_HABITS: dict[str, tuple[float, float]] = {
    "Bald": (0.07, 0.24),
    "Bangs": (0.44, 0.26),
    "Bushy_Eyebrows": (0.20, 0.42),
    "Eyeglasses": (0.24, 0.32),
    "Goatee": (0.05, 0.36),
    "Heavy_Makeup": (0.48, 0.08),
    "Mouth_Slightly_Open": (0.46, 0.40),
    "Mustache": (0.06, 0.38),
    "Narrow_Eyes": (0.28, 0.28),
    "Pale_Skin": (0.20, 0.16),
    "Rosy_Cheeks": (0.42, 0.16),
    "Smiling": (0.54, 0.44),
    "Wearing_Earrings": (0.50, 0.12),
    "Wearing_Hat": (0.18, 0.24),
    "Wearing_Lipstick": (0.58, 0.10),
    "Wearing_Necktie": (0.12, 0.36),
}
_SHORT_HAIR = (0.14, 0.50)  # P(hair too short to be straight or wavy) in the two clusters


@dataclass(frozen=True)
class _Traits:
    """The labels that a person keeps from picture to picture."""

    cluster: int
    bald: bool
    hair_colour: str | None  # None: dyed
    hair_shape: str | None  # None: short
    kept: frozenset[str]  # of those of _HABITS that don't change with the day


def _sample_traits(rng: np.random.Generator) -> _Traits:
    cluster = int(rng.integers(2))
    colour = int(rng.choice(len(_HAIR_WEIGHTS), p=_HAIR_WEIGHTS))
    short, wavy, bald = rng.random(3)
    kept = ("Bushy_Eyebrows", "Narrow_Eyes", "Pale_Skin")
    chances = rng.random(len(kept))
    return _Traits(
        cluster=cluster,
        bald=bool(bald < _HABITS["Bald"][cluster]),
        hair_colour=(*HAIR_COLOURS, None)[colour],
        hair_shape=None if short < _SHORT_HAIR[cluster] else HAIR_SHAPES[int(wavy < 0.5)],
        kept=frozenset(
            name
            for name, chance in zip(kept, chances, strict=True)
            if chance < _HABITS[name][cluster]
        ),
    )


def _dress(traits: _Traits, rng: np.random.Generator) -> dict[str, bool]:
    """The attributes of one picture of a person."""
    chances = rng.random(len(_HABITS))
    today = {
        name: bool(chance < odds[traits.cluster])
        for chance, (name, odds) in zip(chances, _HABITS.items(), strict=True)
    }
    hat = today["Wearing_Hat"]
    # A hat hides a bald head, and short hair altogether; longer hair shows below it.
    hair = not traits.bald and not (hat and traits.hair_shape is None)
    true = {name for name, chosen in today.items() if chosen}
    true -= {"Bald", "Bushy_Eyebrows", "Narrow_Eyes", "Pale_Skin"}
    true |= traits.kept
    if hat or not hair:
        true.discard("Bangs")
    if traits.bald and not hat:
        true.add("Bald")
    if hair:
        true |= {name for name in (traits.hair_colour, traits.hair_shape) if name}
    return {name: name in true for name in DRAWN}


def sample_attributes(rng: np.random.Generator) -> dict[str, bool]:
    """A consistent value for every attribute of `DRAWN`, of one picture of one new person."""
    return _dress(_sample_traits(rng), rng)


def _check(attributes: Mapping[str, bool]) -> frozenset[str]:
    """The true attributes, or ValueError if they can't all be drawn in one face."""
    true = frozenset(name for name, value in attributes.items() if value)
    unknown = sorted(name for name in attributes if name not in ATTRIBUTES)
    if unknown:
        raise ValueError(f"unknown attributes {unknown}; expected names listed in ATTRIBUTES")
    undrawn = sorted(true - set(DRAWN))
    if undrawn:
        raise ValueError(f"attributes {undrawn} can't be drawn; set them to False (see DRAWN)")
    for group in _exclusive(true):
        found = sorted(true & set(group))
        if len(found) > 1:
            raise ValueError(f"attributes {found} exclude each other; set at most one of them")
    return true


def _exclusive(true: frozenset[str]) -> Iterator[tuple[str, ...]]:
    """Groups of attributes of which a face has at most one."""
    yield tuple(HAIR_COLOURS)
    yield HAIR_SHAPES
    for hair in (*HAIR_COLOURS, *HAIR_SHAPES, "Bangs", "Wearing_Hat"):
        yield "Bald", hair
    yield "Wearing_Hat", "Bangs"
    if not true & set(HAIR_SHAPES):  # short hair is hidden by a hat, and its colour with it
        for colour in HAIR_COLOURS:
            yield "Wearing_Hat", colour


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
class _Person:
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


def _sample_person(rng: np.random.Generator) -> _Person:
    u = rng.uniform
    return _Person(
        skin=u(0, 1), undertone=u(-1, 1),
        half_width=u(39, 46), chin=u(58, 67), taper=u(0.05, 0.36),
        eye_x=u(18, 21), eye_width=u(8.5, 10.5), eye_opening=u(5.8, 7.4),
        iris=int(rng.integers(len(_IRISES))),
        brow_y=u(-19.5, -17), brow_tilt=u(-2.5, 2.5), nose=u(0.75, 1.3),
        mouth_y=u(37, 40), mouth_width=u(15, 19), lip=u(3.4, 5.2), ear=u(0.8, 1.2),
        hair_tone=u(-1, 1), dye=int(rng.integers(len(_DYED))),
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

    person: _Person
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


def _face(person: _Person, photo: _Photo, true: frozenset[str]) -> _Face:
    hair = next((HAIR_COLOURS[n] for n in HAIR_COLOURS if n in true), _DYED[person.dye])
    hair = _tone(hair, person.hair_tone)
    skin = _skin(person, "Pale_Skin" in true)
    dyed = not true & set(HAIR_COLOURS)
    natural = tuple(HAIR_COLOURS.values())[person.natural] if dyed else hair
    return _Face(person, photo, true, skin, hair, _apart(_darker(natural, 0.35), skin))


def _tone(colour: RGB, tone: float) -> RGB:
    """Up to 16 % lighter or darker, warmer or cooler."""
    gain = 1 + 0.16 * tone
    return colour[0] * gain, colour[1] * (1 + 0.13 * tone), colour[2] * (1 + 0.08 * tone)


def _skin(person: _Person, pale: bool) -> RGB:
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


def _head_outline(person: _Person) -> Points:
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


def _draw(
    rng: np.random.Generator, person: _Person, true: frozenset[str], height: int, width: int
) -> Pixels:
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
    true = _check(attributes)
    return _draw(rng, _sample_person(rng), true, height, width)


# --- The folder ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Who is on which image and in which split; row i is image i + 1."""

    seed: int
    identities: npt.NDArray[np.int64]  # (images,), from 1
    splits: npt.NDArray[np.int64]  # (images,): 0 train, 1 val, 2 test


# Third word of a seed, so that the streams of images, people and plan never coincide; an image
# has none: default_rng([seed, index]).
_PERSON_STREAM, _PLAN_STREAM = 1, 2


def _plan(images: int, seed: int) -> _Plan:
    rng = np.random.default_rng([seed, 0, _PLAN_STREAM])
    counts = rng.integers(1, MAX_IMAGES_PER_PERSON + 1, size=images)
    people = int(np.searchsorted(np.cumsum(counts), images)) + 1
    identities = np.repeat(np.arange(1, people + 1), counts[:people])[:images]
    split_of = _split_people(np.bincount(identities, minlength=people + 1)[1:])
    order = rng.permutation(images)  # a person's images are scattered, as in CelebA
    identities = identities[order]
    return _Plan(seed, identities, split_of[identities - 1])


def _split_people(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The split of each person: whole people, by share of images, none empty if people suffice."""
    people = len(counts)
    shares = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(shares, SPLIT_SHARES[0]))
    second = int(np.searchsorted(shares, SPLIT_SHARES[0] + SPLIT_SHARES[1]))
    if people >= 3:
        first = min(max(first, 1), people - 2)
        second = min(max(second, first + 1), people - 1)
    at = np.arange(people)
    return (at >= first).astype(np.int64) + (at >= second)


def _write_images(
    folder: Path, seed: int, numbered: Sequence[tuple[int, int]]
) -> list[tuple[int, tuple[bool, ...]]]:
    """Write the images `(index, identity)`; return each index with its values of DRAWN."""
    rows = []
    for index, identity in numbered:
        person_rng = np.random.default_rng([seed, identity, _PERSON_STREAM])
        traits, person = _sample_traits(person_rng), _sample_person(person_rng)
        rng = np.random.default_rng([seed, index])
        attributes = _dress(traits, rng)
        pixels = _draw(rng, person, _check(attributes), HEIGHT, WIDTH)
        Image.fromarray(pixels).save(folder / _file_name(index), quality=JPEG_QUALITY)
        rows.append((index, tuple(attributes[name] for name in DRAWN)))
    return rows


def _file_name(index: int) -> str:
    return f"{index:06d}.jpg"


def _chunks(plan: _Plan) -> list[list[tuple[int, int]]]:
    numbered = [(i, int(person)) for i, person in enumerate(plan.identities, start=1)]
    return [numbered[i : i + CHUNK] for i in range(0, len(numbered), CHUNK)]


def _write_all(
    folder: Path, plan: _Plan, workers: int, progress: Progress | None
) -> npt.NDArray[np.bool_]:
    """Write every image; return the values of DRAWN, (images, len(DRAWN))."""
    values = np.zeros((len(plan.identities), len(DRAWN)), dtype=np.bool_)
    done = 0
    # Closed here and now: after an exception no worker may go on writing into a removed folder.
    with contextlib.closing(_results(folder, plan, workers)) as results:
        for rows in results:
            for index, row in rows:
                values[index - 1] = row
            done += len(rows)
            if progress is not None:
                progress(done, len(values))
    return values


def _results(
    folder: Path, plan: _Plan, workers: int
) -> Generator[list[tuple[int, tuple[bool, ...]]], None, None]:
    if workers == 1:
        for chunk in _chunks(plan):
            yield _write_images(folder, plan.seed, chunk)
        return
    # "spawn" everywhere: a fork of a process that runs threads (torch's, say) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = [pool.submit(_write_images, folder, plan.seed, chunk) for chunk in _chunks(plan)]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _write_lists(folder: Path, plan: _Plan, values: npt.NDArray[np.bool_]) -> None:
    """The three text files of the official layout."""
    names = [_file_name(i) for i in range(1, len(values) + 1)]
    official = np.full((len(values), len(ATTRIBUTES)), -1, dtype=np.int64)
    official[:, [ATTRIBUTES.index(name) for name in DRAWN]] = np.where(values, 1, -1)
    rows = [
        f"{name} {' '.join(f'{v:2d}' for v in row)}"
        for name, row in zip(names, official.tolist(), strict=True)
    ]
    _write_lines(folder / "list_attr_celeba.txt", [str(len(names)), " ".join(ATTRIBUTES), *rows])
    for file, column in (
        ("list_eval_partition.txt", plan.splits),
        ("identity_CelebA.txt", plan.identities),
    ):
        pairs = zip(names, column.tolist(), strict=True)
        _write_lines(folder / file, [f"{name} {value}" for name, value in pairs])


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")


def _write_marker(folder: Path, plan: _Plan) -> None:
    marker = {
        "synthetic": True,
        "generator": "pipeline.datasets.synthetic_faces",
        "version": GENERATOR_VERSION,
        "seed": plan.seed,
        "images": len(plan.identities),
        "identities": int(plan.identities.max()),
        "drawn": list(DRAWN),
        "made_with": {"numpy": np.__version__, "pillow": pillow_version},
    }
    (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="ascii")


def _resolve_workers(workers: int | None, images: int) -> int:
    if workers is not None:
        return workers
    if images < POOL_PAYS_FROM:
        return 1
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: honours taskset and containers
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _refuse(root: Path, images: int, seed: int, workers: int | None) -> None:
    if images < 1 or seed < 0 or (workers is not None and workers < 1):
        raise ValueError(
            f"images={images}, seed={seed}, workers={workers}; "
            "expected at least 1 image, a seed of 0 or more, and at least 1 worker or None"
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(
            f"{root} exists and is not an empty folder; "
            "generating would mix two sets. Remove it or name another folder."
        )


def generate(
    root: Path,
    images: int = 8000,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a complete synthetic set to `root`, or nothing.

    `workers=None` takes every core this process may use; with more than one worker the calling
    script needs the usual `if __name__ == "__main__":` guard. `progress(done, images)` is called
    in the calling process after every `CHUNK` images. All is written to a hidden sibling of
    `root` and renamed at the end; an exception removes it, a killed process leaves it behind
    under its hidden name, from where it may be deleted.
    Raises ValueError for a number out of range, FileExistsError if `root` holds something.
    """
    _refuse(root, images, seed, workers)
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = root.with_name(f".{root.name}.{uuid.uuid4().hex[:8]}.partial")
    pictures = partial / "img_align_celeba"
    try:
        pictures.mkdir(parents=True)
        plan = _plan(images, seed)
        values = _write_all(pictures, plan, _resolve_workers(workers, images), progress)
        _write_lists(partial, plan, values)
        _write_marker(partial, plan)
        if root.exists():
            root.rmdir()  # empty, as checked above; Windows won't rename onto it
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
