"""One cartoon face from a person, a photograph and the attributes that must be visible."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pipeline.datasets.drawn import features, hair, hats
from pipeline.datasets.drawn.camera import Pixels, background, expose
from pipeline.datasets.drawn.canvas import HEIGHT, SUPERSAMPLING, WIDTH, Canvas
from pipeline.datasets.drawn.face_attributes import check
from pipeline.datasets.drawn.person import Face, Person, face_of, sample_person, sample_photo


def _paint_face(canvas: Canvas, face: Face) -> None:
    canvas.head()
    if face.shows_hair:
        hair.paint_back_hair(canvas, face)
    canvas.body()
    features.paint_body(canvas, face)
    canvas.head()
    features.paint_head(canvas, face)
    features.paint_makeup(canvas, face)
    features.paint_nose(canvas, face)
    features.paint_mouth(canvas, face)
    features.paint_beard(canvas, face)
    for side in (-1, 1):
        features.paint_eye(canvas, face, side)
        features.paint_brow(canvas, face, side)
    if face.shows_hair:
        hair.paint_front_hair(canvas, face)
    if face.has("Eyeglasses"):
        features.paint_glasses(canvas, face)
    if face.has("Wearing_Earrings"):
        features.paint_earrings(canvas, face)
    if face.has("Wearing_Hat"):
        hats.PAINT_HAT[face.photo.hat](canvas, face)


def draw_person(
    rng: np.random.Generator, person: Person, true: frozenset[str], height: int, width: int
) -> Pixels:
    """Draw one picture of a person, uint8 [height, width, 3]; ``true`` names the attributes
    that must be visible."""
    # Every random number is drawn whether or not an attribute needs it: with the same seed, two
    # pictures differ only where their attributes do.
    photo = sample_photo(rng)
    image = background(rng, height, width)
    _paint_face(Canvas(image, photo.angle, photo.scale, photo.shift), face_of(person, photo, true))
    return expose(image.reduce(SUPERSAMPLING), rng)


def draw_face(
    rng: np.random.Generator,
    attributes: Mapping[str, bool],
    height: int = HEIGHT,
    width: int = WIDTH,
) -> npt.NDArray[np.uint8]:
    """Draw one picture of one new person, uint8 (height, width, 3), RGB.

    `attributes` holds names of `ATTRIBUTES`; a name left out counts as False, and neither hair
    color means dyed hair, neither hair shape short hair (which a hat hides).
    Raises ValueError for an unknown name, a true one that isn't in `DRAWN`, and for two that
    exclude each other.
    """
    true = check(attributes)
    return draw_person(rng, sample_person(rng), true, height, width)
