"""Small networks with one odd thing each, by ``onnx.helper``: what strangers' files hold that a
quantizer does not expect. Each maps "x" [N, 3, 16, 16] to its outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import foreign_networks as networks
import numpy as np
import onnx
from foreign_networks import normal, tensor
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node
CLASSES = networks.CLASSES


def built(
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    *,
    outputs: dict[str, list[int | str]] | None = None,
    opset: int = 17,
    domains: tuple[str, ...] = (),
    checked: bool = True,
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "odd",
        [value("x", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [
            value(name, TensorProto.FLOAT, sizes)
            for name, sizes in (outputs or {"y": ["N", CLASSES]}).items()
        ],
        constants,
    )
    ids = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    result = helper.make_model(graph, opset_imports=ids, ir_version=8)
    if checked and not domains:
        onnx.checker.check_model(result)
    return result


def body(source: str = "x", end: str = "f", bias: str = "b1") -> list[onnx.NodeProto]:
    """Conv "conv", Relu, pool and flatten: ``source`` -> ``end`` [N, 16]."""
    return [
        node("Conv", [source, "w1", bias], ["c"], name="conv", pads=[1] * 4),
        node("Relu", ["c"], ["r"], name="relu"),
        node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        node("Flatten", ["p"], [end], name="flat"),
    ]


def parts(*names: str) -> list[onnx.TensorProto]:
    known = {
        "w1": normal("w1", 16, 3, 3, 3),
        "b1": tensor("b1", np.linspace(-0.2, 0.2, 16)),
        "w2": normal("w2", 16, 16, 3, 3),
        "b2": tensor("b2", np.linspace(0.1, -0.1, 16)),
        "wf": normal("wf", CLASSES, 16),
        "bf": tensor("bf", np.linspace(-1, 1, CLASSES)),
    }
    return [known[name] for name in ("w1", "b1", *names)]


def gemm(**attributes: Any) -> onnx.NodeProto:
    return node("Gemm", ["f", "wf", "bf"], ["y"], name="fc", **({"transB": 1} | attributes))


def with_bias(values: Any, **attributes: Any) -> onnx.ModelProto:
    """A Gemm whose bias has these values and this shape."""
    constants = [*parts("wf"), tensor("bf", values)]
    return built([*body(), gemm(**attributes)], constants)


def row_bias_of_a_sum() -> onnx.ModelProto:
    nodes = [
        *body(),
        node("MatMul", ["f", "m"], ["u"], name="mm"),
        node("Add", ["u", "row"], ["v"], name="add"),
        node("Relu", ["v"], ["v2"], name="relu2"),
        node("Gemm", ["v2", "wh", "bf"], ["y"], name="fc", transB=1),
    ]
    rows = [normal("m", 16, 32), normal("row", 1, 32), normal("wh", CLASSES, 32)]
    return built(nodes, [*parts("bf"), *rows])


def computed_bias() -> onnx.ModelProto:
    nodes = [
        *body(),
        node("ReduceMean", ["x"], ["m"], name="mean", axes=[0, 1, 2, 3], keepdims=0),
        node("Mul", ["bf", "m"], ["bc"], name="times"),
        node("Gemm", ["f", "wf", "bc"], ["y"], name="fc", transB=1, beta=0.5),
    ]
    return built(nodes, parts("wf", "bf"))


def computed_conv_bias() -> onnx.ModelProto:
    nodes = [
        node("ReduceMean", ["x"], ["m"], name="mean", axes=[0, 1, 2, 3], keepdims=0),
        node("Mul", ["b1", "m"], ["bc"], name="times"),
        *body(bias="bc"),
        gemm(),
    ]
    return built(nodes, parts("wf", "bf"))


def gelu(biased: bool = True) -> onnx.ModelProto:
    """onnxruntime's own Gelu between two convolutions."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], name="conv1", pads=[1] * 4),
        node("Gelu", ["a"], ["g"], name="gelu", domain="com.microsoft"),
        *body("g"),
        gemm(),
    ]
    nodes[2].CopyFrom(
        node("Conv", ["g", "w2"] + ["b2"] * biased, ["c"], name="conv2", pads=[1] * 4)
    )
    return built(nodes, parts("w2", "b2", "wf", "bf"), domains=("com.microsoft",))


def shared_bias() -> onnx.ModelProto:
    """The quantizer's copy of "b" is called "b0", as a tensor of the file is."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], name="conv1", pads=[1] * 4),
        node("Relu", ["a"], ["b10"], name="relu1"),
        node("Conv", ["b10", "w2", "b1"], ["c"], name="conv2", pads=[1] * 4),
        *body()[1:],
        gemm(),
    ]
    return built(nodes, parts("w2", "wf", "bf"))


def names_of_the_quantizer() -> onnx.ModelProto:
    """Tensors, nodes and an output called as the quantizer and the calibrator call theirs."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c"], name="x_QuantizeLinear", pads=[1] * 4),
        node("Relu", ["c"], ["r"], name="c_DequantizeLinear"),
        node("Add", ["r", "r_zero_point"], ["r_ReduceMax"], name="r_scale"),
        node("Conv", ["r_ReduceMax", "w2", "w2_scale"], ["s"], name="conv2", pads=[1] * 4),
        node("GlobalAveragePool", ["s"], ["x_scale"], name="pool"),
        node("Flatten", ["x_scale"], ["f"], name="flat"),
        node("Gemm", ["f", "wf", "bf"], ["f_quantized"], name="fc", transB=1),
    ]
    more = [
        tensor("r_zero_point", np.full((1, 16, 1, 1), 0.1)),
        tensor("w2_scale", np.linspace(0.1, -0.1, 16)),
    ]
    outputs: dict[str, list[int | str]] = {"f_quantized": ["N", CLASSES]}
    return built(nodes, [*parts("w2", "wf", "bf"), *more], outputs=outputs)


def shared_head(reading: str = "alike") -> onnx.ModelProto:
    """One set of weights in two convolutions, or in one and something that reads it otherwise."""
    second = {
        "alike": node("Conv", ["m", "wh", "bh"], ["h2"], name="head2", pads=[1] * 4),
        "transposed": node("ConvTranspose", ["m", "wh", "bh"], ["h2"], name="head2", pads=[1] * 4),
        "plain": node("Mul", ["m", "wm"], ["h2"], name="head2"),
    }[reading]
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c"], name="conv", pads=[1] * 4),
        node("Relu", ["c"], ["r"], name="relu"),
        node("MaxPool", ["r"], ["m"], name="half", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["r", "wh", "bh"], ["h1"], name="head1", pads=[1] * 4),
        node("ReduceMean", ["wh"], ["wm"], name="wm", axes=[0, 1, 2, 3], keepdims=1),
        second,
        node("GlobalAveragePool", ["h1"], ["g1"], name="g1"),
        node("GlobalAveragePool", ["h2"], ["g2"], name="g2"),
        node("Add", ["g1", "g2"], ["p"], name="sum"),
        node("Flatten", ["p"], ["f"], name="flat"),
        gemm(),
    ]
    more = [normal("wh", 16, 16, 3, 3), normal("bh", 16)]
    return built(nodes, [*parts("wf", "bf"), *more])


def weights_that_are_an_output() -> onnx.ModelProto:
    outputs: dict[str, list[int | str]] = {"y": ["N", CLASSES], "wf": [CLASSES, 16]}
    return built([*body(), gemm()], parts("wf", "bf"), outputs=outputs)


def minus_infinity() -> onnx.ModelProto:
    nodes = [*body(), gemm(), node("Add", ["z", "mask"], ["y"], name="off")]
    nodes[-2].output[0] = "z"
    return built(nodes, [*parts("wf", "bf"), tensor("mask", [[0, 0, -np.inf, 0, 0]])])


def infinity_inside() -> onnx.ModelProto:
    """A mask of -inf between two layers, taken away before the second one."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c"], name="conv", pads=[1] * 4),
        node("Add", ["c", "mask"], ["m"], name="mask"),
        node("Relu", ["m"], ["r"], name="relu"),
        *body()[2:],
        gemm(),
    ]
    mask = np.zeros((1, 16, 1, 1))
    mask[0, 3] = -np.inf
    return built(nodes, [*parts("wf", "bf"), tensor("mask", mask)])


def not_a_number() -> onnx.ModelProto:
    nodes = [
        *body(),
        gemm(),
        node("Clip", ["f", "", "zero"], ["n"], name="clip"),
        node("Div", ["n", "n"], ["q"], name="mean"),
    ]
    outputs: dict[str, list[int | str]] = {"y": ["N", CLASSES], "q": ["N", 16]}
    return built(nodes, [*parts("wf", "bf"), tensor("zero", 0.0)], outputs=outputs)


def batch_in_name_only() -> onnx.ModelProto:
    nodes = [
        *body()[:2],
        node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[8, 8], strides=[8, 8]),
        node("Reshape", ["p", "shape"], ["f"], name="flatten"),
        node("MatMul", ["f", "m"], ["u"], name="times"),
        node("Add", ["u", "bf"], ["y"], name="plus"),
    ]
    shape = numpy_helper.from_array(np.array([1, 64], np.int64), "shape")
    return built(nodes, [*parts("bf"), normal("m", 64, CLASSES), shape])


def batch_that_is_mixed() -> onnx.ModelProto:
    """No error for two images, but both together get one answer."""
    nodes = [
        *body(),
        node("ReduceMean", ["f"], ["g"], name="all", axes=[0], keepdims=1),
        node("Gemm", ["g", "wf", "bf"], ["y"], name="fc", transB=1),
    ]
    return built(nodes, parts("wf", "bf"))


def upsampling(operator: str, opset: int, mode: str, times: float = 2.0) -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c"], name="conv", pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["c"], ["r"], name="relu"),
        node(operator, ["r", "times"], ["u"], name="up", mode=mode),
        node("Conv", ["u", "w2"], ["y"], name="conv2", pads=[1] * 4),
    ]
    constants = [*parts("w2"), tensor("times", [1, 1, times, times])]
    side = int(8 * times)
    if opset < 9:
        nodes[2] = node(operator, ["r"], ["u"], name="up", mode=mode, scales=[1, 1, times, times])
        del constants[-1]
    outputs: dict[str, list[int | str]] = {"y": ["N", 16, side, side]}
    return built(nodes, constants, outputs=outputs, opset=opset)


def double_table() -> onnx.ModelProto:
    nodes = [
        *body()[:2],
        node("Cast", ["r"], ["rd"], name="up", to=TensorProto.DOUBLE),
        node("Mul", ["rd", "table"], ["t"], name="mul"),
        node("Cast", ["t"], ["u"], name="down", to=TensorProto.FLOAT),
        node("GlobalAveragePool", ["u"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flat"),
        gemm(),
    ]
    table = numpy_helper.from_array(np.full((1, 16, 1, 1), 0.9), "table")
    return built(nodes, [*parts("wf", "bf"), table])


def double_layer() -> onnx.ModelProto:
    nodes = [
        *body(),
        node("Cast", ["f"], ["fd"], name="up", to=TensorProto.DOUBLE),
        node("MatMul", ["fd", "md"], ["yd"], name="exact"),
        node("Cast", ["yd"], ["y"], name="down", to=TensorProto.FLOAT),
    ]
    weights = np.random.default_rng(2).normal(size=(16, CLASSES))
    return built(nodes, [*parts(), numpy_helper.from_array(weights, "md")])


def other_domain_name() -> onnx.ModelProto:
    result = networks.network(12)
    result.opset_import[0].domain = "ai.onnx"
    return result


def vector_and_stack() -> onnx.ModelProto:
    """MatMul by a vector and by a stack of matrices, next to a plain one."""
    nodes = [
        *body(),
        node("MatMul", ["f", "m"], ["u"], name="plain"),
        node("Reshape", ["u", "split"], ["s"], name="split"),
        node("MatMul", ["s", "stack"], ["t"], name="stack"),
        node("Reshape", ["t", "join"], ["j"], name="join"),
        node("MatMul", ["j", "vector"], ["v"], name="vector"),
        node("Unsqueeze", ["v", "one"], ["v1"], name="wide"),
        node("Gemm", ["v1", "last"], ["y"], name="fc"),
    ]
    numbers = {"split": [-1, 2, 1, 16], "join": [-1, 32], "one": [1]}
    more = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in numbers.items()]
    floats = [normal("m", 16, 32), normal("stack", 2, 16, 16), normal("vector", 32)]
    return built(nodes, [*parts(), *floats, normal("last", 1, CLASSES), *more])


def constant_first_factor() -> onnx.ModelProto:
    nodes = [
        *body(),
        node("Unsqueeze", ["f", "one"], ["g"], name="wide"),
        node("Transpose", ["g"], ["t"], name="turn", perm=[0, 2, 1]),
        node("MatMul", ["m", "t"], ["u"], name="turned"),
        node("Flatten", ["u"], ["v"], name="flat2"),
        node("Gemm", ["v", "wf", "bf"], ["y"], name="fc", transB=1),
    ]
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    return built(nodes, [*parts("wf", "bf"), normal("m", 16, 16), one])


def computed_weights() -> onnx.ModelProto:
    nodes = [
        node("Relu", ["w2"], ["wr"], name="w/relu"),
        node("ReduceMean", ["x"], ["m"], name="mean", axes=[0, 1, 2, 3], keepdims=1),
        node("Mul", ["wr", "m"], ["wc"], name="w/times"),
        node("Conv", ["x", "w1", "b1"], ["a"], name="conv1", pads=[1] * 4),
        node("Conv", ["a", "wc", "b2"], ["c"], name="dynamic", pads=[1] * 4),
        *body()[1:],
        gemm(),
    ]
    return built(nodes, parts("w2", "b2", "wf", "bf"))


def recurrent(operator: str) -> onnx.ModelProto:
    """Rows of the picture as a sequence for an LSTM or GRU, with empty optional inputs."""
    gates = {"LSTM": 4, "GRU": 3}[operator]
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c"], name="conv", pads=[1] * 4),
        node("ReduceMean", ["c"], ["rows"], name="rows", axes=[3], keepdims=0),
        node("Transpose", ["rows"], ["steps"], name="steps", perm=[2, 0, 1]),
        node(operator, ["steps", "wi", "wr", "", "", ""], ["", "h"], name="memory", hidden_size=16),
        node("Squeeze", ["h", "zero"], ["f"], name="squeeze"),
        gemm(),
    ]
    more = [normal("wi", 1, gates * 16, 16), normal("wr", 1, gates * 16, 16)]
    zero = numpy_helper.from_array(np.array([0], np.int64), "zero")
    return built(nodes, [*parts("wf", "bf"), *more, zero])


def transposed_input() -> onnx.ModelProto:
    nodes = [
        *body(),
        node("Transpose", ["f"], ["t"], name="turn", perm=[1, 0]),
        node("Gemm", ["t", "wf", "bf"], ["y"], name="fc", transA=1, transB=1, alpha=0.5),
    ]
    return built(nodes, parts("wf", "bf"))


def transposed_convolution() -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c"], name="conv", pads=[1] * 4, strides=[2, 2]),
        node("ConvTranspose", ["c", "wt", "bt"], ["u"], name="up", strides=[2, 2]),
        node("Relu", ["u"], ["v"], name="relu"),
        node("Conv", ["v", "wl"], ["y"], name="last", pads=[1] * 4),
    ]
    more = [normal("wt", 16, 8, 2, 2), normal("bt", 8), normal("wl", 3, 8, 3, 3)]
    return built(nodes, [*parts(), *more], outputs={"y": ["N", 3, 16, 16]})


def pixels_read_twice() -> onnx.ModelProto:
    """A DequantizeLinear of the file's own, read by a layer and by a MaxPool."""
    nodes = [
        node("DequantizeLinear", ["x", "s"], ["d"], name="scale"),
        node("Conv", ["d", "w1", "b1"], ["c"], name="conv", pads=[1] * 4),
        node(
            "MaxPool",
            ["d"],
            ["m"],
            name="shortcut",
            kernel_shape=[3, 3],
            pads=[1] * 4,
            strides=[1, 1],
        ),
        node("Conv", ["m", "w1", "b1"], ["c2"], name="conv2", pads=[1] * 4),
        node("Add", ["c", "c2"], ["a"], name="add"),
        node("Relu", ["a"], ["r"], name="relu"),
        *body()[2:],
        gemm(),
    ]
    result = built(nodes, [*parts("wf", "bf"), tensor("s", 1 / 255)], checked=False)
    result.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.checker.check_model(result)
    return result


def fused() -> onnx.ModelProto:
    """As onnxruntime's optimizer writes it: activations, and a sum, inside of convolutions."""
    own = {"domain": "com.microsoft", "pads": [1] * 4}
    nodes = [
        node("FusedConv", ["x", "w1", "b1"], ["a"], name="conv1", activation="Relu", **own),
        node(
            "FusedConv",
            ["a", "w2", "b2", "a"],
            ["b"],
            name="conv2",
            activation="Clip",
            activation_params=[0.0, 6.0],
            **own,
        ),
        node("FusedConv", ["b", "w2", "", "b"], ["r"], name="conv3", **own),
        *body()[2:],
        node("FusedGemm", ["f", "wf", "bf"], ["y"], name="fc", transB=1, domain="com.microsoft"),
    ]
    words = {"activation": "LeakyRelu", "activation_alpha": 0.2}
    nodes[-1].attribute.extend(helper.make_attribute(*row) for row in words.items())
    return built(nodes, parts("w2", "b2", "wf", "bf"), domains=("com.microsoft",))


def sparse_weights() -> onnx.ModelProto:
    result = built([*body(), gemm()], parts("wf", "bf"))
    dense = numpy_helper.to_array(result.graph.initializer[2])
    places = np.flatnonzero(np.abs(dense) > 0.3).astype(np.int64)
    values = numpy_helper.from_array(dense.reshape(-1)[places], "wf")
    del result.graph.initializer[2]
    result.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(places, "wf_places"), dense.shape)
    )
    return result


def local_function() -> onnx.ModelProto:
    """A function of the file's own, which says "ai.onnx" where others say nothing."""
    function = helper.make_function(
        "own",
        "Block",
        ["a", "b", "c"],
        ["d"],
        [
            node("Conv", ["a", "b", "c"], ["e"], name="inner", pads=[1] * 4),
            node("Relu", ["e"], ["d"]),
        ],
        [helper.make_opsetid("ai.onnx", 17)],
    )
    nodes = [
        node("Block", ["x", "w1", "b1"], ["r"], name="block", domain="own"),
        *body()[2:],
        gemm(),
    ]
    result = built(nodes, parts("wf", "bf"), domains=("own",))
    result.functions.append(function)
    return result


def other_domain_operator() -> onnx.ModelProto:
    """onnxruntime's own Pad, whose name ONNX has for another operator."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], name="conv1", pads=[1] * 4),
        node("Pad", ["a", "pads"], ["b"], name="pad", domain="com.microsoft", mode="constant"),
        *body("b"),
        gemm(),
    ]
    nodes[2].CopyFrom(node("Conv", ["b", "w2", "b2"], ["c"], name="conv2"))
    pads = numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "pads")
    return built(nodes, [*parts("w2", "b2", "wf", "bf"), pads], domains=("com.microsoft",))


def empty_shortcut() -> onnx.ModelProto:
    """A slice without a single element joins the features."""
    nodes = [
        *body(),
        node("Slice", ["f", "from", "to", "axis"], ["none"], name="nothing"),
        node("Concat", ["f", "none"], ["g"], name="join", axis=1),
        node("Gemm", ["g", "wf", "bf"], ["y"], name="fc", transB=1),
    ]
    numbers = {"from": [3], "to": [3], "axis": [1]}
    more = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in numbers.items()]
    return built(nodes, [*parts("wf", "bf"), *more])


def through_a_sequence() -> onnx.ModelProto:
    nodes = [
        *body(),
        node("SplitToSequence", ["f"], ["seq"], name="split", axis=1, keepdims=1),
        node("ConcatFromSequence", ["seq"], ["g"], name="join", axis=1),
        node("Gemm", ["g", "wf", "bf"], ["y"], name="fc", transB=1),
    ]
    return built(nodes, parts("wf", "bf"))


def loop() -> onnx.ModelProto:
    """A Loop whose body reads a tensor and a constant of the main graph."""
    value = helper.make_tensor_value_info
    inner = helper.make_graph(
        [
            node("Identity", ["go"], ["on"], name="keep"),
            node("MatMul", ["state", "square"], ["product"], name="inner"),
            node("Add", ["product", "f"], ["next"], name="more"),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("state", TensorProto.FLOAT, None),
        ],
        [value("on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, None)],
    )
    nodes = [
        *body(),
        node("Loop", ["two", "", "f"], ["g"], name="loop", body=inner),
        node("Gemm", ["g", "wf", "bf"], ["y"], name="fc", transB=1),
    ]
    two = numpy_helper.from_array(np.array(2, np.int64), "two")
    square = tensor("square", np.random.default_rng(5).normal(size=(16, 16)) / 8)
    return built(nodes, [*parts("wf", "bf"), two, square])


def unused_parts() -> onnx.ModelProto:
    """A constant that nobody needs, and nodes without names."""
    result = built([*body(), gemm()], [*parts("wf", "bf"), normal("spare", 4, 4)])
    result.graph.node[0].name = result.graph.node[1].name = ""
    return result


# name -> (network, layers with weights that must be 8-bit)
ODD: dict[str, tuple[Callable[[], onnx.ModelProto], set[str]]] = {
    "bias [1, n]": (lambda: with_bias(np.linspace(-1, 1, CLASSES)[None]), {"conv", "fc"}),
    "bias [1]": (lambda: with_bias([0.3]), {"conv", "fc"}),
    "bias []": (lambda: with_bias(0.3), {"conv", "fc"}),
    "bias [1, 1]": (lambda: with_bias([[0.3]]), {"conv", "fc"}),
    "beta": (lambda: with_bias(np.linspace(-1, 1, CLASSES), beta=2.0), {"conv", "fc"}),
    "no beta": (lambda: with_bias(np.linspace(-1, 1, CLASSES), beta=0.0), {"conv", "fc"}),
    "alpha": (lambda: with_bias(np.linspace(-1, 1, CLASSES), alpha=3.0), {"conv", "fc"}),
    "bias of a sum": (row_bias_of_a_sum, {"conv", "mm/MatMulAddFusion", "fc"}),
    "computed bias": (computed_bias, {"conv", "fc"}),
    "computed bias of a Conv": (computed_conv_bias, {"conv", "fc"}),
    "Gelu": (gelu, {"conv1", "conv2", "fc"}),
    "Gelu without biases": (lambda: gelu(False), {"conv1", "conv2", "fc"}),
    "shared bias": (shared_bias, {"conv1", "conv2", "fc"}),
    "names": (names_of_the_quantizer, {"x_QuantizeLinear", "conv2", "fc"}),
    "shared weights": (shared_head, {"conv", "head1", "head2", "fc"}),
    "weights both ways": (lambda: shared_head("transposed"), {"conv", "head1", "fc"}),
    "weights as numbers": (lambda: shared_head("plain"), {"conv", "head1", "fc"}),
    "weights as output": (weights_that_are_an_output, {"conv", "fc"}),
    "minus infinity": (minus_infinity, {"conv", "fc"}),
    "infinity inside": (infinity_inside, {"fc"}),
    "nan": (not_a_number, {"conv", "fc"}),
    "batch in name only": (batch_in_name_only, {"conv", "times/MatMulAddFusion"}),
    "batch that is mixed": (batch_that_is_mixed, {"conv", "fc"}),
    "Upsample 8": (lambda: upsampling("Upsample", 8, "linear"), {"conv", "conv2"}),
    "Upsample 9": (lambda: upsampling("Upsample", 9, "linear"), {"conv", "conv2"}),
    "Resize 10": (lambda: upsampling("Resize", 10, "linear"), {"conv", "conv2"}),
    "Resize 10, nearest": (lambda: upsampling("Resize", 10, "nearest", 1.5), {"conv", "conv2"}),
    "Resize 10, smaller": (lambda: upsampling("Resize", 10, "nearest", 0.5), {"conv", "conv2"}),
    "double table": (double_table, {"conv", "fc"}),
    "double layer": (double_layer, {"conv"}),
    "ai.onnx": (other_domain_name, set()),
    "vector and stack": (vector_and_stack, {"conv", "plain", "stack", "fc"}),
    "constant first": (constant_first_factor, {"conv", "fc"}),
    "computed weights": (computed_weights, {"conv1", "fc"}),
    "LSTM": (lambda: recurrent("LSTM"), {"conv", "fc"}),
    "GRU": (lambda: recurrent("GRU"), {"conv", "fc"}),
    "transposed input": (transposed_input, {"conv", "fc/GemmTransposeFusion/"}),
    "ConvTranspose": (transposed_convolution, {"conv", "last"}),
    "pixels read twice": (pixels_read_twice, {"conv", "conv2", "fc"}),
    "Pad of another domain": (other_domain_operator, {"conv1", "conv2", "fc"}),
    "fused": (fused, {"conv1", "conv2", "conv3", "fc"}),
    "sparse weights": (sparse_weights, {"conv"}),
    "local function": (local_function, {"fc"}),
    "nothing joined": (empty_shortcut, {"conv"}),
    "sequence": (through_a_sequence, {"conv", "fc"}),
    "Loop": (loop, {"conv", "fc"}),
    "unused parts": (unused_parts, set()),
}
