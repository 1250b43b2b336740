"""The predictor as an app uses it: answers, self test, life and death, many callers."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from PIL import Image

from runtime import (
    AttributePrediction,
    BundleFormatError,
    DeviceError,
    InputError,
    Prediction,
    Predictor,
    PredictorError,
    SelftestError,
    VariantError,
)

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 8, 8, 1), np.uint8)
PAGE = RNG.integers(0, 256, (30, 40, 3), np.uint8)


def test_a_call_gives_the_bare_session_s_bits(gray: Predictor, build: Any) -> None:
    session = onnxruntime.InferenceSession(
        build.model(build.GRAY), providers=["CPUExecutionProvider"]
    )
    for batch in (PIXELS[:1], PIXELS, PIXELS[::-2]):
        found = gray(batch)
        (expected,) = session.run(None, {"images": batch})
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.float32 and found.shape == (len(batch), 3)


def test_every_form_of_the_same_pixels_gives_the_same(gray: Predictor) -> None:
    expected = gray(PIXELS)
    np.testing.assert_array_equal(gray(PIXELS[:, :, :, 0]), expected)  # (N, h, w)
    np.testing.assert_array_equal(gray(np.asfortranarray(PIXELS)), expected)
    for one in (PIXELS[0], PIXELS[0, :, :, 0]):  # (h, w, 1), (h, w)
        np.testing.assert_array_equal(gray(one), expected[:1])


def test_a_colour_model_takes_one_image_with_alpha(color: Predictor) -> None:
    face = RNG.integers(0, 256, (6, 5, 3), np.uint8)
    opaque = np.dstack([face, np.full((6, 5), 255, np.uint8)])
    np.testing.assert_array_equal(color(opaque), color(face[None]))


def test_a_call_refuses_what_is_not_the_model_s(color: Predictor) -> None:
    message = r"shape \(1, 3, 6, 5\); expected \(N, 6, 5, 3\), uint8, rows first\. Transpose"
    with pytest.raises(InputError, match=message):
        color(np.zeros((1, 3, 6, 5), np.uint8))
    with pytest.raises(InputError, match="an empty batch"):
        color(np.zeros((0, 6, 5, 3), np.uint8))
    with pytest.raises(InputError, match="has dtype float32"):
        color(np.zeros((1, 6, 5, 3), np.float32))


def test_predict_preprocesses_and_a_call_does_not(gray: Predictor) -> None:
    answer = gray.predict(PAGE)
    assert isinstance(answer, Prediction)
    pixels = gray.preprocess(PAGE)
    assert pixels.shape == (8, 8, 1) and pixels.dtype == np.uint8
    assert answer.probabilities == tuple(gray(pixels)[0].tolist())
    assert gray.predict(PAGE[:, :, ::-1], color="bgr") == answer


def test_a_multi_label_model_answers_with_attributes(color: Predictor) -> None:
    answer = color.predict(PAGE)
    assert isinstance(answer, AttributePrediction)
    assert [row.threshold for row in answer.attributes] == [0.5, 0.25]
    assert all(row.present == (row.probability >= row.threshold) for row in answer.attributes)


def test_a_file_and_its_pixels_get_the_same_answer(color: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    Image.fromarray(PAGE).save(path)
    for source in (path, str(path), path.read_bytes(), Image.open(path)):
        assert color.predict(source) == color.predict(PAGE)


@pytest.mark.parametrize("count", [0, 1, 3, 150])
def test_a_list_gives_a_list_of_the_single_answers(gray: Predictor, count: int) -> None:
    pages = [PAGE[: 10 + i % 7, : 20 + i % 5] for i in range(count)]
    answers = gray.predict(pages)
    assert gray.predict(tuple(pages)) == answers
    assert len(answers) == count
    for answer, page in zip(answers, pages, strict=True):
        single = gray.predict(page)
        assert isinstance(answer, Prediction) and isinstance(single, Prediction)
        assert answer.label == single.label
        np.testing.assert_allclose(answer.probabilities, single.probabilities, atol=1e-6)


def test_an_error_in_a_list_says_which_image(gray: Predictor) -> None:
    with pytest.raises(InputError, match=r"image 1 of the list \(no\.png\)"):
        gray.predict([PAGE, "no.png"])
    with pytest.raises(InputError, match="image 70 of the list: the image has shape"):
        gray.predict([PAGE] * 70 + [PAGE[None]])


def test_info_says_what_runs_where_and_why(gray: Predictor, gray_bundle: bytes) -> None:
    info = gray.info
    assert (info.device, info.provider, info.variant) == ("cpu", "CPUExecutionProvider", "fp32")
    assert info.reason == (
        "device: cpu was requested. variant: fp32 is the default of cpu: not measured here"
    )
    assert info.model_version == "1.2.3" and info.synthetic and info.bundle_id is not None
    assert info.threads >= 1
    assert "Predictor digits fp32 on cpu" in repr(gray)
    with Predictor(gray_bundle, device="cpu", variant="int8-u8s8-rr", threads=1) as p:
        assert p.info.variant == "int8-u8s8-rr"
        assert p.info.threads == 1
        # exact kernels may follow, on a CPU without VNNI
        assert "variant: int8-u8s8-rr was requested." in p.info.reason


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"variant": "int4"}, VariantError, "no variant 'int4'; it has: fp32, int8-u8s8-rr"),
        ({"device": "tpu"}, DeviceError, "device 'tpu' is unknown; expected 'auto' or one of cpu"),
        ({"device": ["cpu"]}, DeviceError, r"device \['cpu'\] is unknown"),
        ({"threads": 0}, InputError, "threads=0; expected a whole number from 1 to 1024, or None"),
        ({"threads": 10**6}, InputError, "threads=1000000; expected a whole number from 1 to 1024"),
        ({"trusted_keys": 5}, InputError, "trusted_keys=5; expected a list of keys"),
        ({"trusted_keys": "ed25519:x"}, InputError, "trusted_keys='ed25519:x'; expected a list"),
        ({"threads": 1.5}, InputError, r"threads=1\.5"),
        ({"threads": True}, InputError, "threads=True"),
    ],
)
def test_an_impossible_option_is_refused(
    gray_bundle: bytes, options: Any, error: type[PredictorError], message: str
) -> None:
    with pytest.raises(error, match=message):
        Predictor(gray_bundle, **{"device": "cpu", **options})


@pytest.mark.parametrize(
    ("rows", "variant", "named"),
    [
        (("arm64-i8mm", "arm64", "cpu"), "int8-u8s8-rr", "arm64-i8mm"),
        (("cpu", "arm64-dotprod", "arm64"), "int8-u8s8-rr", "arm64-dotprod"),
        (("arm64", "cpu", "x86_64-vnni"), "int8-u8s8-rr", "arm64"),
        (("cpu", "x86_64-vnni"), "fp32", "cpu"),
    ],
)
def test_the_default_of_this_kind_of_cpu_is_taken(
    build: Any, monkeypatch: pytest.MonkeyPatch, rows: Any, variant: str, named: str
) -> None:
    """The bundle's table decides, by the most special row that fits: that of the INT8 file here."""
    from runtime import opening

    targets = ("arm64-i8mm", "arm64-dotprod", "arm64", "cpu")
    monkeypatch.setattr(opening, "cpu_targets", lambda: targets)
    table = [
        {
            "target": target,
            "variant": "int8-u8s8-rr" if target == named != "cpu" else "fp32",
            "reason": f"measured on {target}",
        }
        for target in rows
    ]
    data = build.bundle(edit=lambda d: d.update(defaults=table))
    with Predictor(data, device="cpu") as p:
        assert (p.info.variant, p.info.target) == (variant, "arm64-i8mm")
        assert f"{variant} is the default of {named}: measured on {named}" in p.info.reason


def test_selftest_reports_what_it_compared(gray: Predictor, color: Predictor) -> None:
    for predictor in (gray, color):
        report = predictor.selftest()
        assert (report.images, report.samples, report.tolerance) == (2, 3, 1e-5)
        assert report.max_difference <= report.tolerance


def broken_golden(build: Any, **arrays: Any) -> dict[str, bytes]:
    """The golden samples with some arrays replaced, or left out where None."""
    with np.load(io.BytesIO(build.golden(build.GRAY, {"fp32": 0.0}))) as sound:
        changed = {name: sound[name] for name in sound.files} | arrays
    file = io.BytesIO()
    np.savez(file, **{name: value for name, value in changed.items() if value is not None})
    return {"golden.npz": file.getvalue()}


NAN = np.full((3, 3), np.nan, np.float32)
GOLDEN: dict[str, tuple[dict[str, Any], type[PredictorError], str]] = {
    "other pixels": ({"pixels": np.zeros((3, 8, 8, 1), np.uint8)}, SelftestError, "golden image 0"),
    "nan": (
        {"probabilities/fp32": NAN},
        SelftestError,
        "differs .* by nan; expected",
    ),
    "no variant": ({"probabilities/fp32": None}, SelftestError, "no outputs for .*'fp32'"),
    "no pixels": ({"pixels": None}, BundleFormatError, "pixels are float64"),
    "other size": ({"pixels": np.zeros((3, 9, 8, 1), np.uint8)}, BundleFormatError, "pixels are"),
    "other dtype": (
        {"probabilities/fp32": NAN.astype(float)},
        BundleFormatError,
        "uint8 or float32",
    ),
    "more raw": ({"pixels": np.zeros((1, 8, 8, 1), np.uint8)}, BundleFormatError, "1 pixels for 2"),
    "no samples": (
        {"pixels": np.zeros((0, 8, 8, 1), np.uint8), "raw/0": None},
        BundleFormatError,
        "0 pixels for 0",
    ),
    "unknown": ({"weights": np.zeros(1, np.uint8)}, BundleFormatError, "unknown array 'weights'"),
    "raw float": (
        {"raw/0": np.zeros((9, 9, 1))},
        BundleFormatError,
        "raw/0.npy .*float32",
    ),
    "pickle": ({"pixels": np.array([{}])}, BundleFormatError, "golden.npz .*uint8 or float32"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_sample_that_differs_is_reported(name: str, build: Any) -> None:
    arrays, error, message = GOLDEN[name]
    data = build.bundle(members=broken_golden(build, **arrays))
    with Predictor(data, device="cpu") as p, pytest.raises(error, match=message):
        p.selftest()


def test_golden_samples_that_are_not_an_npz_are_refused(build: Any) -> None:
    for junk in (b"", b"junk", b"PK\x03\x04junk"):
        data = build.bundle(members={"golden.npz": junk})
        with (
            Predictor(data, device="cpu") as p,
            pytest.raises(BundleFormatError, match=r"golden\.npz "),
        ):
            p.selftest()


def test_a_difference_beyond_the_tolerance_fails_the_selftest(build: Any) -> None:
    with Predictor(build.bundle(error=5e-6), device="cpu") as p:
        assert 4e-6 < p.selftest().max_difference < 6e-6
    with (
        Predictor(build.bundle(error=1e-3), device="cpu") as p,
        pytest.raises(SelftestError, match=r"differs from its golden outputs by 0\.001"),
    ):
        p.selftest()


MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "newer IR": ({"ir": 99}, r"IR version 99; this onnxruntime reads up to \d+\. Install a newer"),
    "newer opset": ({"opset": 99}, r"opset 99; this onnxruntime knows up to \d+\. Install a newer"),
    "no stamp": ({"stamp": None}, "has no metadata 'edgeproof.spec'"),
    "broken stamp": ({"stamp": "{"}, "model spec is not JSON"),
    "fixed batch": ({"batch": 1}, r"inputs \[\('images', 'tensor\(uint8\)', \(1, 8, 8, 1\)\)\]"),
    "other name": ({"input_name": "x"}, r"inputs \[\('x'.*expected \[\('images'"),
    "other type": ({"input_type": 1}, r"'tensor\(float\)'"),
    "other labels": ({"labels": 4}, r"outputs \[\('probabilities', 'tensor\(float\)', \('N', 4\)"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_does_not_fit_is_refused_when_it_is_opened(name: str, build: Any) -> None:
    options, message = MODELS[name]
    with pytest.raises(BundleFormatError, match=message):
        Predictor.from_parts(build.GRAY, None, build.model(build.GRAY, **options))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"", "ONNX model, or a truncated one"),
        (b"junk" * 99, "ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS file. Run git lfs pull"),
        ("no.onnx", "no.onnx: cannot be opened"),
    ],
)
def test_a_file_that_is_not_a_model_is_refused(model: Any, message: str, build: Any) -> None:
    with pytest.raises(BundleFormatError, match=message):
        Predictor.from_parts(build.GRAY, None, model)


def test_a_truncated_model_is_refused(build: Any) -> None:
    with pytest.raises(BundleFormatError, match=r"a truncated one\. Build the bundle again"):
        Predictor.from_parts(build.GRAY, None, build.model(build.GRAY)[:-60])


def test_parts_answer_like_the_bundle(gray: Predictor, build: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(build.model(build.GRAY))
    for model in (path, str(path), path.read_bytes()):
        with Predictor.from_parts(build.GRAY, build.preprocess(build.GRAY), model) as p:
            np.testing.assert_array_equal(p(PIXELS), gray(PIXELS))
            assert p.predict(PAGE) == gray.predict(PAGE)
            assert p.info.bundle_id is None and p.info.model_version is None
            with pytest.raises(SelftestError, match=r"golden\.npz is missing"):
                p.selftest()


def test_parts_without_preprocess_take_pixels_only(build: Any) -> None:
    with Predictor.from_parts(build.GRAY, None, build.model(build.GRAY), variant="int8-x") as p:
        assert p(PIXELS).shape == (5, 3) and p.info.variant == "int8-x"
        with pytest.raises(BundleFormatError, match=r"preprocess\.onnx was not among the parts"):
            p.predict(PAGE)


def test_parts_take_thresholds_of_a_multi_label_model(build: Any) -> None:
    color, model = build.COLOR, build.model(build.COLOR)
    for given_, used in ((None, [0.5, 0.5]), ((0.1, 0.9), [0.1, 0.9])):
        with Predictor.from_parts(color, build.preprocess(color), model, thresholds=given_) as p:
            answer = p.predict(PAGE)
            assert isinstance(answer, AttributePrediction)
            assert [row.threshold for row in answer.attributes] == used
    with pytest.raises(InputError, match="1 thresholds were given; expected one for each of the 2"):
        Predictor.from_parts(color, None, model, thresholds=(0.5,))
    with pytest.raises(InputError, match="a multi-class model, which has none"):
        Predictor.from_parts(build.GRAY, None, build.model(build.GRAY), thresholds=(0.5,))


def test_a_preprocess_graph_of_another_size_is_refused(build: Any) -> None:
    wrong = build.preprocess(build.GRAY, shape=(9, 8, 1))
    with (
        Predictor.from_parts(build.GRAY, wrong, build.model(build.GRAY)) as p,
        pytest.raises(BundleFormatError, match=r"outputs \[\('pixels'.*\(9, 8, 1\)"),
    ):
        p.predict(PAGE)


def test_a_closed_predictor_says_so(gray_bundle: bytes) -> None:
    p = Predictor(gray_bundle, device="cpu")
    p.close()
    p.close()
    for use in (lambda: p(PIXELS), lambda: p.predict(PAGE), p.selftest, p.warmup):
        with pytest.raises(PredictorError, match=r"this predictor is closed\. Open another one"):
            use()
    assert p.info.variant == "fp32"


def test_warmup_runs_and_changes_nothing(gray: Predictor) -> None:
    expected = gray(PIXELS)
    gray.warmup(2)
    np.testing.assert_array_equal(gray(PIXELS), expected)
    for n in (-1, 1.5, "x"):
        with pytest.raises(InputError, match=r"warmup\(.*expected a whole number of at least 0"):
            gray.warmup(n)  # type: ignore[arg-type]


def test_many_threads_get_the_single_thread_s_answers(gray_bundle: bytes) -> None:
    """They also race to open preprocess.onnx, which happens once."""
    with Predictor(gray_bundle, device="cpu", threads=1) as p:
        expected = [p(PIXELS[i % 5]) for i in range(400)]
        start = threading.Barrier(8)

        def work(first: int) -> list[Any]:
            start.wait()
            page = p.predict(PAGE)
            return [page, *(p(PIXELS[i % 5]) for i in range(first, first + 50))]

        with ThreadPoolExecutor(8) as pool:
            pages, *_ = zip(*(rows := list(pool.map(work, range(0, 400, 50)))), strict=True)
        assert len(set(pages)) == 1
        np.testing.assert_array_equal([a for row in rows for a in row[1:]], expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_gets_the_same_answers(gray_bundle: bytes) -> None:
    with Predictor(gray_bundle, device="cpu", threads=2) as p:
        expected, page = p(PIXELS), p.predict(PAGE)
        child = os.fork()
        if child == 0:
            same = np.array_equal(p(PIXELS), expected) and p.predict(PAGE) == page
            os._exit(0 if same else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@settings(max_examples=30, deadline=None)
@given(
    image=nps.arrays(
        np.uint8,
        st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3, 4])),
    )
)
def test_an_image_of_any_size_has_an_answer_that_sums_to_one(
    gray_bundle: bytes, image: Any
) -> None:
    with Predictor(gray_bundle, device="cpu", threads=1) as p:
        answer = p.predict(image)
    assert isinstance(answer, Prediction)
    assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5)


def test_pixels_of_16_bits_are_scaled_from_the_models_white_level(build: Any) -> None:
    twelve = np.random.default_rng(0).integers(0, 4096, (20, 30), np.uint16)
    eight = ((twelve.astype(np.uint32) * 255 + 2047) // 4095).astype(np.uint8)
    deep = replace(build.GRAY, white_level=4095)
    with Predictor(build.bundle(deep)) as p, Predictor(build.bundle()) as plain:
        assert p.spec.white_level == 4095
        for image in (twelve, Image.fromarray(twelve)):
            assert np.array_equal(p.preprocess(image), plain.preprocess(eight))
        with pytest.raises(InputError, match=r"values from .* expected 0 to 4095"):
            p.predict(twelve * np.uint16(2))
        with pytest.raises(InputError, match="array of uint16"):
            plain.predict(twelve)
