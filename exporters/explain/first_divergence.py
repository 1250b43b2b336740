"""Two traces side by side: the first point at which they differ, from the input on, and the nodes
between that point and the last equal one. ``causes.py`` looks for the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporters.errors import ExportError
from exporters.evaluate.error_metrics import relative_error
from exporters.explain.trace import Point

# Relative error of a layer's input above which two models differ, by the coarser of their
# precisions; healthy models of the digit and face recipes showed 1e-6, 1e-3 and 0.01 to 0.06.
LIMITS = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.15}


@dataclass(frozen=True)
class PointPair:
    """The same point of two models."""

    a: Point
    b: Point
    error: float  # relative, root mean square; infinite where the shapes differ


@dataclass(frozen=True)
class Divergence:
    """The first point at which two models differ, and the nodes before it."""

    index: int  # of the pair
    pair: PointPair
    limit: float
    suspects_a: tuple[str, ...]  # nodes between the last equal points and this one
    suspects_b: tuple[str, ...]


def pair_points(a: Sequence[Point], b: Sequence[Point]) -> tuple[PointPair, ...]:
    """Match the points of two traces, in the order of the first.

    Layers match by name where both models have it, or else in graph order among those of the same
    kind and shapes: quantizers may exchange the two branches of a residual block. Raises
    ExportError when one trace has layers that the other lacks.
    """
    left = list(b)
    pairs = []
    for point in a:
        alike = [other for other in left if _signature(other) == _signature(point)]
        if not alike and len(a) == len(b):  # another shape: by position, so that it is reported
            alike = [other for other in left if _kind(other) == _kind(point)]
        if not alike:
            raise ExportError(
                f"A has the layers {_names(a)}, B has {_names(b)}; expected the same kinds, so "
                "these two cannot be compared layer by layer."
            )
        same_name = [other for other in alike if other.layer == point.layer]
        match = (same_name or alike)[0]
        left = [other for other in left if other is not match]
        pairs.append(PointPair(point, match, relative_error(point.values, match.values)))
    if left:
        raise ExportError(
            f"B has the layers {_names(left)} in addition to those of A; expected the same, so "
            "these two cannot be compared layer by layer."
        )
    return tuple(pairs)


def _signature(point: Point) -> tuple[object, ...]:
    weight = None if point.parameters is None else point.parameters.weight.shape
    return _kind(point), weight, point.values.shape


def _kind(point: Point) -> str:
    return "Gemm" if point.operator == "MatMul" else point.operator


def _names(points: Sequence[Point]) -> str:
    return ", ".join(point.layer for point in points)


def first_divergence(pairs: Sequence[PointPair], limit: float) -> Divergence | None:
    """Return the first pair whose error exceeds ``limit``, from the input on, or None."""
    for index, pair in enumerate(pairs):
        if not pair.error <= limit:
            equal = [p for p in pairs[:index] if p.error <= limit]
            cleared_a = {name for p in equal for name in p.a.behind}
            cleared_b = {name for p in equal for name in p.b.behind}
            return Divergence(
                index,
                pair,
                limit,
                tuple(name for name in pair.a.behind if name not in cleared_a),
                tuple(name for name in pair.b.behind if name not in cleared_b),
            )
    return None
