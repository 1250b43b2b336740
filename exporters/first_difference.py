"""Two traces beside each other: where do they part first, from the input on, and between which
nodes does the fault lie? Measures; what may have caused it is ``diagnose.py``'s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .difference import relative_error
from .errors import ExportError
from .trace import Point

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
    """Lay two traces beside each other: layer by layer in graph order, as exporters and
    quantizers keep it. Raises ExportError when they are not of the same layers."""
    kinds_a, kinds_b = [_kind(point) for point in a], [_kind(point) for point in b]
    if kinds_a != kinds_b:
        raise ExportError(
            f"A has the layers {_words(a)}, B has {_words(b)}; expected the same kinds in the same "
            "order, so these two cannot be compared layer by layer."
        )
    return tuple(Pair(x, y, relative_error(x.values, y.values)) for x, y in zip(a, b, strict=True))


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
