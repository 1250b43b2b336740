"""Weights that differ between two models. A cause is named only where it gives exactly these
numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.error_metrics import relative_error
from exporters.explain.first_divergence import PointPair
from exporters.explain.trace import Norm, Parameters, Values

_EQUAL = 1e-5  # relative difference of float weights that were only folded or rounded
_MANY = 6  # layers with other parameters that are each named
_FEW = 4  # output channels that are each named
_ROW = 4  # weights of an output channel from which a common factor is not chance
_SAME_FACTOR = 5e-3  # relative spread of factors that count as one
_EXPLAINED = 0.1  # part of the difference that a change of order may leave


def parameter_causes(pairs: Sequence[PointPair]) -> Iterator[str]:
    """Yield layers whose weights differ as the layers use them: dequantized, with batch norm
    folded. 8-bit weights may differ by half a step."""
    sentences = [
        f"{pair.a.layer}{'' if pair.a.layer == pair.b.layer else f' / {pair.b.layer}'}: {words}"
        for pair in pairs
        if pair.a.parameters is not None and pair.b.parameters is not None
        for words in _compare(pair.a.parameters, pair.b.parameters)
    ]
    yield from sentences[:_MANY]
    if len(sentences) > _MANY:
        yield f"and {len(sentences) - _MANY} more: these are not the weights of one training"


def differs(a: Parameters, b: Parameters) -> bool:
    """Return True where weights or biases differ by more than rounding."""
    return any(_compare(a, b))


def common_factor(a: Parameters, b: Parameters) -> float | None:
    """Return the one factor between all of A's and B's weights, up to rounding; None where there is
    none, or where it is 1."""
    other = b.weight.reshape(a.weight.shape)
    power = float((a.weight.astype(np.float64) ** 2).sum())
    if not power or not weights_apart(a, b):
        return None
    factor = float((a.weight.astype(np.float64) * other).sum()) / power
    bound = 1.5 * _allowed(a, b) * max(1.0, abs(factor))
    return factor if (np.abs(other - factor * a.weight) <= bound).all() else None


def weights_apart(a: Parameters, b: Parameters) -> bool:
    """Return True where weights differ by more than rounding."""
    within = np.abs(a.weight - b.weight.reshape(a.weight.shape)) <= _allowed(a, b)
    return not within.all()  # NaN counts as apart


def _allowed(a: Parameters, b: Parameters) -> Values:
    """Return half a step of rounding, plus what the edge of a 7-bit or symmetric range cuts off."""
    scale = float(np.abs(a.weight).max()) or 1.0
    allowed = 1.01 * (np.asarray(a.step) + np.asarray(b.step)) + _EQUAL * scale
    return np.broadcast_to(allowed, a.weight.shape)


def _compare(a: Parameters, b: Parameters) -> Iterator[str]:
    if a.weight.size != b.weight.size:
        yield f"the weights have the shape {a.weight.shape} in A and {b.weight.shape} in B"
        return
    other = b.weight.reshape(a.weight.shape) if a.weight.shape != b.weight.shape else b.weight
    if weights_apart(a, b):
        yield from _weights(a, b, other)
    yield from _biases(a, b, float(np.abs(a.weight).max()) or 1.0)


def _weights(a: Parameters, b: Parameters, other: Values) -> Iterator[str]:
    allowed = _allowed(a, b)
    wrong = ~(np.abs(a.weight - other) <= allowed)  # true of NaN
    count = len(a.weight)
    rows_a, rows_b = a.weight.reshape(count, -1), other.reshape(count, -1)
    words = _by_channel(a, b, rows_a, rows_b, wrong.reshape(count, -1), allowed.reshape(count, -1))
    if words:
        yield from words
        return
    count, size = int(wrong.sum()), wrong.size
    if count <= max(1, size // 100):
        index = tuple(map(int, np.argwhere(wrong)[0]))
        yield (
            f"{count} of {size:,} weights differ; the one at {list(index)} is "
            f"{a.weight[index]:.6g} in A and {other[index]:.6g} in B"
        )
        return
    if a.weight.ndim == 4:
        for text, changed in (
            ("its input channels are in the reverse order", other[:, ::-1]),
            ("its kernels are transposed", other.swapaxes(2, 3)),
        ):
            before = relative_error(a.weight, other)
            if relative_error(a.weight, changed) < _EXPLAINED * before:
                yield text
                return
    yield f"{count:,} of {size:,} weights differ, by up to {np.abs(a.weight - other).max():.3g}"


def _by_channel(
    a: Parameters,
    b: Parameters,
    rows_a: Values,
    rows_b: Values,
    wrong: NDArray[np.bool_],
    allowed: Values,
) -> list[str]:
    """Return sentences about output channels that are zero or scaled as a whole, if they explain
    every weight that differs. All arrays are [out, weights of one output channel]."""
    off: NDArray[np.bool_] = np.asarray(wrong.any(axis=1))
    if rows_a.shape[1] < _ROW or not off.any():
        return []
    sentences = []
    for name, has, lacks in (("B", rows_a, rows_b), ("A", rows_b, rows_a)):
        dead = np.asarray(off & ~lacks.any(axis=1) & has.any(axis=1))
        if dead.any():
            sentences.append(f"{_channels(dead)} zero in {name}: a dead filter")
            off = off & ~dead
    power = np.maximum((rows_a.astype(np.float64) ** 2).sum(axis=1), 1e-30)
    factor = (rows_a.astype(np.float64) * rows_b).sum(axis=1) / power
    left = np.abs(rows_b - factor[:, None] * rows_a)
    # a step of A's own rounding is scaled along with its weights
    bound = 1.5 * allowed * np.maximum(1, np.abs(factor))[:, None]
    if not (left <= bound)[off].all():
        return []
    if off.any():
        sentences.append(_scaled(a, b, factor, off))
    return sentences


def _scaled(
    a: Parameters, b: Parameters, factor: NDArray[np.float64], off: NDArray[np.bool_]
) -> str:
    some = factor[off]
    if off.all() and np.ptp(some) <= _SAME_FACTOR * np.abs(some).mean():
        mean = float(np.median(some))
        quantized = " (a scale of its 8-bit weights)" if isinstance(b.step, np.ndarray) else ""
        for words, value in (("divided by 255 once more", 1 / 255), ("not divided by 255", 255.0)):
            if abs(mean / value - 1) < _SAME_FACTOR:
                return f"all weights are scaled by {mean:.5g}: {words}"
        return f"all weights are scaled by {mean:.5g}{quantized}"
    if not off.all() and off.sum() <= _FEW:
        text = ", ".join(f"{factor[i]:.5g}" for i in np.flatnonzero(off))
        return f"{_channels(off)} scaled by {text} in B"
    return (
        f"{'each output channel is' if off.all() else f'{_channels(off)}'} scaled, by "
        f"{some.min():.5g} to {some.max():.5g}{_norm_cause(a, b, factor)}"
    )


def _channels(chosen: NDArray[np.bool_]) -> str:
    indices = np.flatnonzero(chosen)
    if len(indices) > _FEW:
        return f"{len(indices)} of {len(chosen)} output channels are"
    named = ", ".join(map(str, indices))
    many = len(indices) > 1
    return f"output channel{'s' if many else ''} {named} of {len(chosen)} {'are' if many else 'is'}"


def _norm_cause(a: Parameters, b: Parameters, factor: NDArray[np.float64]) -> str:
    """Return a sentence about batch norm where its statistics give these factors, else ""."""
    for name, norm, own in (("B", a.norm, factor), ("A", b.norm, 1 / factor)):
        if norm is None:
            continue
        if np.allclose(own * norm.factor, 1, rtol=_SAME_FACTOR):
            return f": batch norm is not folded in {name}"
        epsilon = _epsilon(norm, own)
        if epsilon is not None:
            return f": batch norm with the epsilon {epsilon:.3g} in {name}, not {norm.epsilon:.3g}"
    return ""


def _epsilon(norm: Norm, factor: NDArray[np.float64]) -> float | None:
    """Return the one epsilon that gives every channel's factor, or None: factor = sqrt((variance +
    epsilon) / (variance + other))."""
    variance = norm.variance.astype(np.float64)
    others = (variance + norm.epsilon) / factor**2 - variance
    other = float(np.median(others))
    if other < 0:
        return None
    predicted = np.sqrt((variance + norm.epsilon) / (variance + other))
    return other if np.allclose(predicted, factor, rtol=_SAME_FACTOR) else None


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
    wrong = ~(gap <= (0.02 if quantized else _EQUAL) * largest)  # an 8-bit file keeps 32-bit biases
    if wrong.any():
        first = int(np.argmax(gap))
        zero = "dropped (0) in B" if not b.bias.any() else f"{b.bias[first]:.6g} in B"
        yield (
            f"its bias differs in {int(wrong.sum())} of {gap.size} channels: at {first} it is "
            f"{a.bias[first]:.6g} in A and {zero}"
        )
