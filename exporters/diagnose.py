"""Why do two forms differ? Tries the mistakes that people make, one after the other, and says
which of them explains what is seen. Each is a hypothesis that is computed, never a guess from a
name: swapped channels are tried by swapping channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from .difference import relative_error
from .first_difference import Pair, Parting
from .metrics import Floats
from .parity import Model
from .trace import Parameters, Values

# A hypothesis explains a difference when it leaves at most this part of it.
EXPLAINED = 0.1
_EQUAL = 1e-5  # relative difference of float weights that were only folded or rounded
_SHIFTS = [pair for pair in product((-1, 0, 1), repeat=2) if pair != (0, 0)]
_RANGE = 0.05  # part of the range by which ends must differ to be worth telling
_MANY = 6  # layers with other parameters of which each is named


def of_outputs(a: Floats, b: Floats, labels: Sequence[str]) -> Iterator[str]:
    """What the probabilities alone show."""
    order = _order(a, b)
    if order is not None:
        moved = [f"{labels[i]} is at {j}" for i, j in enumerate(order) if i != j]
        yield (
            f"the labels are in another order in B: its columns {list(map(int, order))} are A's "
            f"({', '.join(moved[:4])})"
        )


def of_images(a: Model, b: Model, images: NDArray[np.uint8]) -> Iterator[str]:
    """What B would have to be given so that it answers as A does."""
    expected, found = a(images), b(images)
    for words, change in _image_changes(images.shape):
        if _explains(expected, found, b(np.ascontiguousarray(change(images)))):
            yield f"B answers as A does when its images are {words}"
            return


def _image_changes(
    shape: tuple[int, ...],
) -> Iterator[tuple[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]]]:
    if shape[3] > 1:
        yield "given with their colour channels in the reverse order", lambda x: x[..., ::-1]
    if shape[1] == shape[2]:
        yield "transposed: height and width are exchanged", lambda x: x.swapaxes(1, 2)
    yield "mirrored left to right", lambda x: x[:, :, ::-1]
    yield "turned upside down", lambda x: x[:, ::-1]
    yield "inverted (255 - x)", lambda x: 255 - x


def of_parting(parting: Parting) -> Iterator[str]:
    """What the first layer whose input differs shows."""
    a, b = parting.pair.a, parting.pair.b
    where = f"the input of {a.layer}" if a.operator else "the output"
    if a.values.shape != b.values.shape:
        yield f"{where} has the shape {a.values.shape[1:]} in A and {b.values.shape[1:]} in B"
        return
    if parting.index == 0:
        yield from _of_input(a.values, b.values, where)
        return
    low_a, low_b = float(a.values.min()), float(b.values.min())
    high_a, high_b = float(a.values.max()), float(b.values.max())
    if max(abs(low_a - low_b), abs(high_a - high_b)) > _RANGE * max(high_a - low_a, 1e-12):
        yield (
            f"{where} lies from {low_a:.3g} to {high_a:.3g} in A and from {low_b:.3g} to "
            f"{high_b:.3g} in B"
        )
    if (low_a >= 0) != (low_b >= 0):
        yield f"an activation differs: only {'A' if low_a >= 0 else 'B'} has no negative values"
    else:
        yield from _clipped(a.values, b.values, where)


def _of_input(a: Values, b: Values, where: str) -> Iterator[str]:
    """Normalisation, layout and crop, in this order; the first that explains it is told."""
    before = relative_error(a, b)
    if a.ndim == 4 and a.shape[1] > 1 and relative_error(a, b[:, ::-1]) < EXPLAINED * before:
        yield f"{where} has its colour channels in the reverse order"
        return
    if (
        a.ndim == 4
        and a.shape[2] == a.shape[3]
        and relative_error(a, b.swapaxes(2, 3)) < EXPLAINED * before
    ):
        yield f"{where} is transposed: height and width are exchanged"
        return
    for dy, dx in _SHIFTS if a.ndim == 4 else ():
        inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
        if relative_error(a[inner], np.roll(b, (dy, dx), (2, 3))[inner]) < EXPLAINED * before:
            yield f"{where} is shifted by {-dy} rows and {-dx} columns in B: another crop"
            return
    slope, offset, left = _line(a, b)
    if left < EXPLAINED * before:
        words = ", ".join(f"{s:.4g} x {o:+.4g}" for s, o in zip(slope, offset, strict=True))
        yield f"{where} is normalised otherwise: B is A times and plus, by channel: {words}"
        return
    yield from _clipped(a, b, where)


def _line(a: Values, b: Values) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The least-squares line b = slope * a + offset of each channel, and the relative error that
    it leaves."""
    rows_a = np.moveaxis(a, 1, 0).reshape(a.shape[1], -1).astype(np.float64)
    rows_b = np.moveaxis(b, 1, 0).reshape(b.shape[1], -1).astype(np.float64)
    mean_a, mean_b = rows_a.mean(axis=1), rows_b.mean(axis=1)
    spread = ((rows_a - mean_a[:, None]) ** 2).mean(axis=1)
    both = ((rows_a - mean_a[:, None]) * (rows_b - mean_b[:, None])).mean(axis=1)
    slope = both / np.maximum(spread, 1e-12)
    offset = mean_b - slope * mean_a
    fitted = slope[:, None] * rows_a + offset[:, None]
    return slope, offset, relative_error(rows_b, fitted)


def _clipped(a: Values, b: Values, where: str) -> Iterator[str]:
    before = relative_error(a, b)
    axes = tuple(axis for axis in range(a.ndim) if axis != 1 or a.ndim != 4)  # by channel
    for name, wide, narrow in (("B", a, b), ("A", b, a)):
        low, high = narrow.min(axis=axes, keepdims=True), narrow.max(axis=axes, keepdims=True)
        cut = ((wide < low) | (wide > high)).any()
        if cut and relative_error(narrow, np.clip(wide, low, high)) < EXPLAINED * before:
            yield f"{where} is clipped to {low.min():.3g}..{high.max():.3g} in {name}"
            return


def of_parameters(pairs: Sequence[Pair]) -> Iterator[str]:
    """Layers whose weights are not each other's, as the layers use them: dequantized, with batch
    norm folded. 8-bit weights may differ by half a step."""
    said = [
        f"{pair.a.layer}{'' if pair.a.layer == pair.b.layer else f' / {pair.b.layer}'}: {words}"
        for pair in pairs
        if pair.a.parameters is not None and pair.b.parameters is not None
        for words in _compare(pair.a.parameters, pair.b.parameters)
    ]
    yield from said[:_MANY]
    if len(said) > _MANY:
        yield f"and {len(said) - _MANY} more: these are not the weights of one training"


def _compare(a: Parameters, b: Parameters) -> Iterator[str]:
    if a.weight.size != b.weight.size:
        yield f"the weights have the shape {a.weight.shape} in A and {b.weight.shape} in B"
        return
    other = b.weight.reshape(a.weight.shape) if a.weight.shape != b.weight.shape else b.weight
    gap = np.abs(a.weight - other)
    scale = float(np.abs(a.weight).max()) or 1.0
    # Half a step of rounding, and what the edge of a 7-bit or symmetric range cuts off.
    allowed = 1.01 * (np.asarray(a.step) + np.asarray(b.step)) + _EQUAL * scale
    wrong = gap > np.broadcast_to(allowed, gap.shape)
    if wrong.any():
        yield from _weights(a, other, wrong)
    yield from _biases(a, b, scale)


def _weights(a: Parameters, other: Values, wrong: NDArray[np.bool_]) -> Iterator[str]:
    count, size = int(wrong.sum()), wrong.size
    if count <= max(1, size // 100):
        place = tuple(map(int, np.argwhere(wrong)[0]))
        yield (
            f"{count} of {size:,} weights differ; the one at {list(place)} is "
            f"{a.weight[place]:.6g} in A and {other[place]:.6g} in B"
        )
        return
    if a.weight.ndim == 4:
        for words, changed in (
            ("its input channels are in the reverse order", other[:, ::-1]),
            ("its kernels are transposed", other.swapaxes(2, 3)),
        ):
            if changed.shape == a.weight.shape and _explains(a.weight, other, changed):
                yield words
                return
    rows_a, rows_b = a.weight.reshape(len(a.weight), -1), other.reshape(len(other), -1)
    factor = (rows_a * rows_b).sum(axis=1) / np.maximum((rows_a**2).sum(axis=1), 1e-12)
    if _explains(rows_b, rows_a, factor[:, None] * rows_a):
        yield (
            f"each output channel is scaled, by {factor.min():.5g} to {factor.max():.5g}: batch "
            "norm with another epsilon or other statistics, or not folded"
        )
        return
    yield f"{count:,} of {size:,} weights differ, by up to {np.abs(a.weight - other).max():.3g}"


def _biases(a: Parameters, b: Parameters, scale: float) -> Iterator[str]:
    if a.bias is None and b.bias is None:
        return
    for name, has, lacks in (("B", a.bias, b.bias), ("A", b.bias, a.bias)):
        if has is not None and lacks is None:
            if np.abs(has).max() > _EQUAL * scale:
                yield f"its bias is missing in {name}"
            return
    assert a.bias is not None and b.bias is not None
    gap = np.abs(a.bias - b.bias)
    largest = max(scale, float(np.abs(a.bias).max()))
    quantized = isinstance(b.step, np.ndarray) or b.step or isinstance(a.step, np.ndarray) or a.step
    wrong = gap > (0.02 if quantized else _EQUAL) * largest  # an 8-bit file keeps 32-bit biases
    if wrong.any():
        first = int(np.argmax(gap))
        zero = "dropped (0) in B" if not b.bias.any() else f"{b.bias[first]:.6g} in B"
        yield (
            f"its bias differs in {int(wrong.sum())} of {gap.size} channels: at {first} it is "
            f"{a.bias[first]:.6g} in A and {zero}"
        )


def _explains(expected: NDArray[np.float32], found: Floats, changed: Floats) -> bool:
    return relative_error(expected, changed) < EXPLAINED * relative_error(expected, found)


def _order(a: Floats, b: Floats) -> NDArray[np.int64] | None:
    """For each of A's columns the one of B's with the same values, when that is a permutation
    that explains the difference."""
    distance = np.abs(a[:, :, None].astype(np.float64) - b[:, None, :]).mean(axis=0)
    order = distance.argmin(axis=1)  # (labels of A) -> column of B
    if len(set(order.tolist())) != len(order) or (order == np.arange(len(order))).all():
        return None
    return order if _explains(a, b, b[:, order]) else None
