"""The pair rule against hand-computed weights and a simulation of the kernel it speaks of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from exporters.quantize.portability import PAIR_LIMIT, worst_pair


@pytest.mark.parametrize(
    ("values", "channel_axis", "expected"),
    [
        ([[64, 64, 0]], 0, 128),  # a full 7-bit pair: 255 * 128 = 32640 fits
        ([[64, -65, 0]], 0, 129),  # 255 * 129 = 32895 does not
        ([[127, 0, 127]], 0, 127),  # no neighbors
        ([[0, 127, 127]], 0, 254),  # an odd offset counts as well
        ([[127], [127]], 0, 127),  # two output channels, each alone
        ([[127], [127]], 1, 254),  # the same numbers as one output channel of a MatMul
        ([[5]], 0, 5),
    ],
)
def test_matrices(values: list[list[int]], channel_axis: int, expected: int) -> None:
    assert worst_pair(np.array(values, np.int32), channel_axis) == expected


def test_convolutions_are_judged_in_both_orders() -> None:
    along_kernel = np.zeros((1, 2, 1, 2), np.int32)  # [out, in, kh, kw]
    along_kernel[0, 0, 0] = 100, 90
    assert worst_pair(along_kernel, 0) == 190
    along_channels = np.zeros((1, 2, 1, 3), np.int32)
    along_channels[0, :, 0, 0] = 100, 90  # three apart in memory, neighbors with channels last
    assert worst_pair(along_channels, 0) == 190
    apart = np.zeros((1, 2, 1, 4), np.int32)
    apart[0, 0, 0, 0], apart[0, 1, 0, 2] = 100, 90
    assert worst_pair(apart, 0) == 100


def saturating(weights: NDArray[np.int32], pixels: NDArray[np.int32]) -> int:
    """``vpmaddubsw``: neighboring products added in a signed 16-bit number that stops."""
    pairs = (weights * pixels).reshape(-1, 2).sum(axis=1)
    return int(np.clip(pairs, -PAIR_LIMIT - 1, PAIR_LIMIT).sum())


rows = hnp.arrays(np.int32, st.sampled_from([2, 4, 8]), elements=st.integers(-128, 127))


@given(rows, st.data())
def test_what_the_rule_allows_never_saturates(
    weights: NDArray[np.int32], data: st.DataObject
) -> None:
    pixels = data.draw(hnp.arrays(np.int32, weights.shape, elements=st.integers(0, 255)))
    if 255 * worst_pair(weights[None], 0) <= PAIR_LIMIT:
        assert saturating(weights, pixels) == int((weights * pixels).sum())


@given(st.integers(0, 127), st.integers(0, 127))
def test_what_the_rule_forbids_does_saturate(one: int, other: int) -> None:
    weights, white = np.array([one, other], np.int32), np.array([255, 255], np.int32)
    exact = int((weights * white).sum())
    allowed = 255 * worst_pair(weights[None], 0) <= PAIR_LIMIT
    assert (saturating(weights, white) == exact) == allowed
