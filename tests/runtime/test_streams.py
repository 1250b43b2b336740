"""Streams of images, buffers of one's own, and answers that are not sure enough."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import AttributePrediction, InputError, Prediction, Predictor

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 8, 8, 1), np.uint8)
PAGES = [RNG.integers(0, 256, (10 + i % 7, 20 + i % 5, 3), np.uint8) for i in range(23)]


@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
def test_a_stream_gives_the_answers_of_predict_in_order(gray: Predictor, batch_size: int) -> None:
    found = list(gray.stream(iter(PAGES), batch_size))
    expected = gray.predict(PAGES)
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Prediction) and isinstance(other, Prediction)
        assert one.label == other.label
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


def test_a_stream_may_be_endless_and_is_read_a_batch_ahead_at_most(gray: Predictor) -> None:
    taken = []

    def camera() -> Iterator[Any]:
        for number in itertools.count():
            taken.append(number)
            yield PAGES[number % 23]

    answers = gray.stream(camera())
    assert taken == []
    for number in range(5):
        next(answers)
        assert taken[-1] == number
    next(gray.stream(camera(), batch_size=8))
    assert taken[5:] == list(range(8))


class Frame(np.ndarray[Any, np.dtype[np.uint8]]):
    """An array that a weak reference can point to."""


def test_no_image_is_kept_once_its_pixels_are_made(gray: Predictor) -> None:
    alive: list[Any] = []

    def frames() -> Iterator[Any]:
        for page in PAGES:
            assert sum(reference() is not None for reference in alive) <= 1
            frame = page.copy().view(Frame)
            alive.append(weakref.ref(frame))
            yield frame
            del frame

    assert len(list(gray.stream(frames(), batch_size=16))) == 23


def test_an_error_names_the_item_after_the_answers_before_it(gray: Predictor) -> None:
    answers = gray.stream([*PAGES[:5], "no.png", PAGES[5]], batch_size=4)
    for _ in range(5):
        next(answers)
    with pytest.raises(InputError, match=r"image 5 of the stream \(no\.png\)"):
        next(answers)


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_errors_may_stand_among_the_answers(gray: Predictor, batch_size: int) -> None:
    items = [PAGES[0], "no.png", PAGES[1], b"junk", None]
    found = list(gray.stream(items, batch_size, return_errors=True))
    kinds = [type(answer) for answer in found]
    assert kinds == [Prediction, InputError, Prediction, InputError, InputError]
    assert str(found[3]).startswith("image 3 of the stream: the bytes of the image cannot be dec")


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {"batch_size": 0}, "batch_size=0; expected a whole number of at least 1"),
        ([], {"batch_size": True}, "batch_size=True"),
        ("a.png", {}, "images is a str; expected something that gives one image after"),
        (Path("a.png"), {}, r"images is a \w+Path"),
        ([], {"min_probability": 2}, "min_probability=2; expected a number from 0 to 1"),
        ([], {"min_probability": float("nan")}, "min_probability=nan"),
    ],
)
def test_wrong_use_is_refused_before_the_first_answer(
    gray: Predictor, images: Any, options: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        gray.stream(images, **options)


def test_out_is_filled_and_returned(gray: Predictor) -> None:
    expected = gray(PIXELS)
    for out in (np.empty((5, 3), np.float32), np.empty((5, 6), np.float32)[:, ::2]):
        assert gray(PIXELS, out=out) is out
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((5, 4), np.float32), r"out is float32 \(5, 4\); expected .* \(5, 3\)"),
        (np.empty((4, 3), np.float32), r"out is float32 \(4, 3\)"),
        (np.empty((5, 3)), r"out is float64 \(5, 3\)"),
        ([], r"out is <class 'list'>"),
        (np.broadcast_to(np.float32(0), (5, 3)), "expected a writable float32 array"),
    ],
)
def test_an_out_that_does_not_fit_is_refused(gray: Predictor, out: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        gray(PIXELS, out=out)


def test_an_answer_below_min_probability_is_not_accepted(gray: Predictor) -> None:
    answer = gray.predict(PAGES[0])
    assert isinstance(answer, Prediction) and answer.accepted
    for limit, accepted in ((0, True), (answer.probability, True), (1, False)):
        again = gray.predict(PAGES[0], min_probability=limit)
        assert isinstance(again, Prediction)
        assert again.accepted is accepted is again.to_dict()["accepted"]
        assert again.label == answer.label  # it is still reported
    (streamed,) = gray.stream(PAGES[:1], min_probability=1)
    (listed,) = gray.predict(PAGES[:1], min_probability=1)
    assert not streamed.accepted and not listed.accepted
    with pytest.raises(InputError, match="min_probability='high'"):
        gray.predict(PAGES[0], min_probability="high")  # type: ignore[call-overload]


def test_of_an_attribute_the_answer_that_was_given_must_be_probable(color: Predictor) -> None:
    answer = color.predict(PAGES[0], min_probability=0.9)
    assert isinstance(answer, AttributePrediction)
    for row in answer.attributes:
        given = row.probability if row.present else 1 - row.probability
        assert row.accepted == (given >= 0.9)
    low = AttributePrediction.from_probabilities((0.05, 0.95, 0.02), ("a", "b", "c"), (0.01,) * 3)
    assert low.accepted
    sure = AttributePrediction.from_probabilities(
        (0.05, 0.95, 0.005), ("a", "b", "c"), (0.01,) * 3, 0.9
    )
    assert [row.accepted for row in sure.attributes] == [False, True, True]  # a: present at 5 %
    assert not sure.accepted and sure.present == ("a", "b")
