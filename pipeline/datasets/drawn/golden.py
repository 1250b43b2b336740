"""Golden samples: images that a bundle contains to test itself on a device. They are drawn, or
taken from a redistributable data set; they never show a real person."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import Dataset
from pipeline.datasets.drawn.drawn_digits import draw_digit
from pipeline.datasets.drawn.face_attributes import sample_attributes
from pipeline.datasets.drawn.face_drawing import draw_face
from pipeline.recipe import PreprocessOptions

Images = NDArray[np.uint8]
_SEED = 2_026  # the same pictures in every bundle, whatever seed trained the model


def raw_images(preprocess: PreprocessOptions, dataset: Dataset, count: int) -> tuple[Images, ...]:
    """Return ``count`` decoded images [H, W, C] as on a device, before preprocessing.

    They are digits on pages for a digit graph, drawn faces for the official face crop, else test
    images of a redistributable data set or seeded noise.
    """
    rng = np.random.default_rng(_SEED)
    if preprocess.kind == "digit":
        # smaller than a photograph, since the bundle carries them uncompressed
        return tuple(draw_digit(rng, 2 + index % 8, 120, 160) for index in range(count))
    if preprocess.reference == (218, 178):  # the size of CelebA's aligned pictures
        return tuple(draw_face(rng, sample_attributes(rng)) for _ in range(count))
    if dataset.info.redistributable:
        return tuple(np.array(image) for image in dataset.test.images[:count])
    shape = (*(preprocess.reference or (preprocess.height, preprocess.width)), preprocess.channels)
    return tuple(rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(count))


def model_pixels(dataset: Dataset, count: int) -> Images:
    """Return the model's own pixels [n, h, w, c] of test images; none if not redistributable."""
    images = dataset.test.images[: count if dataset.info.redistributable else 0]
    return np.array(images)
