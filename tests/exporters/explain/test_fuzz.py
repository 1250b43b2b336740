"""Differential testing finds what a test set hides, climbs, and repeats itself exactly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.explain.fuzz import FAMILIES, fuzz

SEEDS = np.random.default_rng(0).integers(60, 180, (20, 12, 12, 3), dtype=np.uint8)


def mean(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Two probabilities from the mean brightness."""
    p = images.mean(axis=(1, 2, 3)) / 255
    return np.stack([p, 1 - p], axis=1).astype(np.float32)


def saturating(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The same, but wrong for what is brighter than any of the seeds."""
    return np.minimum(mean(images), np.float32(0.7))


def off_at_one_pixel(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Wrong in proportion to one pixel among 432, which families of noise seldom drive far."""
    wrong = mean(images)
    wrong[:, 0] += (images[:, 3, 4, 1] / 255.0) ** 8 * (images[:, 3, 5, 1] < 30) * 0.5
    return wrong


def test_it_finds_what_the_test_set_hides() -> None:
    assert np.array_equal(mean(SEEDS)[:, 0], saturating(SEEDS)[:, 0])
    result = fuzz(mean, saturating, SEEDS, budget=1_000)
    assert result.differences[0] > 0.29  # white
    assert result.tried >= 1_000 and len(result.images) == 16
    assert list(result.differences) == sorted(result.differences, reverse=True)
    again = np.abs(mean(result.images) - saturating(result.images)).max(axis=1)
    assert np.allclose(again, result.differences)


def test_climbing_continues_from_the_worst() -> None:
    result = fuzz(mean, off_at_one_pixel, SEEDS, budget=4_000)
    assert result.differences[0] >= result.before_climbing > 0
    assert result.differences[0] > 0.45


def test_the_same_seed_finds_the_same() -> None:
    runs = [fuzz(mean, saturating, SEEDS, budget=600, seed=s) for s in (1, 1, 2)]
    assert np.array_equal(runs[0].images, runs[1].images)
    assert not np.array_equal(runs[0].images, runs[2].images)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(28, 28, 1), (12, 17, 3)])
def test_every_family_makes_the_models_pixels(name: str, shape: tuple[int, ...]) -> None:
    seeds = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    images = FAMILIES[name](np.random.default_rng(1), seeds, 9)
    assert images.shape == (9, *shape) and images.dtype == np.uint8
    assert len(np.unique(images.reshape(9, -1), axis=0)) > 1


def test_seeds_are_needed() -> None:
    with pytest.raises(ExportError, match="at least one image"):
        fuzz(mean, mean, SEEDS[:0])
