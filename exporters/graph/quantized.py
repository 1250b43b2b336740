"""Reading a quantized graph: whether it is one, the precision of a file, its 8-bit weights with
their scales, and the types of its activations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from exporters.graph import onnx_file
from exporters.graph.walk import Graph, attribute, channel_axis, model_graphs, model_nodes

# Operators that onnxruntime's CPU kernels run on 8-bit numbers, so that a chain of them needs no
# way back to float. Softmax has such a kernel, too, but an 8-bit probability is too coarse.
QUANTIZED_OPERATORS = (
    *onnx_file.WEIGHTED,
    *("Relu", "Clip", "LeakyRelu", "Sigmoid", "Add", "Mul"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Concat", "Split", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"),
    *("Pad", "Slice", "Resize"),
)
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
# ONNX's own operators and onnxruntime's: QuantizeLinear, DynamicQuantizeLinear, QLinearConv, QGemm,
# ConvInteger, MatMulIntegerToFloat, MatMulNBits. Not DequantizeLinear, whose q is small.
_QUANTIZING = re.compile(r"Quantize|Integer|^Q[A-Z]|^MatMul(NBits|Bnb4)$")


def precision_of(model: onnx.ModelProto) -> str:
    """Return the coarsest arithmetic in a file: "int8", "fp16" or "fp32"."""
    if quantizing_operators(model):
        return "int8"
    return "fp16" if any(kind in _HALF for kind in _types(model)) else "fp32"


def quantizing_operators(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the operators that show that a model is quantized, sorted; () for a float one.

    A DequantizeLinear alone shows nothing: a float model normalizes its pixels with it
    (``onnx_from_torch.py`` does). Of constants, it makes weights of 8-bit numbers.
    """
    constants = {tensor.name for graph in model_graphs(model) for tensor in graph.initializer}
    operators = set()
    for node in model_nodes(model):
        if _QUANTIZING.search(node.op_type) or (
            node.op_type == "DequantizeLinear" and not constants.isdisjoint(node.input[:1])
        ):
            operators.add(node.op_type)
        if all(name in constants for name in node.input if name):  # a Constant, or made of some
            constants.update(node.output)
    return tuple(sorted(operators))


def _types(model: onnx.ModelProto) -> Iterator[int]:
    """Yield the types of weights, of what nodes hold or cast to, and of inputs and outputs."""
    for graph in model_graphs(model):
        yield from (tensor.data_type for tensor in graph.initializer)
        yield from (v.type.tensor_type.elem_type for v in (*graph.input, *graph.output))
    for node in model_nodes(model):
        for entry in node.attribute:
            yield from (tensor.data_type for tensor in (entry.t, *entry.tensors))
            if node.op_type == "Cast" and entry.name == "to":
                yield entry.i


@dataclass(frozen=True)
class QuantizedWeight:
    """The 8-bit weights of one operator, as they are stored in the file."""

    node: str
    operator: str  # one of onnx_file.WEIGHTED
    values: NDArray[Any]  # int8 or uint8, in the operator's own layout
    scale: NDArray[np.float32]  # scalar, or one for each channel
    zero_point: NDArray[Any]  # like scale, of the type of values
    axis: int  # of the scales in values, when there are several
    channel_axis: int  # of the operator's output channels in values
    bias: NDArray[np.int32] | None  # one for each output channel, if there is any

    @property
    def centered(self) -> NDArray[np.int32]:
        """Values less their zero point, in the shape of ``values``."""
        zero = self._along_axis(self.zero_point.astype(np.int32))
        return np.asarray(self.values.astype(np.int32) - zero, np.int32)

    @property
    def dequantized(self) -> NDArray[np.floating]:
        """The real numbers of the values, in the shape of ``values``."""
        return np.asarray(self.centered * self._along_axis(self.scale))

    def _along_axis(self, channels: NDArray[Any]) -> NDArray[Any]:
        """One number for each channel, or one for all, in a shape that broadcasts to ``values``."""
        if channels.ndim != 1:
            return channels
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        return channels.reshape(shape)


def quantized_weights(graph: Graph) -> tuple[QuantizedWeight, ...]:
    """Return the weights of every operator whose second input is a dequantized constant."""
    weights = (_weight(graph, node) for node in graph.layers())
    return tuple(weight for weight in weights if weight is not None)


def _weight(graph: Graph, node: onnx.NodeProto) -> QuantizedWeight | None:
    dequantize = graph.dequantizer(node.input[1])
    if dequantize is None:
        return None
    values, scale = graph.array(dequantize.input[0]), graph.array(dequantize.input[1])
    if values is None or scale is None or values.dtype not in (np.int8, np.uint8):
        return None
    zero = graph.array(dequantize.input[2]) if len(dequantize.input) > 2 else None
    return QuantizedWeight(
        node=node.name,
        operator=node.op_type,
        values=values,
        scale=scale,
        zero_point=np.zeros_like(scale, dtype=values.dtype) if zero is None else zero,
        axis=int(attribute(dequantize, "axis", 1)) % max(values.ndim, 1),
        channel_axis=channel_axis(node, values.ndim),
        bias=_bias(graph, node),
    )


def _bias(graph: Graph, node: onnx.NodeProto) -> NDArray[np.int32] | None:
    if len(node.input) < 3 or not node.input[2]:
        return None
    dequantize = graph.producer(node.input[2])
    values = None if dequantize is None else graph.array(dequantize.input[0])
    return None if values is None else values.astype(np.int32)


def activation_type(graph: Graph, node_name: str) -> str | None:
    """Return "uint8" or "int8", the type of a node's first input before it was dequantized; None
    when that input is float."""
    node = graph.node(node_name)
    dequantize = None if node is None else graph.dequantizer(node.input[0])
    if dequantize is None:
        return None
    zero = graph.array(dequantize.input[2]) if len(dequantize.input) > 2 else np.uint8(0)
    return None if zero is None else zero.dtype.name
