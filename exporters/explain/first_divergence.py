"""Two traces beside each other: where do they part first, from the input on, and between which
nodes does the fault lie? Measures; what may have caused it is ``diagnose.py``'s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporters.errors import ExportError
from exporters.evaluate.error_metrics import relative_error
from exporters.explain.trace import Point

# Relative error of a layer's input from which two forms have parted, by the coarser of their
# precisions; measured on the digit and face recipes: 1e-6, 1e-3 and 0.01 to 0.06 where all is well.
LIMITS = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.15}


@dataclass(frozen=True)
class Pair:
    """The same point of two forms."""

    a: Point
    b: Point
    error: float  # relative, root mean square; infinite where the shapes differ


@dataclass(frozen=True)
class Parting:
    """The first point at which two forms differ, and what lies before it."""

    index: int  # of the pair
    pair: Pair
    limit: float
    suspects_a: tuple[str, ...]  # nodes between the last equal points and this one
    suspects_b: tuple[str, ...]


def pair_up(a: Sequence[Point], b: Sequence[Point]) -> tuple[Pair, ...]:
    """Lay two traces beside each other, in the order of the first.

    Layers belong together by name where both forms have it, or else in graph order among those of
    the same kind and shapes: quantizers may exchange the two branches of a residual block. Raises
    ExportError when one trace has layers that the other has not.
    """
    left = list(b)
    pairs = []
    for point in a:
        alike = [other for other in left if _signature(other) == _signature(point)]
        if not alike and len(a) == len(b):  # another shape: by place, so that it can be told
            alike = [other for other in left if _kind(other) == _kind(point)]
        if not alike:
            raise ExportError(
                f"A has the layers {_words(a)}, B has {_words(b)}; expected the same kinds, so "
                "these two cannot be compared layer by layer."
            )
        same_name = [other for other in alike if other.layer == point.layer]
        match = (same_name or alike)[0]
        left = [other for other in left if other is not match]
        pairs.append(Pair(point, match, relative_error(point.values, match.values)))
    if left:
        raise ExportError(
            f"B has the layers {_words(left)} beyond those of A; expected the same, so these two "
            "cannot be compared layer by layer."
        )
    return tuple(pairs)


def _signature(point: Point) -> tuple[object, ...]:
    weight = None if point.parameters is None else point.parameters.weight.shape
    return _kind(point), weight, point.values.shape


def _kind(point: Point) -> str:
    return "Gemm" if point.operator == "MatMul" else point.operator


def _words(points: Sequence[Point]) -> str:
    return ", ".join(point.layer for point in points)


def first_parting(pairs: Sequence[Pair], limit: float) -> Parting | None:
    """The first pair whose error is over ``limit``, from the input on, or None."""
    for index, pair in enumerate(pairs):
        if not pair.error <= limit:
            equal = [p for p in pairs[:index] if p.error <= limit]
            known_a = {name for p in equal for name in p.a.behind}
            known_b = {name for p in equal for name in p.b.behind}
            return Parting(
                index,
                pair,
                limit,
                tuple(name for name in pair.a.behind if name not in known_a),
                tuple(name for name in pair.b.behind if name not in known_b),
            )
    return None
