"""The inputs of foreign models, the meaning of their outputs and the agreement with FP32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import foreign_networks as networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.evaluate.tasks import Bounds, guess
from exporters.foreign.agreement import Reference
from exporters.foreign.model_inputs import InputSpec, ModelInputs, PixelForm, input_of
from exporters.graph import onnx_file
from exporters.options import GateOptions

# --- inputs and answers ---------------------------------------------------------------------


def test_layout_and_sizes_follow_from_the_input() -> None:
    planes = input_of(networks.network(batch=1).graph)
    assert planes == InputSpec("x", "float32", (1, 3, 16, 16))
    assert planes.layouts() == ("nchw",) and planes.image_shape("nchw") == (16, 16, 3)
    rows = input_of(networks.network(nhwc=True, pixels=True, side="side").graph)
    assert rows.layouts() == ("nhwc",) and rows.image_shape("nhwc") == (None, None, 3)
    assert rows.text() == "'x' uint8 [?, ?, ?, 3]"
    assert InputSpec("x", "float32", (1, 3, 3, 3)).layouts() == ("nchw", "nhwc")
    assert InputSpec("x", "float32", (1, 10)).layouts() == ()


def test_pixels_take_the_form_that_a_model_takes() -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    form = PixelForm("nchw", "float32", (0.5, 0.25, 0.0), (0.5, 1.0, 2.0), "bgr")
    result = form.apply(pixels)
    assert result.shape == (2, 3, 4, 5) and result.dtype == np.float32
    np.testing.assert_allclose(result[:, 0], (pixels[..., 2] / 255 - 0.5) / 0.5, rtol=1e-5)
    np.testing.assert_allclose(result[:, 2], pixels[..., 0] / 255 / 2, rtol=1e-5)
    assert (PixelForm("nhwc", "uint8").apply(pixels) == pixels).all()


def test_a_fixed_batch_is_never_cut(tmp_path: Path) -> None:
    spec = InputSpec("x", "float32", (4, 3, 16, 16))
    inputs = ModelInputs(spec, networks.images(spec, 12))
    lengths = [len(feed["x"]) for feed in inputs.reader().batches()]
    assert lengths == [4, 4, 4]
    assert len(inputs.reader().first(1).indices) == 4


RNG = np.random.default_rng(0)

LOGITS = RNG.normal(size=(6, 4))

POINTS = RNG.normal(size=(6, 4)) + np.array([8, 12, 31, 22])

UNIT = LOGITS / np.linalg.norm(LOGITS, axis=1, keepdims=True)

YES_OR_NO = np.array([[0.97, 0.02, 0.9], [0.01, 0.99, 0.4], [0.03, 0.95, 0.02]] * 2)

# outputs, the data's own classes, what they are guessed to be, a word of the reason
GUESSES: dict[str, tuple[list[Any], int | None, str, str]] = {
    "probabilities": ([np.eye(4)[[0, 1, 2, 3, 1, 2]]], None, "multi-class", "add up to 1"),
    "logits": ([LOGITS], None, "multi-class", "largest"),
    "logits in planes": ([LOGITS[:, :, None, None]], None, "multi-class", "largest"),
    "a class switched off": ([LOGITS + np.array([0, 0, -np.inf, 0])], None, "multi-class", "-inf"),
    "yes and no": ([YES_OR_NO], None, "multi-label", "near its ends"),
    "as many classes": ([POINTS], 4, "multi-class", "4 classes, too"),
    "other classes": ([LOGITS], 2, "values", "2 classes, and each row 4"),
    "points": ([POINTS], None, "values", "same number is the largest"),
    "points as shares": ([POINTS / 40], None, "values", "not like a yes or no"),
    "unit rows": ([UNIT], None, "values", "length 1"),
    "more rows": ([RNG.normal(size=(24, 4))], None, "values", "6 inputs get 24 rows"),
    "one row": ([RNG.normal(size=(1, 4))], None, "values", "6 inputs get 1 rows"),
    "not numbers": ([np.full((6, 4), np.nan)], None, "values", "not numbers"),
    "a number": ([np.full((6, 1), -3.0)], None, "values", "one number"),
    "images": ([np.zeros((6, 3, 8, 8))], None, "values", "classes are"),
    "none": ([np.zeros((6, 0))], None, "values", "classes are"),
    "several": ([np.zeros((6, 4)), np.zeros((6, 4))], None, "values", "2 outputs"),
}


@pytest.mark.parametrize("case", list(GUESSES))
def test_what_outputs_are_is_guessed_with_a_reason(case: str) -> None:
    values, classes, task, reason = GUESSES[case]
    result = guess(values, 6, classes)
    assert result.task == task and reason in result.reason


def judged(model: onnx.ModelProto, task: Any, labels: Any = None) -> Reference:
    spec = input_of(model.graph)
    return Reference.of_fp32(
        onnx_file.to_bytes(model),
        [value.name for value in model.graph.output],
        ModelInputs(spec, networks.images(spec, 64, seed=3)),
        Bounds(GateOptions(margin_points=1.0), 20.0),
        task=task,
        labels=labels,
    )


def noisy(scale: float) -> onnx.ModelProto:
    result = networks.network()
    part = next(t for t in result.graph.initializer if t.name == "w3")
    noise = np.random.default_rng(0).normal(size=part.dims) * scale
    values = (numpy_helper.to_array(part) + noise).astype(np.float32)
    part.CopyFrom(numpy_helper.from_array(values, "w3"))
    return result


@pytest.mark.parametrize("task", ["multi-class", "multi-label", "values"])
def test_the_same_model_passes_and_a_damaged_one_does_not(task: Any) -> None:
    reference = judged(networks.network(), task)
    same = reference.assess(onnx_file.to_bytes(networks.network()), "int8-x", False)
    assert same.passed and same.lost_points < 1e-9 and same.sqnr_db == 200
    damaged = reference.assess(onnx_file.to_bytes(noisy(2.0)), "int8-x", False)
    assert not damaged.passed and damaged.failures and damaged.lost_points > 1
    assert reference.first(8).assess_quickly(onnx_file.to_bytes(noisy(2.0)))[1] < 20


def test_other_outputs_than_the_answers_are_judged_too() -> None:
    def model(share: float) -> bytes:
        made = networks.network()
        made.graph.initializer.append(networks.tensor("share", share))
        made.graph.node.append(helper.make_node("Mul", ["f", "share"], ["features"]))
        made.graph.output.append(
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", None])
        )
        return onnx_file.to_bytes(made)

    reference = judged(onnx_file.from_bytes(model(1.0)), "multi-class")
    assert reference.assess(model(1.001), "int8-x", False).passed
    result = reference.assess(model(3.0), "int8-x", False)
    assert not result.passed and result.lost_points == 0
    assert "output 'features'" in result.failures[0] and "20 dB" in result.failures[0]


def test_labels_judge_where_there_are_any() -> None:
    free = judged(networks.network(), "multi-class")
    answers = free.values[0].argmax(axis=1)
    assert judged(networks.network(), "multi-class", answers).accuracy() == 1.0
    wrong = judged(networks.network(), "multi-class", (answers + 1) % 5)
    assert wrong.accuracy() == 0.0
    assert wrong.assess(onnx_file.to_bytes(noisy(2.0)), "int8-x", False).lost_points < 0
