"""Intervals of figures that were measured on a sample of images: the percentile bootstrap for any
statistic, and Wilson's interval for a single proportion.

Images are drawn one by one with replacement: several images of one person count as independent, so
the intervals are somewhat narrow where a split has them.

Sources: B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13; E. Wilson,
"Probable inference, the law of succession, and statistical inference", Journal of the American
Statistical Association 22 (1927) 209-212.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95  # of every interval, two-sided
_SAMPLES_AT_ONCE = 64  # more of them leave the processor's cache and were slower
_COUNTS_AT_ONCE = 2_000_000  # images times samples: some 50 MB while they are drawn


def resampled(images: int, samples: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Yield how often each image was drawn into each bootstrap sample: pieces [images, n] whose
    columns are ``samples`` in all. Every sample has as many draws as there are images.

    Counts are used instead of index lists: a statistic of a sample is then a weighted sum, and
    samples of several models are paired when they use the same counts.
    """
    random = np.random.default_rng(seed)
    piece = max(1, min(_SAMPLES_AT_ONCE, _COUNTS_AT_ONCE // images))
    for start in range(0, samples, piece):
        yield _counts(images, min(piece, samples - start), random)


def _counts(images: int, samples: int, random: np.random.Generator) -> NDArray[np.uint8]:
    drawn = random.integers(images, size=(images, samples), dtype=np.int64)
    drawn *= samples
    drawn += np.arange(samples)
    counts = np.bincount(drawn.ravel(), minlength=images * samples)
    # 8 bits hold them: one image 256 times in one sample has a chance below 1 in 256!
    return counts.reshape(images, samples).astype(np.uint8)


def percentile_interval(samples: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the middle 95 % of a statistic's values [samples]; nan are samples in which it is
    undefined.

    None when it is undefined in more than half of them, or the same in all, as where no answer was
    wrong: drawing from these images then says nothing about others.
    """
    defined = samples[~np.isnan(samples)]
    if 2 * len(defined) < len(samples) or not len(defined) or defined.min() == defined.max():
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, (tail, 1 - tail))
    return float(low), float(high)


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Return the interval of the proportion ``right`` of ``total`` (at least 1). Unlike the
    bootstrap's, it has a width where nothing, or everything, was right."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share, spread = right / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / total + spread / (4 * total)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
