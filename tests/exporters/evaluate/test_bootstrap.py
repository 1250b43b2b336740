"""bootstrap.py: intervals that cover what they claim, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from exporters.evaluate.bootstrap import percentile_interval, resampled, wilson_interval


def test_every_sample_has_as_many_draws_as_images() -> None:
    pieces = list(resampled(50, 150, seed=3))
    counts = np.concatenate(pieces, axis=1)
    assert counts.shape == (50, 150)
    assert (counts.sum(axis=0) == 50).all()
    # an image is left out of a sample with chance (1 - 1/50)^50
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.02)


def test_the_seed_decides() -> None:
    def first(seed: int) -> list[int]:
        return next(resampled(20, 5, seed)).ravel().tolist()

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_memory_does_not_grow_with_the_samples() -> None:
    def peak(samples: int) -> int:
        tracemalloc.start()
        for _ in resampled(100_000, samples, seed=0):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(100) < 1.1 * peak(20) < 100e6


def test_percentile_interval() -> None:
    low, high = percentile_interval(np.arange(1001) / 1000) or (0, 0)
    assert (low, high) == pytest.approx((0.025, 0.975))
    with_gaps = np.append(np.arange(1001) / 1000, [np.nan] * 500)
    assert percentile_interval(with_gaps) == pytest.approx((0.025, 0.975))
    assert percentile_interval(np.array([0.3, np.nan, np.nan])) is None
    assert percentile_interval(np.array([])) is None
    assert percentile_interval(np.ones(100)) is None  # no mistakes are no certainty


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # z^2 = 3.8415: (0.8 + 0.19207 ± 1.95996 sqrt(0.016 + 0.0096036)) / 1.38415
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),  # 0.38415 / 1.38415
        (10, 10, 0.7225, 1.0),
    ],
)
def test_wilson_by_hand(right: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=1e-4)


def test_intervals_cover_the_truth_as_often_as_they_claim() -> None:
    """Both kinds, for a proportion of 0.8 in 150 images: 95 % of 200 repetitions, give or take."""
    random, covered = np.random.default_rng(0), np.zeros(2)
    for seed in range(200):
        right = random.random(150) < 0.8
        samples = [w.T.astype(float) @ right / 150 for w in resampled(150, 200, seed)]
        ends = [percentile_interval(np.concatenate(samples)), wilson_interval(right.sum(), 150)]
        covered += [low <= 0.8 <= high for low, high in filter(None, ends)]
    assert (covered >= 180).all() and (covered < 200).all()
