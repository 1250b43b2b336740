"""The inputs of a network's layers. An ONNX file or a PyTorch network becomes a list of points in
graph order: the input of each operator with weights, and finally the probabilities. Two such lists
can be compared point by point.

Inputs of weighted operators are compared, not the results of all nodes: between two of them a
BatchNorm may have been folded, a ReLU may have become a range, and the Conv of an 8-bit file keeps
the name of a tensor that onnxruntime has already clipped. The input of the next layer is the same
in every variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from exporters.graph import onnx_file
from exporters.graph.intermediate_outputs import with_typed_outputs
from exporters.graph.walk import Graph, attribute, channel_axis
from runtime.spec import INPUT_NAME, OUTPUT_NAME

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Norm:
    """The BatchNorm that was folded into a layer, each value [out]."""

    factor: Values  # gamma / sqrt(variance + epsilon), which the weights were multiplied by
    variance: Values
    epsilon: float


@dataclass(frozen=True)
class Parameters:
    """Weights as the layer uses them: dequantized, BatchNorm folded."""

    weight: Values  # [out, in, ...]; Gemm and Linear [out, in]
    bias: Values | None  # [out]
    step: Values | float = 0.0  # resolution of 8-bit or half weights, broadcastable to weight
    norm: Norm | None = None  # the BatchNorm that is in them


@dataclass(frozen=True)
class Point:
    """The input of one layer, or the probabilities."""

    layer: str  # the model's name of the node whose input this is; "probabilities" at the end
    operator: str  # its kind in ONNX: "Conv", "Gemm"; "" at the end
    values: Values  # [n, ...], channels first
    parameters: Parameters | None
    behind: tuple[str, ...]  # every node that the values depend on, in graph order


def trace_onnx(model: onnx.ModelProto, images: NDArray[np.uint8]) -> tuple[Point, ...]:
    """Run ``images`` [n, h, w, c] through a copy of the file that returns every layer's input.

    Raises GraphError when it cannot be run.
    """
    graph = Graph(model)
    layers = [node for node in graph.nodes if _is_layer(graph, node)]
    sources = {node.name: _source(graph, node.input[0]) for node in layers}
    inner = [name for name in dict.fromkeys(sources.values()) if graph.producer(name) is not None]
    session = onnx_file.session(with_typed_outputs(model, inner))
    names = [OUTPUT_NAME, *(name for name in inner if name != OUTPUT_NAME)]
    values = onnx_file.run_feed(session, names, {INPUT_NAME: images})
    tensors = dict(zip(names, values, strict=True))
    tensors.setdefault(INPUT_NAME, images)
    points = [
        Point(
            node.name,
            node.op_type,
            _floats(graph, node.input[0], tensors[sources[node.name]]),
            _parameters(graph, node),
            _behind(graph, node.input[0]),
        )
        for node in layers
    ]
    end = Point(OUTPUT_NAME, "", tensors[OUTPUT_NAME], None, _behind(graph, OUTPUT_NAME))
    return (*points, end)


def _is_layer(graph: Graph, node: onnx.NodeProto) -> bool:
    return node.op_type in onnx_file.WEIGHTED and _constant(graph, node.input[1]) is not None


def _source(graph: Graph, tensor: str) -> str:
    """Return the tensor to read: for a DequantizeLinear its 8-bit input, which can be returned
    without disturbing the integer kernels."""
    node = graph.dequantizer(tensor)
    return tensor if node is None else str(node.input[0])


def _floats(graph: Graph, tensor: str, values: NDArray[Any]) -> Values:
    if node := graph.dequantizer(tensor):
        scale = graph.array(node.input[1])
        zero = graph.array(node.input[2]) if len(node.input) > 2 else np.uint8(0)
        if scale is not None and zero is not None:
            result: Values = (values.astype(np.float32) - zero.astype(np.float32)) * scale
            return result
    return values.astype(np.float32)


def _constant(graph: Graph, tensor: str) -> tuple[Values, Values | float] | None:
    """Return a constant's values as floats with their resolution; None for a computed tensor."""
    node = graph.producer(tensor)
    if node is None:
        values = graph.array(tensor)
        return None if values is None else _rounded(values)
    if node.op_type == "Cast":
        return _constant(graph, node.input[0])
    if node.op_type == "Constant":
        for entry in node.attribute:
            if entry.name == "value":
                return _rounded(numpy_helper.to_array(entry.t))
        return None
    if node.op_type != "DequantizeLinear":
        return None
    stored, scale = graph.array(node.input[0]), graph.array(node.input[1])
    if stored is None or scale is None:
        return None
    zero = graph.array(node.input[2]) if len(node.input) > 2 else None
    zero = np.zeros_like(scale, np.float32) if zero is None else zero.astype(np.float32)
    if scale.ndim == 1 and stored.ndim:
        shape = [1] * stored.ndim
        shape[attribute(node, "axis", 1) % stored.ndim] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return (stored.astype(np.float32) - zero) * scale, scale


def _rounded(values: NDArray[Any]) -> tuple[Values, Values | float]:
    """Return float constants with their resolution: half precision has 11 bits, and fewer below
    2^-14."""
    floats = values.astype(np.float32)
    if values.dtype != np.float16:
        return floats, 0.0
    return floats, np.maximum(np.abs(floats) * 2.0**-11, 2.0**-25)


def _parameters(graph: Graph, node: onnx.NodeProto) -> Parameters | None:
    constant = _constant(graph, node.input[1])
    if constant is None:
        return None
    weight, step = constant
    axis = channel_axis(node, weight.ndim)
    weight = np.moveaxis(weight, axis, 0)
    if isinstance(step, np.ndarray) and step.ndim == weight.ndim:
        step = np.moveaxis(step, axis, 0)
    bias = None
    if len(node.input) > 2 and node.input[2]:
        given = _constant(graph, node.input[2])
        bias = None if given is None else given[0].reshape(-1)
    return Parameters(weight, bias, step)


def _behind(graph: Graph, tensor: str) -> tuple[str, ...]:
    """Return every node that ``tensor`` depends on, in graph order, without quantization, casts and
    constants."""
    needed, names = {tensor}, []
    for node in reversed(graph.nodes):
        if needed & set(node.output):
            needed.update(node.input)
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Cast", "Constant"):
                names.append(node.name)
    return tuple(reversed(names))
