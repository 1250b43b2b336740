"""A model of the task values, from its ONNX file to a bundle that answers."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from int8_variant import int8_from_fp32
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exporters.errors import GraphError
from exporters.evaluate.tasks import OutputPair
from exporters.evaluate.tasks.values import VALUES
from exporters.export.resize_graph import resize_graph
from exporters.graph import onnx_file
from exporters.options import MIN_SQNR_DB, Int8Options
from exporters.package.bundle_writer import Golden, PackedVariant, golden_tolerance, write_bundle
from runtime import Default, ModelSpec, OutputSpec, Predictor, Values
from runtime.spec import INPUT_NAME

SPEC = ModelSpec(
    "edges",
    "values",
    8,
    8,
    1,
    outputs=(OutputSpec("picture", (4, 8, 8)), OutputSpec("embedding", (4,))),
)
RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.integers(0, 256, (48, 8, 8, 1), dtype=np.uint8)
FILTERS = RANDOM.normal(0, 0.4, (4, 1, 3, 3)).astype(np.float32)


def network(filters: NDArray[np.float32] = FILTERS) -> onnx.ModelProto:
    """Filtered pictures, and the mean of each of them."""
    constants = {
        "mean": np.array(128, np.float32),
        "scale": np.array(64, np.float32),
        "filters": filters,
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Transpose", [INPUT_NAME], ["planes"], "Transpose_0", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["float"], "Cast_0", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "mean"], ["centered"], "Sub_0"),
        helper.make_node("Div", ["centered", "scale"], ["scaled"], "Div_0"),
        helper.make_node("Conv", ["scaled", "filters"], ["edges"], "Conv_0", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["edges"], ["picture"], "Relu_0"),
        helper.make_node("ReduceMean", ["picture", "axes"], ["embedding"], "Mean_0", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "edges",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", 8, 8, 1])],
        [
            helper.make_tensor_value_info(output.name, TensorProto.FLOAT, ["N", *output.shape])
            for output in SPEC.outputs
        ],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return onnx_file.finished(model, SPEC)


def outputs(model: onnx.ModelProto) -> list[NDArray[np.float32]]:
    names = [output.name for output in SPEC.outputs]
    return onnx_file.run_feed(onnx_file.session(model), names, {INPUT_NAME: IMAGES})


@pytest.fixture(scope="module")
def fp32() -> onnx.ModelProto:
    model = network()
    onnx_file.check_model(model, SPEC)
    return model


@pytest.fixture(scope="module")
def int8(fp32: onnx.ModelProto) -> onnx.ModelProto:
    return int8_from_fp32(fp32, SPEC, Int8Options(), IMAGES, calibration_images=32)


def pair(reference: onnx.ModelProto, candidate: onnx.ModelProto) -> OutputPair:
    names = tuple(output.name for output in SPEC.outputs)
    return OutputPair(names, outputs(reference), outputs(candidate))


def test_int8_is_judged_by_the_signal_of_each_output(
    fp32: onnx.ModelProto, int8: onnx.ModelProto
) -> None:
    verdict = VALUES.judge(pair(fp32, int8))
    assert verdict.passed and verdict.checks[0].value > MIN_SQNR_DB
    lost = FILTERS.copy()
    lost[2] = 0  # one filter of four
    refused = VALUES.judge(pair(fp32, network(lost)))
    assert not refused.passed and refused.checks[0].limit == MIN_SQNR_DB
    assert "'embedding'" in refused.failures[0] and f"{MIN_SQNR_DB:g} dB" in refused.failures[0]


def test_a_file_with_other_outputs_breaks_the_contract(fp32: onnx.ModelProto) -> None:
    other = dataclasses.replace(SPEC, outputs=SPEC.outputs[::-1])
    with pytest.raises(GraphError, match="embedding"):
        onnx_file.check_model(onnx_file.finished(fp32, other), other)


def test_the_bundle_answers_with_the_arrays_of_each_variant(
    fp32: onnx.ModelProto, int8: onnx.ModelProto, tmp_path: Path
) -> None:
    variants = [
        PackedVariant(onnx_file.to_bytes(model), name, name, False, golden_tolerance(name, False))
        for name, model in (("fp32", fp32), ("int8", int8))
    ]
    path = tmp_path / "edges.zip"
    write_bundle(
        path,
        spec=SPEC,
        preprocess=onnx_file.to_bytes(resize_graph(8, 8, "gray")),
        variants=variants,
        defaults=(Default("cpu", "fp32", "not measured here"),),
        golden=Golden((RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8),), IMAGES[:4]),
        measurements={},
        model_card="# Edges\n",
    )
    with zipfile.ZipFile(path) as archive, archive.open("golden.npz") as member:
        recorded = sorted(np.load(io.BytesIO(member.read())).files)
    assert recorded == sorted(
        ["pixels", "raw/0", *(f"{o.name}/{v.id}" for o in SPEC.outputs for v in variants)]
    )
    for variant, model in (("fp32", fp32), ("int8", int8)):
        with Predictor(path, device="cpu", variant=variant) as predictor:
            assert predictor.selftest().samples == 5
            expected = dict(zip(("picture", "embedding"), outputs(model), strict=True))
            arrays = predictor.outputs(IMAGES)
            assert list(arrays) == list(expected)
            for name, values in expected.items():
                np.testing.assert_allclose(arrays[name], values, atol=1e-5)
            answer = predictor.predict(IMAGES[0])
            assert isinstance(answer, Values) and answer["embedding"].shape == (4,)
            np.testing.assert_allclose(answer["picture"], arrays["picture"][0], atol=1e-5)
