"""Whatever is given to a predictor, there is a typed error or the right answer.

Inputs are generated: every dtype, shapes around the right ones, strides, byte orders, subclasses,
views of next to nothing that claim to be huge, objects, bytes of broken image files. 300 in
``make test``, 20,000 in ``make test-full``.
"""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from PIL import Image

from runtime import AttributePrediction, Prediction, Predictor, PredictorError

QUICK, FULL = 300, 20_000
RARELY = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]

DTYPES = st.one_of(
    st.just(np.dtype(np.uint8)),
    st.sampled_from(
        [np.dtype(name) for name in ("?", "i1", "<u2", ">u2", "i4", "f2", "f4", ">f8")]
    ),
    st.sampled_from([np.dtype(name) for name in ("c8", "O", "S3", "U2", "V4", "M8[s]", "m8[s]")]),
    st.just(np.dtype([("r", "u1"), ("g", "u1")])),
)
SIDES = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 64])
SHAPES = st.one_of(
    st.lists(SIDES, max_size=5).map(tuple).filter(lambda shape: math.prod(shape) < 100_000),
    st.sampled_from(
        [
            *((8, 8), (8, 8, 1), (1, 8, 8), (3, 8, 8, 1), (1, 1, 8, 8), (2, 8, 8, 3), (8, 8, 4)),
            *((6, 5, 3), (6, 5, 4), (2, 6, 5, 3), (2, 6, 5, 4), (3, 6, 5), (1, 3, 6, 5), (64,)),
        ]
    ),
)
HUGE = st.sampled_from(
    [(2**40, 8, 8, 1), (2**40, 6, 5, 3), (2**31, 2**20), (10**7, 10**7, 3), (1, 2**40, 4), (2**62,)]
)


def _image_file(kind: str, mode: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 7).save(file, kind)
    return file.getvalue()


FILES = [
    _image_file(kind, mode, (9, 7))
    for kind, mode in (("PNG", "L"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "RGB"), ("GIF", "P"))
] + [_image_file("BMP", "RGB", (9, 7)), _image_file("TIFF", "F", (9, 7))]


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    if draw(st.integers(0, 9)) == 0:
        return np.broadcast_to(np.uint8(draw(st.integers(0, 255))), draw(HUGE))
    dtype, shape = draw(DTYPES), draw(SHAPES)
    if dtype.kind in "OSUVMm" or dtype.names:
        array: Any = np.zeros(shape, dtype)
    elif dtype.kind in "fc" and draw(st.booleans()):
        array = np.full(shape, draw(st.sampled_from([np.nan, np.inf, -1.0, 0.5])), dtype)
    else:
        array = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 2, shape).astype(dtype)
        if dtype == np.uint8:
            array *= draw(st.integers(0, 255))
    return draw(st.sampled_from(FORMS))(array)


FORMS = [
    lambda a: a,
    np.asfortranarray,
    lambda a: a[::-1] if a.ndim else a,
    lambda a: np.repeat(a, 2, axis=0)[::2] if a.ndim else a,
    lambda a: a.T,
    lambda a: np.broadcast_to(a, (2, *a.shape)),
    lambda a: a.newbyteorder() if hasattr(a, "newbyteorder") else a.view(a.dtype.newbyteorder()),
    lambda a: np.ma.masked_array(a, mask=False),
    lambda a: a.view(np.recarray),
    lambda a: a.tolist(),
    lambda a: memoryview(a) if a.dtype.kind in "iuf" and a.dtype.isnative else a,
]


@st.composite
def broken_files(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


ANYTHING = st.one_of(
    arrays(),
    arrays(),
    broken_files(),
    st.binary(max_size=40),
    st.text(max_size=9),  # paths
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers(),
    st.lists(st.one_of(arrays(), broken_files(), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from([object(), object, iter(()), range(3), ..., np.uint8(3), lambda: 1]),
)
OUTS = st.none() | st.integers(0, 5).map(lambda n: np.empty((n, 3), np.float32)) | arrays()


def check_call(predictor: Predictor, given_: Any, out: Any) -> None:
    """An answer must be the one for the same pixels given plainly, one by one."""
    height, width, channels = predictor.spec.shape
    found = predictor(given_, out=out)
    assert isinstance(given_, np.ndarray) and given_.dtype == np.uint8 and given_.size
    plain = np.array(given_, np.uint8)
    if plain.shape[-1] == 4 and channels == 3:  # alpha over white, of one image
        alpha = plain[..., 3:].astype(int)
        plain = ((plain[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    plain = plain.reshape(-1, height, width, channels)
    assert found.dtype == np.float32 and found.shape == (len(plain), len(predictor.spec.labels))
    expected = [predictor(np.ascontiguousarray(image)[np.newaxis])[0] for image in plain]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def check_predict(predictor: Predictor, given_: Any, color: Any, limit: Any) -> None:
    """An answer must be that for the pixels that preprocess shows, which come of a plain copy."""
    found = predictor.predict(given_, color, min_probability=limit)
    if isinstance(given_, (list, tuple)):
        assert isinstance(found, list) and len(found) == len(given_)
        return
    assert isinstance(found, (Prediction, AttributePrediction))
    if isinstance(given_, np.ndarray):
        plain = np.ascontiguousarray(np.array(given_, np.uint8))
        assert predictor.predict(plain, color, min_probability=limit) == found
        assert given_.dtype == np.uint8 and given_.size


def check(predictor: Predictor, data: st.DataObject) -> None:
    try:
        match data.draw(st.integers(0, 2)):
            case 0:
                check_call(predictor, data.draw(ANYTHING), data.draw(OUTS))
            case 1:
                color = data.draw(st.sampled_from(["rgb", "rgb", "bgr", "BGR", None]))
                limit = data.draw(st.sampled_from([0, 0.5, 1, -1, 2, float("nan"), None, "x"]))
                check_predict(predictor, data.draw(ANYTHING), color, limit)
            case _:
                size = data.draw(st.sampled_from([1, 2, 0, None]))
                answers = predictor.stream(data.draw(ANYTHING), size, return_errors=True)
                list(itertools.islice(answers, 5))  # a view may claim 2**40 images
    except PredictorError as exc:
        assert len(str(exc)) > 10


@pytest.fixture(scope="module")
def predictors(gray_bundle: bytes, color_bundle: bytes) -> Any:
    with (
        Predictor(gray_bundle, "cpu", threads=1) as gray,
        Predictor(color_bundle, "cpu", threads=1) as color,
    ):
        yield gray, color


@settings(max_examples=QUICK, deadline=None, suppress_health_check=RARELY)
@given(data=st.data())
def test_a_typed_error_or_the_right_answer(predictors: Any, data: st.DataObject) -> None:
    check(data.draw(st.sampled_from(predictors)), data)


@pytest.mark.full
@settings(max_examples=FULL, deadline=None, suppress_health_check=RARELY)
@given(data=st.data())
def test_a_typed_error_or_the_right_answer_20000_times(
    predictors: Any, data: st.DataObject
) -> None:
    check(data.draw(st.sampled_from(predictors)), data)


@given(nps.arrays(np.uint8, st.sampled_from([(2, 8, 8, 1), (8, 8, 1)])))
@settings(max_examples=20, deadline=None)
def test_every_plain_batch_has_an_answer(predictors: Any, batch: Any) -> None:
    np.testing.assert_allclose(predictors[0](batch).sum(axis=1), 1, atol=1e-5)
