"""Everything about a drawn face that is not an attribute: what a person keeps from picture to
picture, and what changes with the day and the photograph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.drawn.canvas import Points, darker, luma, mix
from pipeline.datasets.drawn.face_attributes import DYED, HAIR_COLORS, HAIR_SHAPES, RGB

_SKIN_RAMP: Points = np.array(
    [(226, 176, 138), (206, 150, 110), (178, 122, 84), (146, 96, 66), (112, 74, 54)], float
)  # light to dark; the lightest is still well apart from _PALE
_PALE: RGB = (248, 232, 224)
IRISES: tuple[RGB, ...] = ((66, 42, 26), (96, 66, 38), (52, 98, 150), (70, 122, 84), (88, 96, 104))
LIPSTICKS: tuple[RGB, ...] = ((196, 18, 38), (214, 28, 112), (146, 10, 62), (226, 52, 40))
EYESHADOWS: tuple[RGB, ...] = ((48, 88, 204), (136, 52, 186), (24, 142, 126), (188, 36, 132))
METALS: tuple[RGB, ...] = ((240, 200, 70), (232, 236, 242), (214, 40, 60), (40, 170, 190))
FRAMES: tuple[RGB, ...] = ((24, 22, 24), (78, 40, 24), (140, 24, 34), (30, 48, 104), (70, 72, 78))
_LENS_POWERS = (2.0, 3.0, 5.0)  # powers of their superellipse: round, soft, square


@dataclass(frozen=True)
class Person:
    """The traits besides labels that a person keeps from picture to picture. Lengths in face
    units."""

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
    natural: int  # color of brows and beard where no hair is seen
    hair_length: float  # y of the tips
    hair_volume: float
    hairline: float
    parting: float
    wave: float  # wavelength


def sample_person(rng: np.random.Generator) -> Person:
    """Draw the traits of one new person that no attribute decides: skin, shape of face, eyes."""
    u = rng.uniform
    return Person(
        skin=u(0, 1), undertone=u(-1, 1),
        half_width=u(39, 46), chin=u(58, 67), taper=u(0.05, 0.36),
        eye_x=u(18, 21), eye_width=u(8.5, 10.5), eye_opening=u(5.8, 7.4),
        iris=int(rng.integers(len(IRISES))),
        brow_y=u(-19.5, -17), brow_tilt=u(-2.5, 2.5), nose=u(0.75, 1.3),
        mouth_y=u(37, 40), mouth_width=u(15, 19), lip=u(3.4, 5.2), ear=u(0.8, 1.2),
        hair_tone=u(-1, 1), dye=int(rng.integers(len(DYED))),
        natural=int(rng.integers(len(HAIR_COLORS))),
        hair_length=u(42, 88), hair_volume=u(8, 13), hairline=u(-47, -40), parting=u(-1, 1),
        wave=u(21, 29),
    )  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """The properties besides labels that change from picture to picture. Lengths in face units."""

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


def sample_color(rng: np.random.Generator) -> RGB:
    """Draw a random color, often a muted one."""
    r, g, b = (float(v) for v in rng.uniform(25, 235, 3))
    gray = (r + g + b) / 3
    return mix((r, g, b), (gray, gray, gray), rng.uniform(0, 0.6))


def sample_photo(rng: np.random.Generator) -> Photo:
    """Draw what is random in one picture of a person."""
    u = rng.uniform
    shirt = 255 - rng.uniform(0, 60) * rng.random(3)  # light, as shirts under a tie mostly are
    return Photo(
        angle=float(np.clip(rng.normal(0, 0.09), -0.22, 0.22)), scale=u(0.84, 1.0),
        shift=(u(-9, 9), u(-7, 6)), yaw=u(-1, 1), gaze=(u(-2.2, 2.2), u(-0.8, 0.8)),
        smile=u(0, 1), opening=u(0, 1), bangs=u(0, 1), bangs_slant=u(-1, 1), brow=u(0, 1),
        phase=u(0, math.tau),
        hat=int(rng.integers(3)), hat_tone=(sample_color(rng), sample_color(rng)),
        frame=int(rng.integers(len(FRAMES))), frame_shape=_LENS_POWERS[int(rng.integers(3))],
        frame_width=u(2.4, 3.8),
        lipstick=int(rng.integers(len(LIPSTICKS))), eyeshadow=int(rng.integers(len(EYESHADOWS))),
        metal=int(rng.integers(len(METALS))), earring=u(0, 1), beard=u(0, 1),
        collar=int(rng.integers(3)),
        cloth=(
            sample_color(rng),
            (float(shirt[0]), float(shirt[1]), float(shirt[2])),
            sample_color(rng),
        ),
        key_light=u(-1, 1),
    )  # fmt: skip


@dataclass(frozen=True)
class Face:
    """One face to draw: person, photograph, attributes, and the colors that these imply."""

    person: Person
    photo: Photo
    true: frozenset[str]
    skin: RGB
    hair: RGB
    natural: RGB  # brows and beard

    def has(self, attribute: str) -> bool:
        """Return whether the attribute is true."""
        return attribute in self.true

    @property
    def turn(self) -> float:
        """Sideways shift of the features, in face units."""
        return self.photo.yaw * 5.0

    @property
    def hair_shape(self) -> str | None:
        """The true one of HAIR_SHAPES; None for short hair."""
        return next((name for name in HAIR_SHAPES if name in self.true), None)

    @property
    def shows_hair(self) -> bool:
        """True if any hair is visible."""
        return not self.has("Bald") and (not self.has("Wearing_Hat") or self.hair_shape is not None)


def face_of(person: Person, photo: Photo, true: frozenset[str]) -> Face:
    """Combine person, photograph and true attributes."""
    hair = next((HAIR_COLORS[n] for n in HAIR_COLORS if n in true), DYED[person.dye])
    hair = _tone(hair, person.hair_tone)
    skin = _skin(person, "Pale_Skin" in true)
    dyed = not true & set(HAIR_COLORS)
    natural = tuple(HAIR_COLORS.values())[person.natural] if dyed else hair
    return Face(person, photo, true, skin, hair, _apart(darker(natural, 0.35), skin))


def _tone(color: RGB, tone: float) -> RGB:
    """Up to 16 % lighter or darker, warmer or cooler."""
    gain = 1 + 0.16 * tone
    return color[0] * gain, color[1] * (1 + 0.13 * tone), color[2] * (1 + 0.08 * tone)


def _skin(person: Person, pale: bool) -> RGB:
    if pale:
        return mix(_PALE, (240, 214, 206), person.skin * 0.5)
    at = person.skin * (len(_SKIN_RAMP) - 1)
    low = min(int(at), len(_SKIN_RAMP) - 2)
    r, g, b = _SKIN_RAMP[low] + (_SKIN_RAMP[low + 1] - _SKIN_RAMP[low]) * (at - low)
    return float(r) + 4 * person.undertone, float(g), float(b) - 6 * person.undertone


def _apart(color: RGB, skin: RGB) -> RGB:
    """Return the color, darkened until it contrasts with the skin."""
    most = luma(skin) - 72
    if luma(color) <= most:
        return color
    return darker(color, 1 - max(most, 8) / luma(color))
