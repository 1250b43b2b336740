"""The task without labels: named float32 outputs, as arrays by name."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import runtime
from runtime import (
    AnswerError,
    Bundle,
    BundleFormatError,
    InputError,
    ModelSpec,
    OutputSpec,
    Predictor,
    SelftestError,
    Slot,
    Values,
)
from runtime.__main__ import main
from runtime.answers import AnswerCheck
from runtime.tasks import TASKS, task_named

SCHEMA = json.loads((Path(runtime.__file__).parent / "bundle.schema.json").read_text("utf-8"))
PAGES = [np.random.default_rng(i).integers(0, 256, (9, 12), np.uint8) for i in range(5)]


@pytest.fixture
def heads(heads_bundle: bytes) -> Any:
    with Predictor(heads_bundle, device="cpu") as predictor:
        yield predictor


def one_output(build: Any) -> ModelSpec:
    return replace(build.HEADS, outputs=(OutputSpec("depth", (2, 2)),))


def test_outputs_are_arrays_by_name(heads: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    outputs = heads.outputs(pixels)
    assert {name: array.shape for name, array in outputs.items()} == {
        "boxes": (3, 2, 4),
        "scores": (3, 3),
    }
    one = heads.outputs(pixels[1])
    assert all(np.array_equal(one[name][0], outputs[name][1]) for name in outputs)


def test_the_outputs_of_a_model_with_labels_are_its_probabilities(gray: Any) -> None:
    pixels = np.zeros((2, 8, 8, 1), np.uint8)
    (name,) = outputs = gray.outputs(pixels)
    assert name == "probabilities" and np.array_equal(outputs[name], gray(pixels))


def test_a_call_returns_the_one_output(build: Any) -> None:
    pixels = np.zeros((3, 8, 8, 1), np.uint8)
    spec = one_output(build)
    with Predictor.from_parts(spec, None, build.model(spec)) as p:
        out = np.empty((3, 2, 2), np.float32)
        assert p(pixels, out) is out and np.array_equal(out, p(pixels))
        with pytest.raises(InputError, match=r"float32 array of \(3, 2, 2\)"):
            p(pixels, np.empty((3, 4), np.float32))


def test_a_call_of_several_outputs_names_them(heads: Any) -> None:
    with pytest.raises(InputError, match="boxes, scores"):
        heads(np.zeros((1, 8, 8, 1), np.uint8))


def test_predict_gives_one_image_and_lists_alike(heads: Any) -> None:
    answers = heads.predict(PAGES)
    assert all(isinstance(answer, Values) for answer in answers)
    assert answers[0]["boxes"].shape == (2, 4) and answers[0]["scores"].dtype == np.float32
    for page, answer in zip(PAGES, answers, strict=True):
        single = heads.predict(page)
        assert list(single.arrays) == ["boxes", "scores"]
        for name, array in single.arrays.items():
            np.testing.assert_allclose(array, answer[name], atol=1e-5)
    streamed = list(heads.stream(iter(PAGES), batch_size=2))
    assert [a.to_dict() for a in streamed] == [
        a.to_dict() for a in heads.stream(PAGES, batch_size=2)
    ]


def test_an_answer_does_not_keep_its_batch(heads: Any) -> None:
    answer = heads.predict(PAGES)[0]
    assert all(array.base is None for array in answer.arrays.values())


def test_an_unknown_output_names_those_that_exist(heads: Any) -> None:
    with pytest.raises(InputError, match=r"'masks'.*boxes, scores"):
        heads.predict(PAGES[0])["masks"]


def test_a_minimum_probability_is_refused(heads: Any) -> None:
    for ask in (heads.predict, lambda page, **more: heads.stream([page], **more)):
        with pytest.raises(InputError, match=r"min_probability=0\.5.*values"):
            ask(PAGES[0], min_probability=0.5)


def test_threads_share_a_predictor(heads: Any) -> None:
    expected = heads.predict(PAGES[0]).to_dict()
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(heads.predict(PAGES[0]).to_dict()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 4


def test_selftest_autotune_and_slot_take_it(
    heads: Any, heads_bundle: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    report = heads.selftest()
    assert (report.images, report.samples) == (2, 3) and report.max_difference <= report.tolerance
    assert {row.variant for row in heads.autotune(0.01).rows} == {"fp32", "int8-u8s8-rr"}
    slot = Slot(tmp_path / "slot")
    assert slot.install(heads_bundle, device="cpu") == heads.info.bundle_id
    with slot.open(device="cpu") as opened:
        assert opened.spec == heads.spec


@pytest.mark.parametrize("verb", ["predict", "selftest", "info"])
@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_line_prints_it(
    verb: str, as_json: bool, heads_bundle: bytes, tmp_path: Path, capsys: Any
) -> None:
    from PIL import Image

    (tmp_path / "b.zip").write_bytes(heads_bundle)
    Image.fromarray(PAGES[0]).save(tmp_path / "page.png")
    words = [verb, str(tmp_path / "b.zip"), "--device", "cpu"]
    words += [str(tmp_path / "page.png")] if verb == "predict" else []
    assert main([*words, *(["--json"] if as_json else [])]) == 0
    text = capsys.readouterr().out
    if as_json:
        data = json.loads(text)
        if verb == "predict":
            assert np.shape(data[0]["outputs"]["boxes"]) == (2, 4)
    elif verb == "predict":
        assert "page.png: boxes [[" in text and "; scores [" in text


def test_a_large_array_is_printed_by_its_range() -> None:
    large = Values({"depth": np.arange(100, dtype=np.float32).reshape(10, 10)})
    assert large.to_text() == "depth (10, 10) from 0 to 99"


# --- golden samples ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [5e-6, 0.02])
def test_a_difference_is_a_share_of_the_largest_recorded_magnitude(
    error: float, build: Any
) -> None:
    data = build.bundle(build.HEADS, error=error)
    with Predictor(data, device="cpu") as p:
        if error < build.TOLERANCE:
            assert p.selftest().max_difference == pytest.approx(error, rel=0.2)
        else:
            with pytest.raises(SelftestError, match=r"by 0\.0[12]\d*;.*at most 1e-05"):
                p.selftest()


def golden_with(build: Any, **changes: Any) -> bytes:
    """A bundle whose golden arrays are replaced, or left out where None."""
    sound = dict(np.load(io.BytesIO(build.golden(build.HEADS, {"fp32": 0, "int8-u8s8-rr": 0}))))
    arrays = {**sound, **{name.replace("_", "/", 1): array for name, array in changes.items()}}
    file = io.BytesIO()
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    return build.bundle(build.HEADS, members={"golden.npz": file.getvalue()})  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"boxes_fp32": None}, BundleFormatError, "boxes/fp32"),
        ({"boxes_fp32": np.zeros((3, 4, 2), np.float32)}, BundleFormatError, r"\(3, 4, 2\)"),
        ({"boxes_fp32": np.zeros((2, 2, 4), np.float32)}, BundleFormatError, r"\(2, 2, 4\)"),
        ({"masks_fp32": np.zeros(3, np.float32)}, BundleFormatError, "masks/fp32"),
        ({"scores_fp32": np.zeros((3, 3), np.float32)}, SelftestError, "'fp32' differs"),
        (
            {"scores_fp32": np.full((3, 3), np.nan, np.float32)},
            SelftestError,
            "'fp32' differs .* nan",
        ),
        (
            {"scores_fp32": None, "boxes_fp32": None},
            SelftestError,
            "no outputs for variant 'fp32'",
        ),
    ],
)
def test_a_record_that_does_not_fit_is_refused(
    build: Any, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with (
        Predictor(golden_with(build, **changes), device="cpu") as p,
        pytest.raises(error, match=message),
    ):
        p.selftest()


# --- the check of every answer -------------------------------------------------------------------

FREE = ModelSpec("free", "values", 8, 8, 1, outputs=(OutputSpec("boxes", (None, 4)),))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_an_axis_of_unknown_length_takes_any(count: int) -> None:
    boxes = np.zeros((2, count, 4), np.float32)
    assert AnswerCheck(FREE)([boxes], 2)[0] is boxes


@pytest.mark.parametrize(
    "boxes",
    [
        np.zeros((2, 7, 5), np.float32),
        np.zeros((1, 7, 4), np.float32),
        np.zeros((2, 4), np.float32),
        np.zeros((2, 7, 4), np.float64),
        [[1.0]],
    ],
)
def test_another_shape_or_type_names_the_output(boxes: Any) -> None:
    with pytest.raises(AnswerError, match=r"'boxes' for 2 images; expected float32 \(2, any, 4\)"):
        AnswerCheck(FREE)([boxes], 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_image_with_a_value_that_is_not_finite_is_named(value: float) -> None:
    boxes = np.zeros((4, 3, 4), np.float32)
    boxes[2, 1, 0] = boxes[3, 0, 0] = value
    with pytest.raises(AnswerError, match="image 2 of 4") as caught:
        AnswerCheck(FREE)([boxes], 4)
    assert caught.value.image == 2


def test_boxes_of_another_number_than_recorded_differ_without_bound() -> None:
    task = task_named("values")
    few, many = np.zeros((1, 2, 4), np.float32), np.zeros((1, 3, 4), np.float32)
    assert task.compare_golden([few], [many]) == float("inf")


# --- the spec ------------------------------------------------------------------------------------


def test_the_spec_survives_its_json_and_fits_the_schema(build: Any, heads_bundle: bytes) -> None:
    spec = replace(build.HEADS, outputs=(*build.HEADS.outputs, OutputSpec("any", (None, 2))))
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert spec.to_dict()["spec_version"] == 2 and spec.to_dict()["labels"] == []
    bundle = Bundle.open(heads_bundle)
    jsonschema.validate(json.loads(bundle.manifest.to_json()), SCHEMA)


def test_each_task_is_written_in_the_oldest_version_that_has_it(build: Any) -> None:
    for spec in (build.GRAY, build.COLOR, build.HEADS):
        assert spec.to_dict()["spec_version"] == task_named(spec.task).spec_version
        assert ("outputs" in spec.to_dict()) == (spec.spec_version > 1)
        with pytest.raises(BundleFormatError, match="outputs"):
            ModelSpec.from_dict({**spec.to_dict(), "spec_version": 3 - spec.spec_version})


def output(name: Any = "boxes", shape: Any = (2, 4), dtype: Any = "float32") -> dict[str, Any]:
    return {"name": name, "shape": [*shape] if isinstance(shape, tuple) else shape, "dtype": dtype}


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([], "0 outputs; expected 1 to 64"),
        ([output(f"o{i}") for i in range(65)], "65 outputs"),
        ([output(), output()], r"\['boxes', 'boxes'\]"),
        ([output(), output("Boxes")], r"\['boxes', 'Boxes'\]"),
        ([output("")], "name ''"),
        ([output("a b")], "name 'a b'"),
        ([output("../x")], r"name '\.\./x'"),
        ([output("1st")], "name '1st'"),
        ([output("n" * 101)], "name 'nnn"),
        ([output("bo\u200bxes")], r"name 'bo\\u200bxes'"),
        ([output("b\u00f6xes")], "name 'b\u00f6xes'"),
        ([output("raw")], "name 'raw'"),
        ([output("Pixels")], "name 'Pixels'"),
        ([output("con")], "name 'con'"),
        ([output(shape=(0,))], r"shape \[0\]"),
        ([output(shape=(-1,))], r"shape \[-1\]"),
        ([output(shape=(2.0,))], r"shape \[2\.0\]"),
        ([output(shape=(True,))], r"shape \[True\]"),
        ([output(shape=(10**9,))], r"shape \[1000000000\]"),
        ([output(shape=(1 << 14, 1 << 13))], "134217728 values"),
        ([output(f"o{i}", (1 << 21,)) for i in range(64)], "134217728 values"),
        ([output(shape=(1,) * 8)], "8 axes"),
        ([output(dtype="float16")], "dtype 'float16'"),
        ([output(shape="24")], "shape"),
        ([output(name=1)], "name"),
        ([{"name": "boxes", "shape": [1]}], "name, shape and dtype"),
        ([{**output(), "unit": "m"}], "name, shape and dtype"),
        (["boxes"], "'boxes'"),
        ({"boxes": [1]}, "outputs="),
        (None, "outputs=None"),
    ],
)
def test_outputs_that_cannot_be_are_refused(build: Any, outputs: Any, message: str) -> None:
    with pytest.raises(BundleFormatError, match=message):
        ModelSpec.from_dict({**build.HEADS.to_dict(), "outputs": outputs})


def test_labels_and_outputs_belong_to_their_tasks(build: Any) -> None:
    with pytest.raises(BundleFormatError, match=r"labels \['a'\]"):
        replace(build.HEADS, labels=("a",))
    with pytest.raises(BundleFormatError, match=r"outputs \['boxes', 'scores'\]"):
        replace(build.GRAY, outputs=build.HEADS.outputs)
    with pytest.raises(InputError, match=r"thresholds .* values"):
        Predictor.from_parts(build.HEADS, None, build.model(build.HEADS), thresholds=(0.5,))


def test_the_table_lists_each_task_under_its_own_name() -> None:
    assert list(TASKS) == [task.name for task in TASKS.values()]
    with pytest.raises(BundleFormatError, match=r"'sound'.*" + ".*".join(TASKS)):
        task_named("sound")


@pytest.mark.parametrize("names", [("scores", "boxes"), ("boxes", "score")])
def test_a_graph_with_other_outputs_is_refused(names: tuple[str, str], build: Any) -> None:
    other = [replace(o, name=name) for o, name in zip(build.HEADS.outputs, names, strict=True)]
    wrong = build.model(replace(build.HEADS, outputs=tuple(other)), stamp=build.HEADS.to_json())
    with pytest.raises(BundleFormatError, match=f"outputs .*{names[0]}.*{names[1]}"):
        Predictor.from_parts(build.HEADS, None, wrong)
