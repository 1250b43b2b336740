"""Two traces: matching layers, and the nodes before a difference."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.errors import ExportError
from exporters.evaluate.error_metrics import error_db, relative_error
from exporters.explain.first_divergence import first_divergence, pair_points
from exporters.explain.trace import Parameters, Point


def point(
    layer: str,
    value: float,
    behind: str,
    weight: tuple[int, ...] = (4, 4, 3, 3),
    kind: str = "Conv",
) -> Point:
    values = np.full((2, 4, 8, 8), value, np.float32)
    return Point(layer, kind, values, Parameters(np.zeros(weight, np.float32), None), tuple(behind))


END = Point("probabilities", "", np.zeros((2, 3), np.float32), None, tuple("abcde"))


def test_exchanged_branches_are_matched_by_shape() -> None:
    """As in a residual block: the 1x1 of the shortcut before or after the 3x3 of the other path."""
    a = (point("conv", 1, "a"), point("conv_1", 2, "ab"), point("short", 1, "a", (4, 4, 1, 1)), END)
    b = (point("Conv_0", 1, "A"), point("Conv_1", 1, "A", (4, 4, 1, 1)), point("Conv_2", 2, "AB"))
    pairs = pair_points(a, (*b, END))
    assert [p.b.layer for p in pairs] == ["Conv_0", "Conv_2", "Conv_1", "probabilities"]
    assert first_divergence(pairs, 1e-4) is None


def test_names_go_before_places() -> None:
    a = (point("Conv_0", 1, "a"), point("Conv_1", 2, "ab"))
    pairs = pair_points(a, a[::-1])
    assert [p.b.layer for p in pairs] == ["Conv_0", "Conv_1"]
    assert all(pair.error == 0 for pair in pairs)


def test_nodes_between_the_last_equal_point_and_the_first_other_one() -> None:
    a = (point("conv", 1, "a"), point("conv_1", 2, "abc"), point("conv_2", 3, "abcd"), END)
    b = (point("conv", 1, "A"), point("conv_1", 2.5, "ABC"), point("conv_2", 9, "ABCD"), END)
    parting = first_divergence(pair_points(a, b), 0.1)
    assert parting is not None and parting.index == 1 and parting.pair.a.layer == "conv_1"
    assert parting.suspects_a == ("b", "c") and parting.suspects_b == ("B", "C")
    assert parting.pair.error == pytest.approx(0.25)
    assert first_divergence(pair_points(a[:1], b[:1]), 0.1) is None


def test_not_a_number_is_a_difference() -> None:
    a, b = point("conv", 1, "a"), point("conv", float("nan"), "a")
    assert first_divergence(pair_points((a,), (b,)), 0.1) is not None


def test_another_shape_is_infinitely_far() -> None:
    (pair,) = pair_points((point("conv", 1, "a"),), (point("conv", 1, "a", (4, 8, 3, 3)),))
    assert pair.a.parameters is not None and pair.error == 0
    assert relative_error(np.ones((2, 3)), np.ones((3, 2))) == float("inf")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (("Conv", "Gemm"), ("Conv",)),
        (("Conv",), ("Conv", "Gemm")),
        (("Conv", "Conv"), ("Conv", "Gemm")),
    ],
)
def test_other_layers_are_refused(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    with pytest.raises(ExportError, match="cannot be compared layer by layer"):
        pair_points(
            [point(f"a{i}", 1, "a", kind=kind) for i, kind in enumerate(a)],
            [point(f"b{i}", 1, "a", kind=kind) for i, kind in enumerate(b)],
        )


def test_decibels() -> None:
    assert error_db(0.1) == pytest.approx(20) and error_db(0) == float("inf")
