"""signal_to_noise.py: decibels whose right value is known."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.evaluate.signal_to_noise import LOST, channel_axis, fidelity, sqnr_db, weight_sqnr_db

RNG = np.random.default_rng(0)


def test_a_constant_part_is_no_signal() -> None:
    moving = RNG.normal(size=(500, 10))
    noisy = moving + RNG.normal(size=moving.shape)
    assert sqnr_db(moving, noisy) == pytest.approx(0, abs=0.3)
    assert sqnr_db(moving + 100, noisy + 100) == pytest.approx(sqnr_db(moving, noisy))
    assert sqnr_db(moving, moving + 1) == pytest.approx(0, abs=0.3)  # an offset is an error
    assert weight_sqnr_db(moving + 100, noisy + 100) > 35  # weights have no inputs to differ by
    same = np.full((4, 3), 7.0)
    assert sqnr_db(same, same + 0.07) == pytest.approx(40)  # nothing moves: held against itself
    assert sqnr_db(same, same) == 200


def test_equal_non_numbers_are_equal_and_others_lose_everything() -> None:
    clean = RNG.normal(size=(50, 4))
    clean[:, 2] = -np.inf
    clean[3, 1] = np.nan
    noisy = clean + 0.01
    assert sqnr_db(clean, noisy) == pytest.approx(40, abs=1)
    assert sqnr_db(clean, clean) == 200
    noisy[3, 1] = 5.0
    assert sqnr_db(clean, noisy) == LOST
    clean[3, 1] = 0.0
    noisy[3, 1] = np.nan
    assert sqnr_db(clean, noisy) == LOST and fidelity("y", clean, noisy).sqnr_db == LOST


def boxes_and_scores(layout: str) -> tuple[np.ndarray, np.ndarray]:
    """[N, 4 + 20, places] in pixels and in [0, 1], of which the first ten classes occur; and the
    same with noise that only the scores feel."""
    boxes = RNG.uniform(0, 320, (16, 4, 200))
    scores = RNG.beta(0.1, 2, (16, 20, 200)) * np.r_[np.ones(10), np.full(10, 0.01)][:, None]
    clean = np.concatenate([boxes, scores], axis=1)
    noisy = clean + np.r_[np.full(4, 1.0), np.full(20, 0.05)][:, None] * RNG.normal(
        size=clean.shape
    )
    if layout == "last":
        return clean.transpose(0, 2, 1), noisy.transpose(0, 2, 1)
    return clean, noisy


@pytest.mark.parametrize("layout", ["first", "last"])
def test_scores_are_not_hidden_by_boxes(layout: str) -> None:
    clean, noisy = boxes_and_scores(layout)
    assert sqnr_db(clean, noisy) > 30  # all together
    result = fidelity("y", clean, noisy)
    assert result.sqnr_db < 12 and not result.alone
    assert result.channels == tuple(range(4, 24)) and "channels 4 to 23 of 24" in result.part


def test_one_channel_that_is_lost_is_found_among_many() -> None:
    clean = RNG.normal(size=(200, 98))
    noisy = clean + 0.01 * RNG.normal(size=clean.shape)
    noisy[:, 17] = 0.0
    result = fidelity("y", clean, noisy)
    assert result.channels == (17,) and result.alone and "channel 17 of 98 alone" in result.part
    assert result.own_db == pytest.approx(0, abs=0.5) and result.sqnr_db == result.own_db + 10


def test_a_channel_that_hardly_moves_is_judged_with_the_rest() -> None:
    """One point that stays at 24 while the others move by 3: 8 bits cannot hold its thousandths."""
    clean = RNG.normal(size=(100, 10)) * 3 + 20
    clean[:, 4] = 24 + 0.001 * RNG.normal(size=100)
    result = fidelity("y", clean, clean + 0.03 * RNG.normal(size=clean.shape))
    assert result.sqnr_db > 35


SHAPES = {
    (8, 10): 1,
    (8, 84, 8400): 1,
    (8, 8400, 6): 2,
    (8, 3, 64, 64): 1,
    (8, 255, 13, 13): 1,
    (8, 13, 13, 255): 3,
    (8, 48, 64, 2): 3,
    (8, 2, 48, 64): 1,
    (8, 3, 13, 13, 85): 4,
    (8,): None,
    (): None,
    (8, 100_000): None,
}


@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_axis_of_the_channels(shape: tuple[int, ...]) -> None:
    assert channel_axis(shape) == SHAPES[shape]


@pytest.mark.parametrize("shape", [(), (1,), (0, 4), (3, 0), (1, 4), (2, 3, 4, 5, 6)])
def test_every_shape_has_a_result(shape: tuple[int, ...]) -> None:
    values = RNG.normal(size=shape)
    assert fidelity("y", values, values).sqnr_db == 200
    assert fidelity("y", values, np.zeros((7, 7))).sqnr_db == LOST
