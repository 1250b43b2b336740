"""What a model returns is one row of probabilities for each image, at every call; and its answer
for an image does not depend on the other images of its batch."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.errors import ExportError, PackageError
from exporters.evaluate.parity import stream
from exporters.package.bundle_writer import Golden, PackedVariant, write_bundle
from runtime import (
    AnswerError,
    BundleFormatError,
    Default,
    Predictor,
    SelftestError,
    Slot,
)
from runtime.__main__ import main
from runtime.answers import AnswerCheck
from runtime.tasks.probabilities import SLACK

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (5, 8, 8, 1), np.uint8)
BAD = np.full((8, 8, 1), 255, np.uint8)  # a white first pixel: see "nan for one image"
PAGES = [RNG.integers(0, 255, (10, 12), np.uint8) for _ in range(5)]
node = helper.make_node

# The model's own answer "p" becomes "probabilities". "one" is [1], but no shape inference sees it.
FAULTS: dict[str, list[Any]] = {
    "one row": [node("Slice", ["p", "zero", "one", "zero"], ["probabilities"])],
    "doubled rows": [node("Concat", ["p", "p"], ["probabilities"], axis=0)],
    "a missing row": [node("Slice", ["p", "one", "many", "zero"], ["probabilities"])],
    "no batch": [
        node("Slice", ["p", "zero", "one", "zero"], ["first"]),
        node("Reshape", ["first", "one_row"], ["probabilities"]),
    ],
    "transposed": [node("Transpose", ["p"], ["probabilities"], perm=[1, 0])],
    "the first one's row for all": [
        node("Slice", ["p", "zero", "one", "zero"], ["first"]),
        node("Shape", ["p"], ["shape"]),
        node("Expand", ["first", "shape"], ["probabilities"]),
    ],
    "the next one's row": [
        node("Slice", ["p", "zero", "one", "zero"], ["first"]),
        node("Slice", ["p", "one", "many", "zero"], ["rest"]),
        node("Concat", ["rest", "first"], ["probabilities"], axis=0),
    ],
    "mixed with the batch": [
        node("ReduceMean", ["p", "zero"], ["mean"], keepdims=1),
        node("Add", ["p", "mean"], ["sum"]),
        node("Div", ["sum", "two"], ["probabilities"]),
    ],
    "less sure in a batch": [
        node("Sqrt", ["p"], ["root"]),
        node("Where", ["alone", "p", "root"], ["w"]),
        node("ReduceSum", ["w", "unit"], ["total"], keepdims=1),
        node("Div", ["w", "total"], ["probabilities"]),
    ],
    "logits": [node("Log", ["p"], ["probabilities"])],
    "a sum of 0.9": [node("Mul", ["p", "most"], ["probabilities"])],
    "a softmax over the batch": [node("Softmax", ["p"], ["probabilities"], axis=0)],
    "nan": [node("Mul", ["p", "nan"], ["probabilities"])],
    "nan for one image": [
        node("Cast", ["images"], ["as_float"], to=TensorProto.FLOAT),
        node("Reshape", ["as_float", "flat_rows"], ["lines"]),
        node("Slice", ["lines", "zero", "unit", "unit"], ["corner"]),
        node("Sub", ["white", "corner"], ["dark"]),
        node("Div", ["dark", "dark"], ["share"]),  # 0 / 0
        node("Mul", ["p", "share"], ["probabilities"]),
    ],
}
COUNTS = ("one row", "doubled rows", "a missing row")
BATCHES = ("the first one's row for all", "the next one's row", "mixed with the batch")
VALUES = ("logits", "a sum of 0.9", "nan")


@pytest.fixture(scope="module")
def faulty(build: Any) -> Callable[..., bytes]:
    def make(kind: str, spec: Any = build.GRAY) -> bytes:
        model = onnx.load_from_string(build.model(spec))
        graph = model.graph
        graph.node[-1].output[0] = "p"
        graph.node.extend(
            [
                node("Shape", ["images"], ["size"], start=0, end=1),
                node("Div", ["size", "size"], ["one"]),
                node("Equal", ["size", "one"], ["alone"]),
                *FAULTS[kind],
            ]
        )
        values: dict[str, Any] = {
            "zero": np.array([0]),
            "unit": np.array([1]),
            "many": np.array([1 << 30]),
            "one_row": np.array([len(spec.labels)]),
            "flat_rows": np.array([0, int(np.prod(spec.shape))]),
            "two": np.float32(2),
            "most": np.float32(0.9),
            "nan": np.float32(np.nan),
            "white": np.float32(255),
        }
        graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in values.items())
        return model.SerializeToString()

    return make


def parts(build: Any, model: bytes, **options: Any) -> Predictor:
    return Predictor.from_parts(build.GRAY, build.preprocess(build.GRAY), model, **options)


# --- at every call ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", COUNTS)
def test_another_number_of_rows_is_an_error_in_every_way_to_ask(
    kind: str, build: Any, faulty: Any
) -> None:
    with parts(build, faulty(kind)) as p:
        ways: list[Callable[[], object]] = [
            lambda: p(PIXELS),
            lambda: p(PIXELS, out=np.empty((5, 3), np.float32)),
            lambda: p.predict(PAGES),
            lambda: list(p.stream(PAGES, batch_size=2)),
            lambda: list(p.stream(PAGES, batch_size=2, return_errors=True)),
        ]
        for ask in ways:
            with pytest.raises(AnswerError, match=r"for [25] images; expected float32 \([25], 3\)"):
                ask()


@pytest.mark.parametrize("kind", ["no batch", "transposed"])
def test_what_a_graph_says_of_its_rows_is_checked_when_it_is_opened(
    kind: str, build: Any, faulty: Any
) -> None:
    with pytest.raises(BundleFormatError, match="the graph has the outputs"):
        parts(build, faulty(kind))


def test_a_form_without_answers_does_not_end_a_search(build: Any, faulty: Any) -> None:
    """A search continues after an ExportError, as it always did for NaN."""
    with (
        parts(build, faulty("nan for one image")) as p,
        pytest.raises(ExportError, match=r"images from 4 on: .*holds NaN .*image 1 of 2"),
    ):
        stream(p, np.stack([*PIXELS, BAD]), batch_size=4)


def test_out_is_not_touched_by_an_answer_that_is_refused(build: Any, faulty: Any) -> None:
    out = np.full((5, 3), 7, np.float32)
    with parts(build, faulty("one row")) as p, pytest.raises(AnswerError):
        p(PIXELS, out=out)
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("logits", r"has values from -\d.* to -0"),
        ("a sum of 0.9", "sums to 0.9; expected a softmax"),
        ("a softmax over the batch", "sums to"),
        ("nan", "holds NaN or infinity"),
    ],
)
def test_what_is_not_a_probability_is_an_error(
    kind: str, message: str, build: Any, faulty: Any
) -> None:
    with parts(build, faulty(kind)) as p:
        for ask in (lambda: p(PIXELS), lambda: p.predict(PAGES[0]), lambda: p.predict(PAGES)):
            with pytest.raises(AnswerError, match=message):
                ask()


def test_the_image_without_an_answer_is_named(build: Any, faulty: Any) -> None:
    with parts(build, faulty("nan for one image")) as p:
        batch = np.stack([*PIXELS[:3], BAD, PIXELS[4]])
        with pytest.raises(AnswerError, match=r"holds NaN .*image 3 of 5") as caught:
            p(batch)
        assert caught.value.image == 3
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.image) == (str(caught.value), 3)
        pages = [*PIXELS[:3, :, :, 0], BAD, *PIXELS[3:, :, :, 0]]
        many = [pages[0]] * 70 + pages
        with pytest.raises(AnswerError, match=r"image 73 of the list: .*holds NaN"):
            p.predict(many)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 100])
def test_a_stream_goes_on_where_errors_are_returned(
    batch_size: int, build: Any, faulty: Any
) -> None:
    good = [image[:, :, 0] for image in PIXELS]
    items: list[Any] = [good[0], BAD, good[1], "no.png", BAD, good[2]]
    with parts(build, faulty("nan for one image")) as p:
        found = list(p.stream(items, batch_size, return_errors=True))
        kinds = [type(one).__name__ for one in found]
        assert kinds == [
            *("Prediction", "AnswerError", "Prediction"),
            *("InputError", "AnswerError", "Prediction"),
        ]
        assert str(found[4]).startswith("image 4 of the stream: ")
        for index, image in ((0, good[0]), (2, good[1]), (5, good[2])):
            assert found[index].label == p.predict(image).label  # type: ignore[union-attr]
        answers = p.stream(items, batch_size)
        assert next(answers).label == found[0].label  # type: ignore[union-attr]
        with pytest.raises(AnswerError, match="image 1 of the stream"):
            next(answers)


def test_json_never_holds_nan(
    build: Any, faulty: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    path, image = tmp_path / "bundle.zip", tmp_path / "white.png"
    path.write_bytes(build.bundle(members={"variants/fp32.onnx": faulty("nan for one image")}))
    Image.fromarray(BAD[:, :, 0]).save(image)
    words = ["predict", str(path), str(image), "--json", "--device", "cpu"]
    assert main([*words, "--variant", "fp32"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "image 0 of the list" in captured.err
    assert main([*words, "--variant", "int8-u8s8-rr"]) == 0
    json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))


ROWS = {
    "sound": ([[0.2, 0.3, 0.5]], [[0.9, 0.9, 0.0]], None),
    "rounded in half precision": ([[0.2, 0.3, 0.5004]], [[1.0, 0.0, 0.5]], None),
    "negative": ([[-0.1, 0.6, 0.5]], [[-0.1, 0.6, 0.5]], 0),
    "above 1": ([[0, 0, 1], [0, 0, 1.5]], [[0, 0, 1], [0, 0, 1.5]], 1),
    "nan": ([[0, 0, 1], [0, np.nan, 1]], [[0, 0, 1], [0, np.nan, 1]], 1),
    "infinite": ([[np.inf, 0, 0]], [[np.inf, 0, 0]], 0),
    "both infinities": ([[np.inf, -np.inf, 0]], [[np.inf, -np.inf, 0]], 0),
    "large": ([[3e38, 3e38, 3e38]], [[3e38, 3e38, 3e38]], 0),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_rows_are_probabilities(name: str, task: Any, build: Any) -> None:
    import dataclasses

    check = AnswerCheck(dataclasses.replace(build.GRAY, task=task))
    rows = np.array(ROWS[name][task == "multi-label"], np.float32)
    if (image := ROWS[name][2]) is None:
        assert check([rows], len(rows))[0] is rows
        return
    with pytest.raises(AnswerError) as caught:
        check([rows], len(rows))
    assert caught.value.image == image


def test_sums_are_asked_of_a_softmax_alone(build: Any) -> None:
    check = AnswerCheck(build.GRAY)
    for total in (1 - SLACK / 2, 1 + SLACK / 2):
        check([np.array([[total, 0, 0]], np.float32)], 1)
    two_wrong = np.array([[0.5, 0, 0], [0.5, 1, 0]], np.float32)  # right on the whole
    with pytest.raises(AnswerError, match=r"sums to 0\.5"):
        check([two_wrong], 2)


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros((2, 3), np.float64),
        np.zeros((2, 3), np.float16),
        np.zeros((3, 2), np.float32),
        np.zeros(3, np.float32),
        np.zeros((), np.float32),
        np.zeros((0, 3), np.float32),
        np.zeros((2, 3, 1), np.float32),
        [[0.2, 0.3, 0.5]] * 2,
        None,
    ],
)
def test_another_form_is_an_error(answer: Any, build: Any) -> None:
    with pytest.raises(AnswerError, match=r"for 2 images; expected float32 \(2, 3\)"):
        AnswerCheck(build.GRAY)([answer], 2)


# --- golden samples: one by one, in pairs, together ---------------------------------------------


@pytest.mark.parametrize("kind", [*BATCHES, "less sure in a batch"])
def test_an_answer_that_depends_on_its_batch_fails_the_selftest(
    kind: str, build: Any, faulty: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was recorded is right, and each image alone is answered so."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = build.bundle(members={"variants/fp32.onnx": faulty(kind)})
    with Predictor(data, device="cpu") as p:
        with pytest.raises(SelftestError, match=r"(in pairs|all together).*mixes the images"):
            p.selftest()
        report = p.autotune(0.01)
        assert "mixes the images" in report.failed["fp32"]
    slot = Slot(tmp_path / "slot")
    with pytest.raises(SelftestError, match="mixes the images"):
        slot.install(data, device="cpu", variant="fp32")
    assert slot.state.current is None


@pytest.mark.parametrize("kind", [*COUNTS, "nan", "logits", "a sum of 0.9"])
def test_a_refused_answer_fails_the_selftest(kind: str, build: Any, faulty: Any) -> None:
    data = build.bundle(members={"variants/fp32.onnx": faulty(kind)})
    with Predictor(data, device="cpu") as p, pytest.raises(SelftestError, match="variant 'fp32'"):
        p.selftest()


@pytest.mark.parametrize("samples", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", BATCHES)
def test_few_samples_show_it_too(kind: str, samples: int, build: Any, faulty: Any) -> None:
    """A single sample has its own negative for a neighbor."""
    with parts(build, build.model(build.GRAY)) as p:
        pixels = PIXELS[:samples]
        arrays = {"pixels": pixels, "probabilities/fp32": p(pixels)}
    file = io.BytesIO()
    np.savez(file, **arrays)
    members = {"golden.npz": file.getvalue()}
    with Predictor(build.bundle(members=members), device="cpu", variant="fp32") as p:
        assert p.selftest().samples == samples
    members["variants/fp32.onnx"] = faulty(kind)
    with (
        Predictor(build.bundle(members=members), device="cpu", variant="fp32") as p,
        pytest.raises(SelftestError, match="mixes the images"),
    ):
        p.selftest()


def test_a_record_that_no_tolerance_excuses_is_refused(build: Any) -> None:
    """A tolerance of 1 would take any probabilities for recorded zeros."""
    file = io.BytesIO()
    sound = dict(np.load(io.BytesIO(build.golden(build.GRAY, {"fp32": 0.0}))).items())
    np.savez(file, **{**sound, "probabilities/fp32": np.zeros((3, 3), np.float32)})
    data = build.bundle(
        members={"golden.npz": file.getvalue()},
        edit=lambda manifest: manifest["variants"][0].update(golden_tolerance=1),
    )
    with (
        Predictor(data, device="cpu") as p,
        pytest.raises(SelftestError, match="for sample 0 sums to 0; expected a softmax"),
    ):
        p.selftest()


@pytest.mark.parametrize("kind", [*COUNTS, *BATCHES, *VALUES, "a softmax over the batch"])
def test_no_bundle_is_written_of_such_a_model(
    kind: str, build: Any, faulty: Any, tmp_path: Path
) -> None:
    path = tmp_path / "bundle.zip"
    arguments: dict[str, Any] = {
        "spec": build.GRAY,
        "preprocess": build.preprocess(build.GRAY),
        "defaults": [Default("cpu", "fp32", "not measured here")],
        "golden": Golden((), PIXELS[:3]),
        "measurements": {},
        "model_card": "",
    }
    variant = PackedVariant(build.model(build.GRAY), "fp32", "fp32", False, 1e-5)
    write_bundle(path, variants=[variant], **arguments)
    before = path.read_bytes()
    variant = PackedVariant(faulty(kind), "fp32", "fp32", False, 1e-5)
    with pytest.raises(PackageError):
        write_bundle(path, variants=[variant], **arguments)
    assert path.read_bytes() == before
