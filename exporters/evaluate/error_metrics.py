"""Differences between two lists of probabilities. They need no labels and judge nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.evaluate.metrics import Thresholds, decide
from exporters.evaluate.probabilities import Floats
from exporters.evaluate.signal_to_noise import decibels

_NAMED = 16  # of the images that differ most
ABSOLUTE_FLOOR = 1e-6  # what a relative tolerance is needed on top of: probabilities near 0


@dataclass(frozen=True)
class AbsoluteDifference:
    """|A - B| over all images and labels."""

    max_abs: float
    mean_abs: float
    p99_abs: float
    worst: tuple[tuple[int, float], ...]  # (image, its largest difference), worst first


@dataclass(frozen=True)
class Difference:
    """From A to B, over all images and labels. Relative differences are relative to A's values."""

    images: int
    max_abs: float
    mean_abs: float
    p99_abs: float
    max_rel: float
    mean_rel: float
    p99_rel: float
    snr_db: float  # 10 log10(sum A^2 / sum (A - B)^2); infinite where all are equal
    agreement: float  # share of equal answers
    rtol: float  # that numpy.allclose(B, A, rtol, atol=1e-6) would have needed; atol alone: max_abs
    worst: tuple[tuple[int, float], ...]  # (image, its largest difference), worst first


def absolute_difference(a: Floats, b: Floats) -> AbsoluteDifference:
    """Compare values [n, labels] of the same images."""
    gap = np.abs(a.astype(np.float64) - b)
    per_image = gap.max(axis=1)
    order = np.argsort(-per_image, kind="stable")[:_NAMED]
    return AbsoluteDifference(
        max_abs=float(gap.max()),
        mean_abs=float(gap.mean()),
        p99_abs=float(np.quantile(gap, 0.99)),
        worst=tuple((int(i), float(per_image[i])) for i in order),
    )


def difference(
    a: Floats, b: Floats, *, thresholds_a: Thresholds = None, thresholds_b: Thresholds = None
) -> Difference:
    """Compare probabilities [n, labels] of the same images, each side with the thresholds [labels]
    of its own where the task has any. Raises ExportError when the shapes do not belong together.
    """
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ExportError(
            f"A has outputs of shape {a.shape}, B of {b.shape}; expected the same (images, labels)."
        )
    absolute = absolute_difference(a, b)
    before = a.astype(np.float64)
    gap = np.abs(before - b)
    magnitude = np.abs(before)
    relative = gap / np.maximum(magnitude, np.finfo(np.float32).tiny)
    beyond = np.maximum(gap - ABSOLUTE_FLOOR, 0) / np.maximum(magnitude, ABSOLUTE_FLOOR)
    return Difference(
        images=len(a),
        max_abs=absolute.max_abs,
        mean_abs=absolute.mean_abs,
        p99_abs=absolute.p99_abs,
        max_rel=float(relative.max()),
        mean_rel=float(relative.mean()),
        p99_rel=float(np.quantile(relative, 0.99)),
        snr_db=decibels(float((before**2).sum()), float((gap**2).sum())),
        agreement=float((decide(a, thresholds_a) == decide(b, thresholds_b)).mean()),
        rtol=float(beyond.max()),
        worst=absolute.worst,
    )


def relative_error(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """|A - B| / |A| as root mean squares; infinite where the shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    noise = float(((a.astype(np.float64) - b) ** 2).sum())
    signal = float((a.astype(np.float64) ** 2).sum())
    return float(np.sqrt(noise / signal)) if signal else float("inf" if noise else 0)


def error_db(error: float) -> float:
    """The signal-to-noise ratio in decibels that a relative error amounts to."""
    return float(-20 * np.log10(error)) if error else float("inf")
