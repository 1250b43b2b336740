"""Precision is read from the file, never from its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from faults import constant
from onnx import numpy_helper
from pets import CLASSES, EXPORT, OPTIONS, World, settled

from exporters.export.onnx_from_torch import onnx_from_torch
from exporters.graph import onnx_file
from exporters.graph.quantized import precision_of
from exporters.options import TOLERANCES
from pipeline.compare.opening import open_form
from pipeline.learning.networks.build import build_network


def one_scale(world: World, seed: int = 0) -> str:
    """A float model whose pixels are normalized by one DequantizeLinear, as those of MNIST are."""
    options = OPTIONS.model_copy(update={"mean": (0.5,) * 3, "std": (0.25,) * 3})
    network = settled(build_network(options, CLASSES), seed)
    model = onnx_from_torch(network, CLASSES, EXPORT)
    assert "DequantizeLinear" in {node.op_type for node in model.graph.node}
    return world.save(f"scale{seed}.onnx", model)


def test_another_training_of_a_float_file_is_judged_as_float(world: World) -> None:
    a, b = one_scale(world), one_scale(world, seed=1)
    result = world.compare(a, b)
    assert [row.metric for row in result.tolerance] == ["max_abs", "mean_abs"]
    assert result.tolerance == TOLERANCES["fp32"] and not result.passed
    assert not any("not portable" in cause for cause in result.causes)
    bundle = world.bundle("scale.zip", fp32=onnx_file.load(Path(a)))
    assert world.compare(a, bundle).tolerance == TOLERANCES["fp32"]
    # nearer than INT8 may be, and yet further than float may be
    model = onnx_file.load(Path(a))
    constant(model.graph, "Gemm_0.bias", lambda v: v + np.float32([0.02, 0, 0.01, -0.02]))
    result = world.compare(a, world.save("near.onnx", model))
    assert not result.passed
    assert all(getattr(result.difference, row.metric) < row.limit for row in TOLERANCES["int8"])


@pytest.mark.parametrize(
    ("name", "precision"), [("fp32", "fp32"), ("fp16", "fp16"), ("int8", "int8")]
)
def test_a_bare_file_has_the_tolerances_of_what_is_in_it(
    world: World, name: str, precision: str
) -> None:
    result = world.compare(world.path("fp32.onnx"), world.path(f"{name}.onnx"))
    assert result.tolerance == TOLERANCES[precision]
    model = onnx_file.load(Path(world.path(f"{name}.onnx")))
    assert precision_of(model) == precision
    claimed = world.bundle(f"{name}.zip", int8=model)  # the manifest says INT8 of each
    assert open_form(claimed).precision == precision


def graph_of(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """Some nodes between float ``x`` and ``y``."""
    x, y = (
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")
    )
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(list(nodes), "some", [x], [y], stored)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])


@pytest.mark.parametrize(
    ("operator", "inputs", "precision"),
    [
        ("MatMul", ["x", "float"], "fp32"),
        ("MatMul", ["x", "half"], "fp16"),
        ("DequantizeLinear", ["x", "scale"], "fp32"),
        ("DequantizeLinear", ["bytes", "scale"], "int8"),
        ("QuantizeLinear", ["x", "scale"], "int8"),
        ("QLinearConv", ["x"], "int8"),
        ("QLinearMatMul", ["x"], "int8"),
        ("ConvInteger", ["x"], "int8"),
        ("MatMulInteger", ["x"], "int8"),
        ("MatMulIntegerToFloat", ["x"], "int8"),
        ("DynamicQuantizeLinear", ["x"], "int8"),
        ("QGemm", ["x"], "int8"),
        ("QuickGelu", ["x"], "fp32"),
    ],
)
def test_precision_is_read_off_the_operators(
    operator: str, inputs: list[str], precision: str
) -> None:
    known = {
        "float": np.eye(4, dtype=np.float32),
        "half": np.eye(4, dtype=np.float16),
        "bytes": np.eye(4, dtype=np.int8),
        "scale": np.float32(0.1),
    }
    used = {name: np.asarray(known[name]) for name in inputs if name in known}
    model = graph_of(onnx.helper.make_node(operator, inputs, ["y"]), **used)
    assert precision_of(model) == precision
    # inside a branch of an If it counts as much
    branch = onnx.helper.make_graph(list(model.graph.node), "then", [], list(model.graph.output))
    chosen = onnx.helper.make_node(
        "If", ["condition"], ["y"], then_branch=branch, else_branch=branch
    )
    assert precision_of(graph_of(chosen, **used)) == precision


def test_constants_of_nodes_count_as_well() -> None:
    def made(values: Any, *more: onnx.NodeProto) -> onnx.ModelProto:
        value = numpy_helper.from_array(values)
        first = onnx.helper.make_node("Constant", [], ["c"], value=value)
        return graph_of(first, *more, scale=np.array(0.1, np.float32))

    turned = onnx.helper.make_node("Transpose", ["c"], ["t"])
    weights = onnx.helper.make_node("DequantizeLinear", ["t", "scale"], ["y"])
    assert precision_of(made(np.eye(4, dtype=np.int8), turned, weights)) == "int8"
    product = onnx.helper.make_node("MatMul", ["x", "c"], ["y"])
    assert precision_of(made(np.eye(4, dtype=np.float16), product)) == "fp16"
    cast = onnx.helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT16)
    assert precision_of(graph_of(cast)) == "fp16"
