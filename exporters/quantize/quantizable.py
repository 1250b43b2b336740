"""A float model -> the same model in the form that onnxruntime's quantizer understands. It takes a
Gemm's bias for one number per output and its two factors for 1, and looks up ranges by the types
that ONNX's own inference finds, which ends at the first operator of another domain.

Answers stay the same; ``foreign/equality.py`` proves it on data."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exporters.graph import onnx_file
from exporters.graph.temporary_names import tensor_names, unique
from exporters.graph.walk import Graph, attribute, channel_axis, drop_attributes, read_by_subgraphs

# Copies of shared weights may take this share of all weights, in bytes of the quantized file over
# those of the float one: with a quarter of float's bytes each, the file stays below half of it.
_COPIES = 0.25
# Activations of onnxruntime's fused operators, with the names of their numbers
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("", "Relu", "Sigmoid", "Tanh", "Softplus"), ()),
    "LeakyRelu": ("alpha",),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
_FUSED = ("activation", "activation_params", "activation_alpha", "activation_beta")
_KINDS = {"tensor(float)": TensorProto.FLOAT, "tensor(double)": TensorProto.DOUBLE}


def plain_gemms(model: onnx.ModelProto) -> int:
    """Fold alpha and beta of every Gemm into constants and make its bias one number for each
    output, in place; returns the number of nodes that changed.

    A bias [1, n], [1] or [] becomes [n]. One that differs from row to row, or is computed, is not
    for this function: see :func:`split_biases`.
    """
    graph = Graph(model)
    taken = tensor_names(model)
    changed = 0
    for node in graph.nodes:
        if node.op_type != "Gemm" or node.domain:
            continue
        weights = _floats(graph, node.input[1])
        if weights is None or weights.ndim != 2:
            continue
        before = node.SerializeToString()
        alpha = float(attribute(node, "alpha", 1.0))
        if alpha != 1:
            node.input[1] = _constant(model, taken, node.input[1], weights * np.float32(alpha))
            drop_attributes(node, "alpha")
        _plain_bias(model, graph, taken, node, weights.shape[channel_axis(node, 2)])
        changed += node.SerializeToString() != before
    return changed


def _plain_bias(
    model: onnx.ModelProto, graph: Graph, taken: set[str], node: onnx.NodeProto, outputs: int
) -> None:
    beta = float(attribute(node, "beta", 1.0))
    if len(node.input) > 2 and (not node.input[2] or beta == 0):
        del node.input[2]
    if len(node.input) < 3:
        drop_attributes(node, "beta")
        return
    bias = _floats(graph, node.input[2])
    if bias is None or not _is_row(bias):
        return
    if bias.shape != (outputs,) or beta != 1:
        row = np.broadcast_to(bias.reshape(-1) * np.float32(beta), (outputs,))
        node.input[2] = _constant(model, taken, node.input[2], row)
        drop_attributes(node, "beta")


def _is_row(bias: NDArray[np.float32]) -> bool:
    """Return True when a Gemm's bias is the same for every row of its output."""
    return bias.ndim < 2 or bias.shape[0] == 1


def unfuse(model: onnx.ModelProto) -> int:
    """Split what onnxruntime's optimizer has fused (FusedConv, FusedGemm of the domain
    com.microsoft), in place, since no quantizer knows these; returns the number of nodes."""
    taken = tensor_names(model)
    count = 0
    for node in list(model.graph.node):
        if node.domain != "com.microsoft" or node.op_type not in ("FusedConv", "FusedGemm"):
            continue
        activation = attribute(node, "activation", b"").decode()
        if activation not in _ACTIVATIONS:
            continue
        made: list[onnx.NodeProto] = []
        output = node.output[0]
        if len(node.input) > 3 and node.input[3]:  # a sum before the activation
            node.output[0] = unique(f"{output}_product", taken)
            total = unique(f"{output}_sum", taken)
            made.append(helper.make_node("Add", [node.output[0], node.input[3]], [total]))
        if activation:
            source = (made[-1] if made else node).output
            if not made:
                source[0] = unique(f"{output}_linear", taken)
            made.append(_activation(model, taken, node, activation, source[0], output))
        elif made:
            made[-1].output[0] = output
        del node.input[3:]
        node.op_type, node.domain = node.op_type.removeprefix("Fused"), ""
        drop_attributes(node, *_FUSED)
        _insert_after(model, node, made)
        count += 1
    return count


def _activation(
    model: onnx.ModelProto,
    taken: set[str],
    node: onnx.NodeProto,
    activation: str,
    source: str,
    output: str,
) -> onnx.NodeProto:
    """Make the activation of a fused node an operator of its own."""
    numbers = list(attribute(node, "activation_params", []))
    numbers += [
        float(value)
        for name in ("activation_alpha", "activation_beta")
        if (value := attribute(node, name, None)) is not None
    ]
    if activation == "Clip":
        ends = [
            _constant(model, taken, f"{output}_{end}", np.array(number, np.float32))
            for end, number in zip(("lowest", "highest"), numbers, strict=True)
        ]
        return helper.make_node("Clip", [source, *ends], [output])
    attributes = dict(zip(_ACTIVATIONS[activation], numbers, strict=False))
    return helper.make_node(activation, [source], [output], **attributes)


def split_biases(model: onnx.ModelProto) -> int:
    """Make a separate sum of every bias that the quantizer cannot round, in place: computed ones,
    and those of a Gemm that differ from row to row. Returns the number of nodes that changed."""
    graph = Graph(model)
    taken = tensor_names(model)
    names = {node.name for node in graph.nodes}
    changed = 0
    for node in graph.nodes:
        if not _odd_bias(graph, node):
            continue
        bias, made = str(node.input.pop(2)), list[onnx.NodeProto]()
        operator, factor = "", np.zeros(0)
        if node.op_type == "Conv":
            weights = graph.constants[node.input[1]]
            operator = "Reshape"
            factor = np.array([1, -1, *[1] * (len(weights.dims) - 2)], np.int64)
        elif (beta := float(attribute(node, "beta", 1.0))) != 1:
            operator, factor = "Mul", np.array(beta, np.float32)
            drop_attributes(node, "beta")
        if operator:
            inputs = [bias, _constant(model, taken, f"{bias}_{operator}", factor)]
            bias = unique(f"{bias}_{operator}", taken)
            name = unique(f"{node.name}_{operator}", names)
            made.append(helper.make_node(operator, inputs, [bias], name))
        output, node.output[0] = node.output[0], unique(f"{node.output[0]}_product", taken)
        name = unique(f"{node.name}_sum", names)
        made.append(helper.make_node("Add", [node.output[0], bias], [output], name))
        _insert_after(model, node, made)
        changed += 1
    return changed


def _insert_after(
    model: onnx.ModelProto, node: onnx.NodeProto, others: list[onnx.NodeProto]
) -> None:
    position = list(model.graph.node).index(node) + 1
    for other in reversed(others):
        model.graph.node.insert(position, other)


def _odd_bias(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.op_type not in ("Conv", "Gemm") or node.domain:
        return False
    if len(node.input) < 3 or not node.input[2] or _floats(graph, node.input[1]) is None:
        return False
    bias = _floats(graph, node.input[2])
    return bias is None or (node.op_type == "Gemm" and not _is_row(bias))


def with_own_constants(model: onnx.ModelProto, float_nodes: frozenset[str]) -> onnx.ModelProto:
    """Return a copy in which no two layers share a bias, and none shares weights with a node that
    reads them differently: along another axis, as plain numbers, or in float.

    Layers that read the same weights alike get their own as well, as long as the copies stay few:
    onnxruntime's exact kernels (session.x64quantprecision) refuse shared ones.
    """
    result = onnx_file.copied(model)
    graph = Graph(result)
    taken = tensor_names(result)
    budget = _COPIES * sum(_size(tensor) for tensor in graph.constants.values())
    users: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
    others = set(graph.outputs) | read_by_subgraphs(result.graph)
    for node in graph.nodes:
        for position, name in enumerate(node.input):
            if name not in graph.constants:
                continue
            if position and node.op_type in onnx_file.WEIGHTED and node.name not in float_nodes:
                users[name].append((node, position))
            else:
                others.add(name)
    for name, readers in users.items():
        tensor, free = graph.constants[name], name not in others
        own: dict[str, str] = {}  # way of reading -> constant
        for node, position in readers:
            key = _reading(node, position, len(tensor.dims))
            if key in own:
                if _size(tensor) / 4 > budget:
                    node.input[position] = own[key]
                    continue
                budget -= _size(tensor) / 4
            if free:
                free = False
            else:
                copy = result.graph.initializer.add()
                copy.CopyFrom(tensor)
                copy.name = node.input[position] = unique(name, taken)
            own.setdefault(key, node.input[position])
    return result


def _reading(node: onnx.NodeProto, position: int, rank: int) -> str:
    """Name the way in which a layer reads a constant; layers that read it alike can share it."""
    if position != 1:
        return f"bias of {node.name}"
    return f"axis {channel_axis(node, rank)}{' of a matrix' if node.op_type == 'MatMul' else ''}"


def with_own_weights(quantized: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a quantized model in which no two layers share 8-bit weights or their zero
    points; for analysis, since it is larger than the file that ships."""
    result = onnx_file.copied(quantized)
    graph = Graph(result)
    taken = tensor_names(result)
    seen: set[str] = set()
    for node in graph.layers():
        dequantize = graph.producer(node.input[1])
        if dequantize is None or dequantize.input[0] not in graph.constants:
            continue
        if not seen & {dequantize.output[0], *dequantize.input[::2]}:
            seen.update((dequantize.output[0], *dequantize.input[::2]))
            continue
        own = onnx.NodeProto()
        own.CopyFrom(dequantize)
        for position in range(0, len(own.input), 2):  # values and zero point
            copy = result.graph.initializer.add()
            copy.CopyFrom(graph.constants[own.input[position]])
            copy.name = own.input[position] = unique(copy.name, taken)
        own.output[0] = node.input[1] = unique(own.output[0], taken)
        own.name = own.output[0]
        result.graph.node.insert(0, own)  # of constants alone
    return result


def with_types(model: onnx.ModelProto, types: onnx_file.TensorTypes) -> onnx.ModelProto:
    """Return a copy that states the type of every tensor of its main graph, as onnxruntime infers
    it; ONNX's own inference ends at an operator of another domain."""
    result = onnx_file.copied(model)
    del result.graph.value_info[:]
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    for name, (kind, shape) in types.items():
        if name not in ends and kind in _KINDS:
            value = helper.make_tensor_value_info(name, _KINDS[kind], shape or None)
            result.graph.value_info.append(value)
    return result


def _floats(graph: Graph, name: str) -> NDArray[np.float32] | None:
    """Return the values of a float32 constant."""
    tensor = graph.constants.get(name)
    if tensor is None or tensor.data_type != TensorProto.FLOAT:
        return None
    return np.asarray(numpy_helper.to_array(tensor), np.float32)


def _size(tensor: onnx.TensorProto) -> float:
    return 4.0 * float(np.prod(tensor.dims)) if tensor.data_type == TensorProto.FLOAT else 0.0


def _constant(model: onnx.ModelProto, taken: set[str], base: str, values: NDArray[Any]) -> str:
    """Add a constant to the model and return its name."""
    name = unique(base, taken)
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return name
