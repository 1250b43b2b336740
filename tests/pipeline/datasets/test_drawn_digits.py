"""Drawn digits: deterministic, dark on whitish paper, anywhere on the page."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.drawn.drawn_digits import draw_digit


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_is_dark_on_whitish_paper(digit: int) -> None:
    image = draw_digit(np.random.default_rng([1, digit]), digit)
    assert image.shape == (300, 400, 3)
    assert image.dtype == np.uint8
    gray = image.mean(axis=2)
    assert np.median(gray) > 170  # paper
    dark = gray < np.median(gray) - 60
    assert 0.001 < dark.mean() < 0.2  # ink
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    assert 50 <= max(np.ptp(rows), np.ptp(columns)) <= 225  # 60 to 200 pixels and the pen


def test_the_same_state_draws_the_same_page() -> None:
    first = draw_digit(np.random.default_rng(7), 3)
    np.testing.assert_array_equal(first, draw_digit(np.random.default_rng(7), 3))
    assert (first != draw_digit(np.random.default_rng(8), 3)).any()


def test_digits_are_off_center_in_all_directions() -> None:
    rng = np.random.default_rng(2)
    middles = []
    for i in range(24):
        gray = draw_digit(rng, i % 10).mean(axis=2)
        y, x = np.nonzero(gray < np.median(gray) - 60)
        middles.append((y.mean() > 150, x.mean() > 200))
    assert len(set(middles)) == 4


@pytest.mark.parametrize("shape", [(80, 80), (90, 300), (500, 120)])
def test_other_pages(shape: tuple[int, int]) -> None:
    image = draw_digit(np.random.default_rng(4), 8, *shape)
    assert image.shape == (*shape, 3)
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).mean(axis=1)
    assert (edge > np.median(edge) - 60).all()  # the digit is whole


@pytest.mark.parametrize(
    ("digit", "height", "width", "message"),
    [
        (10, 300, 400, "digit is 10; expected 0 to 9"),
        (-1, 300, 400, "digit is -1"),
        (3, 79, 400, "79 x 400 pixels; expected at least 80"),
        (3, 300, 0, "300 x 0 pixels"),
    ],
)
def test_what_cannot_be_drawn(digit: int, height: int, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_digit(np.random.default_rng(0), digit, height, width)
