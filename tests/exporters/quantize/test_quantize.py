"""int8_from_fp32.py, fp16_from_fp32.py, calibration.py: ok-tables and planted faults."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from int8_variant import int8_from_fp32
from onnx import TensorProto, numpy_helper

from exporters.errors import QuantizeError
from exporters.graph import onnx_file
from exporters.graph.quantized import quantized_weights
from exporters.graph.walk import Graph
from exporters.options import Int8Options
from exporters.quantize import calibration
from exporters.quantize.fp16_from_fp32 import fp16_from_fp32, verify_fp16
from exporters.quantize.portability import portability
from exporters.quantize.verify_int8 import verify_int8

SMALL = Int8Options()
INT8 = {
    "u8s8-rr": SMALL,
    "u8s8": dataclasses.replace(SMALL, reduce_range=False),
    "u8u8": dataclasses.replace(SMALL, weights="uint8", reduce_range=False),
    "u8u8-rr-tensor": dataclasses.replace(SMALL, weights="uint8", per_channel=False),
    "s8s8-rr": dataclasses.replace(SMALL, activations="int8"),
    "tensor": dataclasses.replace(SMALL, per_channel=False),
    "entropy": dataclasses.replace(SMALL, calibration="entropy"),
    "percentile": dataclasses.replace(SMALL, calibration="percentile"),
    "excluded": dataclasses.replace(SMALL, exclude_nodes=("Conv_0",)),
}


def difference(case: Any, variant: onnx.ModelProto) -> float:
    """Of the file itself: with kernels that cannot saturate, as on a CPU with VNNI."""
    exact = {"session.x64quantprecision": "1"}
    before = onnx_file.run(onnx_file.session(case.model), case.images)
    after = onnx_file.run(onnx_file.session(variant, config=exact), case.images)
    return float(np.abs(before - after).mean())


@pytest.mark.parametrize("name", INT8)
@pytest.mark.parametrize("which", ["digits", "faces"])
def test_int8_is_what_was_asked_for(
    name: str, which: str, request: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    case, options = request.getfixturevalue(which), INT8[name]
    variant = int8_from_fp32(case.model, case.spec, options, case.images, calibration_images=48)
    assert capfd.readouterr() == ("", "")
    onnx_file.check_model(variant, case.spec)
    verify_int8(case.model, variant, options)
    assert difference(case, variant) < 0.02
    expected_portable = name not in ("u8s8", "excluded")
    verdict = portability(variant)
    assert verdict.portable == expected_portable, verdict.reason


def test_the_whole_middle_is_integer(digits: Any, tmp_path: Any) -> None:
    """onnxruntime fuses every layer; no float convolution and no stray Q/DQ pair is left."""
    import onnxruntime as ort

    variant = int8_from_fp32(digits.model, digits.spec, SMALL, digits.images, calibration_images=48)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(onnx_file.to_bytes(variant), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert kinds.count("QLinearConv") == 3
    assert kinds.count("QGemm") == 1
    assert kinds.count("QuantizeLinear") == 1  # of the pixels
    assert "DequantizeLinear" not in kinds  # the last layer puts out float
    assert not {"Conv", "Gemm", "Relu"} & set(kinds)


def test_first_and_last_nodes_stay_float(digits: Any) -> None:
    graph = Graph(
        int8_from_fp32(digits.model, digits.spec, SMALL, digits.images, calibration_images=48)
    )
    softmax = next(node for node in graph.nodes if node.op_type == "Softmax")
    logits = graph.producer(softmax.input[0])
    assert logits is not None and logits.op_type == "Gemm"
    quantize = next(node for node in graph.nodes if node.op_type == "QuantizeLinear")
    before = graph.producer(quantize.input[0])
    assert before is not None and before.op_type in ("Div", "Sub", "Mul", "Add")


def test_int8_is_deterministic_and_seeded(digits: Any) -> None:
    one, two, other = (
        onnx_file.to_bytes(
            int8_from_fp32(
                digits.model, digits.spec, SMALL, digits.images, calibration_images=3, seed=seed
            )
        )
        for seed in (5, 5, 6)
    )
    assert one == two
    assert one != other


def test_dead_channels_and_dead_inputs_get_usable_scales(digits: Any) -> None:
    """All-zero weights of a channel, and activations that are always zero."""
    model = onnx.ModelProto()
    model.CopyFrom(digits.model)
    for tensor in model.graph.initializer:
        if tensor.name in ("Conv_1.weight", "Conv_1.bias"):
            values = numpy_helper.to_array(tensor).copy()
            values[:] = 0 if tensor.name.endswith("bias") else values
            values[:3] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    black = np.zeros_like(digits.images)
    for images in (digits.images, black):
        variant = int8_from_fp32(model, digits.spec, SMALL, images, calibration_images=48)
        probabilities = onnx_file.run(onnx_file.session(variant), images)
        assert np.isfinite(probabilities).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weights": "uint8", "activations": "int8"},
            "uint8 weights with int8 activations have no kernel",
        ),
        ({"exclude_nodes": ("Conv_7",)}, r"exclude_nodes has \['Conv_7'\].*Conv_0"),
        (
            {"exclude_nodes": ("Conv_0", "Conv_1", "Conv_2", "Gemm_0")},
            "nothing is left to quantize",
        ),
    ],
)
def test_int8_refuses(digits: Any, change: dict[str, Any], message: str) -> None:
    options = dataclasses.replace(SMALL, **change)
    with pytest.raises(QuantizeError, match=message):
        int8_from_fp32(digits.model, digits.spec, options, digits.images, calibration_images=48)


@pytest.mark.parametrize("count", [0, 97])
def test_int8_refuses_too_few_or_no_images(digits: Any, count: int) -> None:
    with pytest.raises(QuantizeError, match=rf"\b{count} .*\b96 .*calibration_images"):
        int8_from_fp32(digits.model, digits.spec, SMALL, digits.images, calibration_images=count)


def test_int8_refuses_weights_that_are_not_numbers(digits: Any) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(digits.model)
    tensor = next(t for t in model.graph.initializer if t.name == "Conv_1.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(QuantizeError, match=r"\['Conv_1.weight'\] are not finite"):
        int8_from_fp32(model, digits.spec, SMALL, digits.images, calibration_images=48)


@pytest.mark.parametrize(
    ("made", "asked", "message"),
    [
        ("u8s8", "u8s8-rr", r"Conv_0 has weights up to 12[78], reduce_range allows 64"),
        ("u8s8-rr", "u8u8", "Conv_0 has int8 weights, not uint8"),
        ("u8s8-rr", "s8s8-rr", "activations of Conv_0 are uint8, not int8"),
        ("u8s8-rr", "tensor", "Conv_0 is quantized per channel, not per tensor"),
        ("tensor", "u8s8-rr", "Conv_0 is not quantized per channel"),
        ("u8s8-rr", "excluded", "Conv_0 was to stay float but is quantized"),
        ("excluded", "u8s8-rr", "Conv_0 is not quantized"),
    ],
)
def test_an_ignored_request_is_named(digits: Any, made: str, asked: str, message: str) -> None:
    variant = int8_from_fp32(
        digits.model, digits.spec, INT8[made], digits.images, calibration_images=48
    )
    with pytest.raises(QuantizeError, match=message):
        verify_int8(digits.model, variant, INT8[asked])


def test_a_file_that_was_not_quantized_is_named(digits: Any) -> None:
    with pytest.raises(QuantizeError, match=r"it has no QuantizeLinear node.*Gemm_0 is not quant"):
        verify_int8(digits.model, digits.model, SMALL)


@pytest.mark.parametrize("fault", [0.0, -1.0, np.nan])
def test_a_bad_scale_is_named(digits: Any, fault: float) -> None:
    variant = int8_from_fp32(digits.model, digits.spec, SMALL, digits.images, calibration_images=48)
    node = next(n for n in variant.graph.node if n.op_type == "QuantizeLinear")
    tensor = next(t for t in variant.graph.initializer if t.name == node.input[1])
    tensor.CopyFrom(numpy_helper.from_array(np.float32(fault), tensor.name))
    with pytest.raises(QuantizeError, match=f"the scale of {node.name} is not a positive"):
        verify_int8(digits.model, variant, SMALL)


# --- portability -----------------------------------------------------------------------------


def test_a_planted_pair_of_large_weights_is_named(digits: Any) -> None:
    variant = int8_from_fp32(digits.model, digits.spec, SMALL, digits.images, calibration_images=48)
    weight = next(w for w in quantized_weights(Graph(variant)) if w.node == "Conv_1")
    values = weight.values.copy()
    values[2, 3, 1, 1:] = 127, -127  # neighbors in a row of the kernel
    for tensor in variant.graph.initializer:
        if np.array_equal(numpy_helper.to_array(tensor), weight.values):
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    verdict = portability(variant)
    assert not verdict.portable
    assert [layer.node for layer in verdict.layers if not layer.portable] == ["Conv_1"]
    assert re.search(r"Conv_1: .*255 \* 254 > 32767", verdict.reason)


def test_float_files_are_never_portable(digits: Any) -> None:
    for model in (digits.model, fp16_from_fp32(digits.model, digits.spec)):
        verdict = portability(model)
        assert not verdict.portable
        assert "no 8-bit weights" in verdict.reason


# --- fp16 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["digits", "faces"])
def test_fp16_halves_the_weights_and_keeps_both_ends(which: str, request: Any) -> None:
    case = request.getfixturevalue(which)
    variant = fp16_from_fp32(case.model, case.spec)
    onnx_file.check_model(variant, case.spec)
    assert difference(case, variant) < 2e-3
    graph = Graph(variant)
    halved = {t.name for t in graph.constants.values() if t.data_type == TensorProto.FLOAT16}
    for node in graph.nodes:
        if node.op_type in ("Conv", "Gemm"):
            assert set(node.input[1:]) <= halved
    last = next(n for n in graph.nodes if n.op_type in ("Softmax", "Sigmoid"))
    cast = graph.producer(last.input[0])
    assert cast is not None and cast.op_type == "Cast"  # the activation computes in float32
    assert onnx_file.to_bytes(fp16_from_fp32(case.model, case.spec)) == onnx_file.to_bytes(variant)


def test_fp16_refuses_what_does_not_fit(digits: Any) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(digits.model)
    tensor = next(t for t in model.graph.initializer if t.name == "Gemm_0.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0] = 70_000
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(QuantizeError, match=r"Gemm_0.weight has values up to 70000.*65504"):
        fp16_from_fp32(model, digits.spec)


def test_fp16_that_was_not_done_is_named(digits: Any) -> None:
    with pytest.raises(QuantizeError, match="Conv_0 has FLOAT weights"):
        verify_fp16(digits.model)


# --- calibration -----------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(0, 2**31), st.data())
def test_choice_is_distinct_sorted_and_repeatable(available: int, seed: int, data: Any) -> None:
    count = data.draw(st.integers(1, available))
    chosen = calibration.choose(available, count, seed)
    assert len(set(chosen.tolist())) == count
    assert chosen.tolist() == sorted(chosen.tolist())
    assert set(chosen.tolist()) <= set(range(available))
    assert np.array_equal(chosen, calibration.choose(available, count, seed))


@given(st.integers(1, 150))
def test_reader_gives_each_chosen_image_once_in_small_batches(count: int) -> None:
    images = np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1)
    indices = calibration.choose(200, count, 0)
    reader = calibration.ImageReader(images, indices)
    for _ in range(2):
        batches = [batch["images"] for batch in reader.batches()]
        assert all(len(batch) <= calibration.BATCH for batch in batches)
        assert np.concatenate(batches).ravel().tolist() == indices.tolist()
    (first,) = reader.first(1).batches()
    assert len(first["images"]) == 1
