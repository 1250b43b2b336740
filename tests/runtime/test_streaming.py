"""Many images, buffers of the caller's own, abstaining, pickles."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import InputError, Predictor, PredictorError


def _pages(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(20 + 3 * i, 31 + 2 * i, 3) for i in range(count)]
    return [rng.integers(0, 256, size, dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_a_stream_answers_in_order_as_single_calls_do(grey: Predictor, batch_size: int) -> None:
    pages = _pages(9)
    single = [grey.predict(page).probabilities for page in pages]
    streamed = [answer.probabilities for answer in grey.stream(pages, batch_size=batch_size)]
    np.testing.assert_allclose(streamed, single, atol=1e-6)


def test_a_stream_reads_no_further_than_its_batch(grey: Predictor) -> None:
    taken: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for number in range(10**9):
            taken.append(number)
            yield np.zeros((9, 8, 1), np.uint8)

    stream = grey.stream(camera())
    next(stream)
    next(stream)
    assert taken == [0, 1]


def test_a_bad_image_ends_the_stream_behind_the_answers_before_it(grey: Predictor) -> None:
    pages = [*_pages(2), np.zeros((5, 5, 7), np.uint8), *_pages(1)]
    stream = grey.stream(pages, batch_size=8)
    assert [next(stream) is not None for _ in range(2)] == [True, True]
    with pytest.raises(InputError, match=r"image 2 of the stream: .*\(5, 5, 7\)"):
        next(stream)


def test_a_bad_image_may_stand_among_the_answers(grey: Predictor) -> None:
    pages: list[Any] = [*_pages(1), "no such file.png", *_pages(1)]
    answers = list(grey.stream(pages, batch_size=2, return_errors=True))
    assert isinstance(answers[1], InputError)
    assert "image 1 of the stream (no such file.png)" in str(answers[1])
    assert [isinstance(answer, InputError) for answer in answers] == [False, True, False]


@pytest.mark.parametrize(
    ("images", "batch_size", "message"),
    [
        ("digit.png", 1, "expected something that gives one image"),
        ([], 0, "batch_size=0; expected a whole number of at least 1"),
        ([], True, "batch_size=True"),
    ],
)
def test_refused_streams(grey: Predictor, images: Any, batch_size: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        grey.stream(images, batch_size=batch_size)


def test_out_is_filled_and_returned(grey: Predictor) -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, *grey.spec.shape), dtype=np.uint8)
    expected = grey(images)
    out = np.full_like(expected, np.nan)
    assert grey(images, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("wrong", ["shape", "dtype", "read-only"])
def test_a_buffer_that_does_not_fit_is_refused(grey: Predictor, wrong: str) -> None:
    images = np.zeros((2, *grey.spec.shape), np.uint8)
    rows = 3 if wrong == "shape" else 2
    kind = np.float64 if wrong == "dtype" else np.float32
    out: Any = np.zeros((rows, len(grey.spec.labels)), kind)
    out.flags.writeable = wrong != "read-only"
    with pytest.raises(InputError, match="out"):
        grey(images, out=out)


def test_abstaining_is_part_of_the_answer(grey: Predictor) -> None:
    page = _pages(1)[0]
    sure = grey.predict(page)
    assert sure.accepted and sure.to_dict()["accepted"] is True
    limit = (1 + sure.probability) / 2
    unsure = grey.predict(page, min_probability=limit)
    assert not unsure.accepted
    assert unsure.label == sure.label  # the answer is there, with the warning
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match="min_probability"):
            grey.predict(page, min_probability=bad)


def test_attributes_abstain_each_for_itself(color: Predictor) -> None:
    page = _pages(1)[0]
    rows = color.predict(page).attributes
    shares = [row.probability if row.present else 1 - row.probability for row in rows]
    limit = max(shares)
    accepted = [row.accepted for row in color.predict(page, min_probability=limit).attributes]
    assert accepted == [share >= limit for share in shares]


def test_a_pickle_opens_the_same_bundle_again(grey_bundle: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(grey_bundle)
    images = np.random.default_rng(2).integers(0, 256, (4, 9, 8, 1), dtype=np.uint8)
    with Predictor(path, device="cpu", threads=1) as predictor:
        images = images[:, : predictor.spec.height, : predictor.spec.width]
        images = np.resize(images, (4, *predictor.spec.shape))
        expected = predictor(images)
        text = pickle.dumps(predictor)
        assert len(text) < 1000  # no weights inside
    with pickle.loads(text) as again:
        np.testing.assert_array_equal(again(images), expected)
        assert again.info.threads == 1


def test_a_pickle_of_another_bundle_is_refused(
    grey_bundle: bytes, color_bundle: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(grey_bundle)
    with Predictor(path, device="cpu") as predictor:
        text = pickle.dumps(predictor)
    path.write_bytes(color_bundle)
    with pytest.raises(PredictorError, match="bundle"):
        pickle.loads(text)


def test_bytes_cannot_be_pickled(grey: Predictor) -> None:
    with pytest.raises(PredictorError, match="not opened from a path"):
        pickle.dumps(grey)
