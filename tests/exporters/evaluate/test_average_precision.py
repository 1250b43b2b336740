"""average_precision.py against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.evaluate.average_precision import Ranking, average_precision


def precision_of(scores: list[float], truth: list[int]) -> float:
    (found,) = average_precision(np.array([scores], np.float32).T, np.array([truth]).T)
    return float(found)


@pytest.mark.parametrize(
    ("scores", "truth", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], (1 / 1 + 2 / 3) / 2),
        ([0.6, 0.9, 0.7, 0.8], [0, 1, 1, 0], (1 / 1 + 2 / 3) / 2),  # the same in another order
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 1.0),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], (1 / 3 + 2 / 4) / 2),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], 1 / 4),  # all tied: the share of the label
        # 0.9 alone, then two tied ones of which one is right: 1/2 * 1 + 1/2 * 2/3
        ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 1 / 2 + 1 / 2 * 2 / 3),
        ([0.9, 0.5, 0.5, 0.1], [1, 0, 1, 0], 1 / 2 + 1 / 2 * 2 / 3),  # ties have no order
        ([0.9, 0.5, 0.5, 0.1], [0, 1, 1, 0], 2 / 3),
        ([0.0, 1.0], [1, 1], 1.0),  # everything has the label
        # the example of scikit-learn's average_precision_score, whose documentation says 0.83...
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 5 / 6),
        # and that of its three classes, one column each: a macro mean of 0.77...
        ([0.7, 0.4, 0.1, 0.2, 0.4, 0.1], [1, 1, 0, 0, 0, 0], 5 / 6),
        ([0.2, 0.3, 0.8, 0.3, 0.4, 0.2], [0, 0, 1, 1, 0, 0], 3 / 4),
        ([0.1, 0.3, 0.1, 0.5, 0.2, 0.7], [0, 0, 0, 0, 1, 1], 3 / 4),
    ],
)
def test_by_hand(scores: list[float], truth: list[int], expected: float) -> None:
    assert precision_of(scores, truth) == pytest.approx(expected, abs=1e-12)


def test_without_images_of_the_label_it_is_undefined() -> None:
    assert np.isnan(precision_of([0.2, 0.9], [0, 0]))
    found = average_precision(
        np.array([[0.2, 0.1], [0.9, 0.3]], np.float32), np.array([[0, 1], [0, 0]])
    )
    assert np.isnan(found[0]) and found[1] == 0.5


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.integers(0, 1), st.integers(0, 3)
        ),
        min_size=1,
        max_size=12,
    )
)
def test_a_weight_is_so_many_copies(images: list[tuple[float, int, int]]) -> None:
    """What the bootstrap relies on: counts in place of drawn images."""
    scores, truth, counts = (np.array(column) for column in zip(*images, strict=True))
    weights = np.stack([counts, np.ones_like(counts)], axis=1).astype(np.uint8)
    found = Ranking.of(scores.astype(np.float32), truth).average_precision(weights)
    for column, repeats in ((0, counts), (1, 1)):
        copies, labels = np.repeat(scores, repeats), np.repeat(truth, repeats)
        if labels.sum():
            assert found[column] == pytest.approx(precision_of(list(copies), list(labels)))
        else:
            assert np.isnan(found[column])
