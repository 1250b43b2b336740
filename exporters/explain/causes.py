"""Causes of a difference between two models. Common mistakes are tried one after the other: each is
a hypothesis that is computed, so swapped channels are tried by swapping channels. A difference that
no hypothesis explains is reported as measured, without a cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.error_metrics import relative_error
from exporters.evaluate.parity import Model
from exporters.evaluate.probabilities import Floats, add_up, log_odds
from exporters.evaluate.tasks import LabelTask
from exporters.explain.first_divergence import Divergence, PointPair
from exporters.explain.pixel_changes import move_between, moves, tone_between, with_gamma
from exporters.explain.trace import Values

# A hypothesis explains a difference of answers when it leaves at most this part of it.
EXPLAINED = 0.1
# Relative error of a healthy network's input, by the coarser precision: a mean in whole pixel
# values costs nothing in float, and 8 bits for three channels of different scales 0.006.
INPUT_NOISE = {"fp32": 1e-5, "fp16": 2e-3, "int8": 1.5e-2}
_RANGE = 0.05  # part of the range by which ends must differ to be reported
_SUM = 1e-2  # by which a row of a softmax of any precision may miss 1
_GAMMAS = (0.4, 0.5, 0.63, 0.8, 1.25, 1.6, 2.0, 2.5)


def output_causes(a: Floats, b: Floats, labels: Sequence[str], task: LabelTask) -> Iterator[str]:
    """Yield what the probabilities [n, labels] alone show."""
    order = _order(a, b)
    if order is not None:
        moved = [f"{labels[i]} is at {j}" for i, j in enumerate(order) if i != j]
        yield (
            f"the labels are in another order in B: its columns {list(map(int, order))} are A's "
            f"({', '.join(moved[:4])})"
        )
        return
    if task.sums_to_one:
        for name, soft, other in (("B", a, b), ("A", b, a)):
            undone = task.probabilities(np.asarray(log_odds(other), np.float32))
            if add_up(soft, _SUM) and not add_up(other, _SUM) and _explains(soft, other, undone):
                yield f"{name} ends in a sigmoid and the other side in a softmax"
                return
    yield from _temperature(a, b, task)


def _temperature(a: Floats, b: Floats, task: LabelTask) -> Iterator[str]:
    """Yield a factor of all logits, if undoing it explains the difference."""
    scores = task.scores(a, b)
    if scores is None:
        return
    x, y, accurate = scores
    power = float((x[accurate] ** 2).sum())
    factor = float((x[accurate] * y[accurate]).sum()) / power if power else 1.0
    if not (factor > 0 and abs(factor - 1) > 0.01):
        return
    if _explains(a, b, task.probabilities(np.asarray(y / factor, np.float32))):
        yield f"B's logits are A's times {factor:.3g}: a temperature of {1 / factor:.3g}"


def image_causes(
    a: Model, b: Model, images: NDArray[np.uint8], *, closed: bool = False
) -> Iterator[str]:
    """Yield the change of images with which B answers as A does, if it explains the difference.

    For ``closed`` models, which have no layers that could show them, shifts and tone curves are
    tried as well.
    """
    expected = a(images)
    before = relative_error(expected, b(images))
    best, best_words = EXPLAINED * before, ""
    changes = [(move.words, move.apply) for move in moves(images.shape) if closed or not move.edge]
    for words, change in (*changes, ("inverted (255 - x)", lambda x: 255 - x)):
        left = relative_error(expected, b(np.ascontiguousarray(change(images))))
        if left < best:
            best, best_words = left, words
    if closed and not best_words:
        best_words = _gamma(expected, b, images, best)
    if best_words:
        yield f"B answers as A does when its images are {best_words}"


def _gamma(expected: Floats, b: Model, images: NDArray[np.uint8], enough: float) -> str:
    """Try a grid of exponents, and two finer ones around the best."""
    errors: dict[float, float] = {}
    grid = list(_GAMMAS)
    for width in (1.12, 1.03, 1.01):
        for gamma in grid:
            errors[gamma] = relative_error(expected, b(with_gamma(images, gamma)))
        best = min(errors, key=lambda gamma: errors[gamma])
        grid = [best / width, best * width]
    return f"given with a gamma of {best:.3g}" if errors[best] < enough else ""


def input_causes(
    pairs: Sequence[PointPair], images: NDArray[np.uint8], precision: str
) -> Iterator[str]:
    """Yield differences in how pixels reach the first layer: geometry, normalization, range, tone.

    ``images`` [n, h, w, c] are those that were traced, ``precision`` is the coarser one.
    """
    if not pairs or pairs[0].a.parameters is None:
        return
    a, b, where = pairs[0].a.values, pairs[0].b.values, f"the input of {pairs[0].a.layer}"
    noise = INPUT_NOISE[precision]
    if a.shape != b.shape or a.ndim != 4 or not relative_error(a, b) > noise:
        return
    pixels = _as_pixels(images, a, b, noise)
    move = tone = None
    if pixels is not None:
        levels, step = pixels
        size = float(np.sqrt(np.mean(np.square(images, dtype=np.float64)))) or 1.0
        move = move_between(images, levels, step / size)
        tone = tone_between(images, levels, max(step, 0.02))
    else:
        move = move_between(np.moveaxis(a, 1, 3), np.moveaxis(b, 1, 3), noise)
    if move is not None:
        crop = ": another crop" if "shifted" in move else ""
        yield f"{where}: B's is A's {move}{crop}"
        return
    slope, offset, left = _line(a, b)
    if left <= noise and (tone is None or not tone.curved):
        words = ", ".join(f"{s:.4g} x {o:+.4g}" for s, o in zip(slope, offset, strict=True))
        added = f"; as if its pixels were {tone.words}" if tone is not None and tone.named else ""
        yield (
            f"{where} is normalized differently: B is A times and plus, by channel: {words}{added}"
        )
        return
    clipped = list(_clipped(a, b, where, noise, by_channel=True))
    yield from clipped
    if tone is not None and not clipped:
        yield f"{where} is as if the pixels of B were {tone.words}"


def _as_pixels(
    images: NDArray[np.uint8], a: Values, b: Values, noise: float
) -> tuple[NDArray[np.float64], float] | None:
    """Return B's input [n, c, h, w] in levels of pixels [n, h, w, c], by A's normalization, and
    the levels that ``noise`` makes; None where A's input is not the normalized images."""
    x = np.moveaxis(np.asarray(images, np.float32), 3, 1)
    if x.shape != a.shape:
        return None
    slope, offset, left = _line(x, a)
    if left > noise or not slope.all():
        return None
    levels = (np.moveaxis(b, 1, 3).astype(np.float64) - offset) / slope
    size = float(np.sqrt(np.mean(np.square(a, dtype=np.float64))))
    return levels, noise * size / float(np.abs(slope).min())


def divergence_causes(divergence: Divergence) -> Iterator[str]:
    """Yield what the first layer whose input differs shows; the network's own input is the subject
    of :func:`input_causes`."""
    a, b = divergence.pair.a, divergence.pair.b
    where = f"the input of {a.layer}" if a.operator else "the output"
    if a.values.shape != b.values.shape:
        yield f"{where} has the shape {a.values.shape[1:]} in A and {b.values.shape[1:]} in B"
        return
    for name, point in (("A", a), ("B", b)):
        if not np.isfinite(point.values).all():
            yield f"{where} is not finite in {name}: the first layer with NaN or infinity"
            return
    if divergence.index == 0 and a.operator:
        return
    low_a, low_b = float(a.values.min()), float(b.values.min())
    high_a, high_b = float(a.values.max()), float(b.values.max())
    if max(abs(low_a - low_b), abs(high_a - high_b)) > _RANGE * max(high_a - low_a, 1e-12):
        yield (
            f"{where} ranges from {low_a:.3g} to {high_a:.3g} in A and from {low_b:.3g} to "
            f"{high_b:.3g} in B"
        )
    factor = gain(a.values, b.values)
    scaled = np.asarray(factor * a.values)
    near = relative_error(b.values, scaled) <= divergence.limit
    if near and _explains(b.values, a.values, scaled):
        yield f"{where} is scaled in B: A's times {factor:.4g}"
    elif (low_a >= 0) != (low_b >= 0):
        yield f"an activation differs: only {'A' if low_a >= 0 else 'B'} has no negative values"
    else:
        yield from _clipped(a.values, b.values, where, divergence.limit)


def gain(a: Values, b: Values) -> float:
    """Return the factor f of the least-squares fit b = f * a; 1 where a is zero."""
    x, y = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    power = float(x @ x)
    return float(x @ y) / power if power else 1.0


def _line(a: Values, b: Values) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the least-squares line b = slope * a + offset of each channel, and the relative error
    that it leaves."""
    rows_a = np.moveaxis(a, 1, 0).reshape(a.shape[1], -1).astype(np.float64)
    rows_b = np.moveaxis(b, 1, 0).reshape(b.shape[1], -1).astype(np.float64)
    mean_a, mean_b = rows_a.mean(axis=1), rows_b.mean(axis=1)
    spread = ((rows_a - mean_a[:, None]) ** 2).mean(axis=1)
    both = ((rows_a - mean_a[:, None]) * (rows_b - mean_b[:, None])).mean(axis=1)
    slope = both / np.maximum(spread, 1e-12)
    offset = mean_b - slope * mean_a
    fitted = slope[:, None] * rows_a + offset[:, None]
    return slope, offset, relative_error(rows_b, fitted)


def _clipped(
    a: Values, b: Values, where: str, noise: float, *, by_channel: bool = False
) -> Iterator[str]:
    before = relative_error(a, b)
    axes = tuple(axis for axis in range(a.ndim) if axis != 1 or not by_channel)
    for name, wide, narrow in (("B", a, b), ("A", b, a)):
        low, high = narrow.min(axis=axes, keepdims=True), narrow.max(axis=axes, keepdims=True)
        cut = ((wide < low) | (wide > high)).any()
        left = relative_error(narrow, np.clip(wide, low, high))
        if cut and left < EXPLAINED * before and left <= noise:
            yield f"{where} is clipped to {low.min():.3g}..{high.max():.3g} in {name}"
            return


def _explains(expected: NDArray[np.floating], measured: Floats, changed: Floats) -> bool:
    return relative_error(expected, changed) < EXPLAINED * relative_error(expected, measured)


def _order(a: Floats, b: Floats) -> NDArray[np.int64] | None:
    """Return for each of A's columns the one of B's with the same values, if that is a permutation
    that explains the difference."""
    distance = np.abs(a[:, :, None].astype(np.float64) - b[:, None, :]).mean(axis=0)
    order = distance.argmin(axis=1)  # (labels of A) -> column of B
    if len(set(order.tolist())) != len(order) or (order == np.arange(len(order))).all():
        return None
    return order if _explains(a, b, b[:, order]) else None
