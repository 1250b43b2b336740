"""Changes of pixels that explain a difference: geometry, channels, tone. Each hypothesis is a
function of images [n, h, w, c], which is computed and measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.error_metrics import relative_error

Images = NDArray[Any]  # [n, h, w, c]
Change = Callable[[Images], Images]

FAR = 3  # rows and columns by which a crop may be off
_LEVEL = 0.75  # levels that rounding to 8 bits may leave of a tone curve, root mean square
_ROUNDING = 0.35  # levels: a little more than 1 / sqrt(12)
_GAMMAS = (0.2, 5.0)
_FULL = 255.0
_DECODED = "decoded from sRGB to linear light"
_ENCODED = "encoded from linear light to sRGB"


@dataclass(frozen=True)
class Move:
    """A change of geometry or of channels that loses only an edge."""

    words: str  # what happened to A's pixels in B
    apply: Change
    edge: int = 0  # rows and columns at the edge to ignore


def moves(shape: Sequence[int]) -> Iterator[Move]:
    """Yield exchanged channels, turns, mirrors and shifts of images of ``shape`` [n, h, w, c]."""
    height, width, channels = shape[1:]
    usual = tuple(range(channels))
    for order in permutations(usual) if 1 < channels <= 4 else ():
        if order == usual[::-1]:
            yield Move("given with color channels in the reverse order", lambda x: x[..., ::-1])
        elif order != usual:
            words = f"given with color channels in the order {list(order)}"
            yield Move(words, lambda x, order=order: x[..., list(order)])  # type: ignore[misc]  # a default
    if height == width:
        yield Move("transposed: height and width are exchanged", lambda x: x.swapaxes(1, 2))
        yield Move("turned by 90 degrees to the left", lambda x: np.rot90(x, 1, (1, 2)))
        yield Move("turned by 90 degrees to the right", lambda x: np.rot90(x, -1, (1, 2)))
    yield Move("mirrored left to right", lambda x: x[:, :, ::-1])
    yield Move("turned upside down", lambda x: x[:, ::-1])
    yield Move("turned by 180 degrees", lambda x: x[:, ::-1, ::-1])
    for dy, dx in product(range(-FAR, FAR + 1), repeat=2):
        edge = max(abs(dy), abs(dx))
        if (dy, dx) != (0, 0) and min(height, width) > 4 * edge:
            yield Move(f"shifted by {dy} rows and {dx} columns", _shift(dy, dx), edge)


def _shift(dy: int, dx: int) -> Change:
    """Move the content down and to the right; the edge is repeated, as a crop may do."""

    def change(images: Images) -> Images:
        rows = np.clip(np.arange(images.shape[1]) - dy, 0, images.shape[1] - 1)
        columns = np.clip(np.arange(images.shape[2]) - dx, 0, images.shape[2] - 1)
        return images[:, rows][:, :, columns]

    return change


def move_between(a: Images, b: Images, floor: float) -> str | None:
    """Return the change that turns A into B with a relative error of at most ``floor``; None where
    there is none, or where A and B do not differ."""
    if relative_error(a, b) <= floor:
        return None
    for move in moves(a.shape):
        inner = (slice(None), *[slice(move.edge, -move.edge or None)] * 2)
        if relative_error(b[inner], move.apply(a)[inner]) <= floor:
            return move.words
    return None


# --- tone ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """One curve for the tones of all channels."""

    words: str
    apply: Callable[[NDArray[np.float64]], NDArray[np.float64]]  # levels 0..255 to levels
    kind: str = "line"  # curves of one kind contain each other, from the simplest on
    named: bool = True  # a common mistake


@dataclass(frozen=True)
class Tone:
    """A change of the tones of an image."""

    words: str  # follow "as if they were"
    curved: bool  # the change may not be a line
    named: bool  # a common mistake, not just any line


def tone_between(x: NDArray[Any], y: NDArray[np.floating], noise: float = _LEVEL) -> Tone | None:
    """Return the tone curve that turns levels ``x`` (0 to 255, any shape) into levels ``y``.

    It fits up to ``noise`` levels root mean square. None where nothing changes, or where y is not
    a function of x. Where two kinds of curves fit equally well, both are named.
    """
    levels, means, counts, spread = _table(x, y)
    before = _rms(means - levels, counts)
    if len(levels) < 3 or before < 1e-3 or spread > noise:
        return None
    rounded = bool((means == np.rint(means)).all())
    enough = max(0.1 * before, _ROUNDING if rounded else 0)
    bound = min(noise, enough, 0.05 * _rms(means - np.average(means), counts))
    fits = [
        (left, curve)
        for curve in _curves(levels, means, counts)
        if (left := _left(curve, levels, means, counts)) <= bound
    ]
    if not fits:
        shown = [len(levels) * quarter // 4 for quarter in (1, 2, 3)]
        steps = ", ".join(f"{levels[i]:.0f} becomes {means[i]:.1f}" for i in shown)
        return Tone(f"given through another tone curve: {steps}", True, False)
    best = min(left for left, _ in fits)
    near: dict[str, Curve] = {}
    for left, curve in fits:
        if left <= 1.5 * best + 0.02:
            near.setdefault(curve.kind, curve)
    words = " or ".join(curve.words for curve in near.values())
    if len(near) > 1:
        words = f"{words}: these pictures do not show which"
    return Tone(words, "curve" in near, all(curve.named for curve in near.values()))


def _left(
    curve: Curve,
    levels: NDArray[np.float64],
    means: NDArray[np.float64],
    counts: NDArray[np.float64],
) -> float:
    """Return the error that a curve leaves, rounded to 8 bits or not."""
    fitted = curve.apply(levels)
    rounded = np.clip(np.rint(fitted), 0, _FULL)
    return min(_rms(means - fitted, counts), _rms(means - rounded, counts))


def _table(
    x: NDArray[Any], y: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """Return each level of x, the mean of y there, the count of it, and the spread of y."""
    rows = np.rint(x).astype(np.int64).reshape(-1)
    values = y.reshape(-1).astype(np.float64)
    counts = np.bincount(rows, minlength=256).astype(np.float64)
    sums = np.bincount(rows, values, 256)
    means = sums / np.maximum(counts, 1)
    spread = float(np.sqrt(np.mean((values - means[rows]) ** 2)))
    levels = np.flatnonzero(counts)
    return levels.astype(np.float64), means[levels], counts[levels], spread


def _curves(
    levels: NDArray[np.float64], means: NDArray[np.float64], counts: NDArray[np.float64]
) -> Iterator[Curve]:
    """Yield curves from the simplest to the most general."""
    yield Curve("inverted (255 - x)", lambda v: _FULL - v)
    yield Curve("divided by 255 once more", lambda v: v / _FULL)
    yield Curve("not divided by 255", lambda v: v * _FULL)
    inner = (means > 0) & (means < _FULL)  # a brighter picture is cut off outside
    if inner.any():
        step = float(np.median((means - levels)[inner]))
        way = "brighter" if step > 0 else "darker"
        plural = "" if abs(step) == 1 else "s"
        words = f"{way} by {abs(step):.3g} level{plural}"
        yield Curve(words, lambda v: np.clip(v + step, 0, _FULL), named=False)
        slope, offset = np.polyfit(levels[inner], means[inner], 1, w=np.sqrt(counts[inner]))
        words = f"given with another contrast ({slope:.4g} x {offset:+.4g})"
        yield Curve(words, lambda v: slope * v + offset, named=False)
        yield Curve(words, lambda v: np.clip(slope * v + offset, 0, _FULL), named=False)
    yield Curve(_DECODED, _linear_light, "curve")
    yield Curve(_ENCODED, _srgb, "curve")
    gamma = _gamma(levels, means, counts)
    yield Curve(f"given with a gamma of {gamma:.3g}", lambda v: _power(v, gamma), "curve")


def _gamma(
    levels: NDArray[np.float64], means: NDArray[np.float64], counts: NDArray[np.float64]
) -> float:
    """Return the best exponent, by three grids, each finer than the one before."""
    low, high = np.log(_GAMMAS)
    for _ in range(3):
        grid = np.linspace(low, high, 33)
        errors = [_rms(means - _power(levels, float(np.exp(g))), counts) for g in grid]
        best, step = int(np.argmin(errors)), float(grid[1] - grid[0])
        low, high = grid[best] - step, grid[best] + step
    return float(np.exp(grid[best]))


def _power(v: NDArray[np.float64], gamma: float) -> NDArray[np.float64]:
    return np.asarray(_FULL * (np.clip(v, 0, _FULL) / _FULL) ** gamma)


def _linear_light(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decode sRGB (IEC 61966-2-1)."""
    s = v / _FULL
    return np.asarray(_FULL * np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4))


def _srgb(v: NDArray[np.float64]) -> NDArray[np.float64]:
    s = np.clip(v, 0, _FULL) / _FULL
    return np.asarray(_FULL * np.where(s <= 0.0031308, s * 12.92, 1.055 * s ** (1 / 2.4) - 0.055))


def with_gamma(images: NDArray[np.uint8], gamma: float) -> NDArray[np.uint8]:
    """Return images with another gamma, rounded to 8 bits."""
    table = np.rint(_power(np.arange(256.0), gamma)).astype(np.uint8)
    return table[images]


def _rms(values: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    return float(np.sqrt((counts * values**2).sum() / counts.sum()))
