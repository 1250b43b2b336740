"""Small networks as strangers write them, by ``onnx.helper``: every way in which files differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exporters.foreign.foreign_model import ForeignModel
from exporters.foreign.model_inputs import ModelInputs
from exporters.quantize.activation_ranges import ActivationStatistics

SIDE, CLASSES = 16, 5


def tensor(name: str, values: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def normal(name: str, *shape: int) -> onnx.TensorProto:
    rng = np.random.default_rng(sum(map(ord, name)))
    return tensor(name, rng.normal(size=shape) * 1.5 / np.sqrt(np.prod(shape[1:])))


def weights() -> list[onnx.TensorProto]:
    rng = np.random.default_rng(1)
    return [
        normal("w1", 8, 3, 3, 3),
        tensor("scale", rng.uniform(0.5, 1.5, 8)),
        tensor("shift", rng.normal(size=8) * 0.1),
        tensor("mean", rng.normal(size=8) * 0.1),
        tensor("var", rng.uniform(0.5, 1.5, 8)),
        tensor("slope", rng.uniform(0.1, 0.3, (8, 1, 1))),
        normal("w2", 16, 8, 3, 3),
        tensor("b2", rng.normal(size=16) * 0.1),
        normal("w3", CLASSES, 16),
        tensor("b3", rng.normal(size=CLASSES) * 0.1),
    ]


def network(
    opset: int = 13,
    *,
    ir: int = 8,
    batch: int | str = "N",
    side: int | str = SIDE,
    nhwc: bool = False,
    pixels: bool = False,
    constants: bool = False,
    prelu: bool = False,
    named: bool = True,
    weights_as_inputs: bool = False,
    softmax: bool = False,
) -> onnx.ModelProto:
    """Conv, BatchNorm, (P)Relu, dropout, Conv, Relu, pool, Gemm: "x" -> "y" [batch, 5]."""
    nodes: list[onnx.NodeProto] = []

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        name = f"layer/{output}" if named else ""
        nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))

    parts = {part.name: part for part in weights()}
    if not prelu:
        del parts["slope"]
    x = "x"
    if pixels:
        parts["full"] = tensor("full", 255.0)
        add("Cast", [x], "float", to=TensorProto.FLOAT)
        add("Div", ["float", "full"], "scaled")
        x = "scaled"
    if nhwc:
        add("Transpose", [x], "planes", perm=[0, 3, 1, 2])
        x = "planes"
    add("Conv", [x, "w1"], "c1", pads=[1, 1, 1, 1])
    add("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], "n1")
    add("PRelu", ["n1", "slope"], "r1") if prelu else add("Relu", ["n1"], "r1")
    add("Dropout", ["r1"], "d1")
    add("Conv", ["d1", "w2", "b2"], "c2", pads=[1, 1, 1, 1], strides=[2, 2])
    add("Relu", ["c2"], "r2")
    add("GlobalAveragePool", ["r2"], "p")
    add("Flatten", ["p"], "f")
    add("Gemm", ["f", "w3", "b3"], "logits" if softmax else "y", transB=1)
    if softmax:
        add("Softmax", ["logits"], "y", axis=1)
    if constants:
        made = [
            helper.make_node("Constant", [], [name], value=part, name=f"constant/{name}")
            for name, part in parts.items()
        ]
        nodes, parts = made + nodes, {}
    return model(
        nodes,
        list(parts.values()),
        shape=[batch, side, side, 3] if nhwc else [batch, 3, side, side],
        opset=opset,
        ir=ir,
        kind=TensorProto.UINT8 if pixels else TensorProto.FLOAT,
        batch=batch,
        weights_as_inputs=weights_as_inputs,
    )


def model(
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto],
    *,
    shape: list[int | str],
    outputs: dict[str, list[int | str]] | None = None,
    opset: int = 13,
    ir: int = 8,
    kind: int = TensorProto.FLOAT,
    batch: int | str = "N",
    weights_as_inputs: bool = False,
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    if weights_as_inputs:
        inputs += [
            helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in initializers
        ]
    graph = helper.make_graph(
        nodes,
        "net",
        inputs,
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
            for name, sizes in (outputs or {"y": [batch, CLASSES]}).items()
        ],
        initializers,
    )
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    helper.set_model_props(result, {"labels": "a,b,c,d,e"})
    onnx.checker.check_model(result)
    return result


def branching() -> onnx.ModelProto:
    """An If whose branches read a tensor of the main graph; one of them holds a Conv."""
    then = helper.make_graph(
        [helper.make_node("Conv", ["r1", "w2"], ["then_out"], name="inner", pads=[1] * 4)],
        "then",
        [],
        [helper.make_tensor_value_info("then_out", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [
            helper.make_node("Concat", ["r1", "r1"], ["else_out"], axis=1),
        ],
        "else",
        [],
        [helper.make_tensor_value_info("else_out", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="first/relu"),
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0, name="mean"),
        helper.make_node("Greater", ["m", "zero"], ["bright"], name="bright"),
        helper.make_node(
            "If", ["bright"], ["i"], name="choice", then_branch=then, else_branch=other
        ),
        helper.make_node("Conv", ["i", "w4"], ["c4"], name="last", pads=[1] * 4),
        helper.make_node("Relu", ["c4"], ["r4"], name="last/relu"),
        helper.make_node("GlobalAveragePool", ["r4"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["y"], name="flat"),
    ]
    constants = [
        normal("w1", 8, 3, 3, 3),
        normal("w2", 16, 8, 3, 3),
        normal("w4", CLASSES, 16, 3, 3),
        tensor("zero", 0.0),
    ]
    return model(nodes, constants, shape=["N", 3, SIDE, SIDE])


def images(spec: Any, count: int = 24, seed: int = 0) -> NDArray[Any]:
    """Inputs as a model takes them; free sizes become 16."""
    rng = np.random.default_rng(seed)
    shape = (count, *(size or SIDE for size in spec.shape[1:]))
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    if spec.dtype == "uint8":
        return pixels
    return (pixels / 255).astype(np.float32)


def statistics(foreign: ForeignModel) -> ActivationStatistics:
    inputs = ModelInputs(foreign.input, images(foreign.input))
    return ActivationStatistics(foreign.model, inputs.reader())
