"""Reading a graph, quantized or not: who makes and uses what, which weights stand behind a
DequantizeLinear and on which axis, and of which type activations are. Only looks, never
changes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from exporters.graph import onnx_file

# Operators that onnxruntime's CPU kernels run on 8-bit numbers, so that a chain of them needs no
# way back to float. Softmax has such a kernel, too, but an 8-bit probability is too coarse.
QUANTIZED_OPERATORS = (
    *onnx_file.WEIGHTED,
    *("Relu", "Clip", "LeakyRelu", "Sigmoid", "Add", "Mul"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Concat", "Split", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"),
    *("Pad", "Slice", "Resize"),
)


@dataclass(frozen=True)
class QuantizedWeight:
    """The 8-bit weights of one operator, as they stand in the file."""

    node: str
    operator: str  # one of onnx_file.WEIGHTED
    values: NDArray[Any]  # int8 or uint8, in the operator's own layout
    scale: NDArray[np.float32]  # scalar, or one for each channel
    zero_point: NDArray[Any]  # like scale, of the type of values
    axis: int  # of the scales in values, when there are several
    channel_axis: int  # where the operator's output channels are in values
    bias: NDArray[np.int32] | None  # one for each output channel, if there is any

    @property
    def centered(self) -> NDArray[np.int32]:
        """Values less their zero point, in the shape of ``values``."""
        zero = self._along_axis(self.zero_point.astype(np.int32))
        return np.asarray(self.values.astype(np.int32) - zero, np.int32)

    @property
    def dequantized(self) -> NDArray[np.floating]:
        """The real numbers that the values stand for, in the shape of ``values``."""
        return np.asarray(self.centered * self._along_axis(self.scale))

    def _along_axis(self, channels: NDArray[Any]) -> NDArray[Any]:
        """One number for each channel, or one for all, so that it meets ``values``."""
        if channels.ndim != 1:
            return channels
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        return channels.reshape(shape)


class Graph:
    """Who makes and who uses each tensor of a model's main graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.constants: dict[str, onnx.TensorProto] = {t.name: t for t in model.graph.initializer}
        self.outputs: frozenset[str] = frozenset(value.name for value in model.graph.output)
        self._producer = {name: node for node in self.nodes for name in node.output if name}
        self._consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._consumers[name].append(node)

    @property
    def tensors(self) -> frozenset[str]:
        """The names of everything that a node makes."""
        return frozenset(self._producer)

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes ``tensor``; None for an input or a constant."""
        return self._producer.get(tensor)

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that use ``tensor``, each once."""
        return list(self._consumers.get(tensor, ()))

    def reached(self, tensor: str) -> list[onnx.NodeProto]:
        """All nodes that depend on ``tensor``, in graph order."""
        known, found = {tensor}, []
        for node in self.nodes:
            if known & set(node.input):
                known.update(node.output)
                found.append(node)
        return found

    def array(self, tensor: str) -> NDArray[Any] | None:
        """A constant's values, or None when ``tensor`` is computed."""
        constant = self.constants.get(tensor)
        return None if constant is None else numpy_helper.to_array(constant)

    def node(self, name: str) -> onnx.NodeProto | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def activation_type(self, node_name: str) -> str | None:
        """ "uint8" or "int8", the type behind a node's first input; None when it is float."""
        node = self.node(node_name)
        dequantize = None if node is None else self.producer(node.input[0])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            return None
        zero = self.array(dequantize.input[2]) if len(dequantize.input) > 2 else np.uint8(0)
        return None if zero is None else zero.dtype.name


def quantized_weights(graph: Graph) -> tuple[QuantizedWeight, ...]:
    """The weights of every operator whose second input is a dequantized constant."""
    found = []
    for node in graph.nodes:
        if node.op_type in onnx_file.WEIGHTED:
            dequantize = graph.producer(node.input[1])
            if dequantize is not None and dequantize.op_type == "DequantizeLinear":
                weight = _weight(graph, node, dequantize)
                if weight is not None:
                    found.append(weight)
    return tuple(found)


def _weight(
    graph: Graph, node: onnx.NodeProto, dequantize: onnx.NodeProto
) -> QuantizedWeight | None:
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


def channel_axis(node: onnx.NodeProto, rank: int) -> int:
    """The axis of the output channels in an operator's weights.

    Conv stores [out, in / groups, kh, kw], ConvTranspose [in, out / groups, kh, kw], MatMul
    [..., in, out] and Gemm [in, out] or, with transB, [out, in].
    """
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        return 0
    return 1 if node.op_type == "ConvTranspose" else rank - 1


def outside(graph: Graph) -> frozenset[str]:
    """Names of the nodes before the first and behind the last operator with weights, of a graph
    that may or may not be quantized: normalisation and the final softmax or sigmoid."""
    behind, before = set[str](), set[str]()  # tensors that lie behind / before a weighted node
    for node in graph.nodes:
        if node.op_type in onnx_file.WEIGHTED or behind & set(node.input):
            behind.update(node.output)
    for node in reversed(graph.nodes):
        if node.op_type in onnx_file.WEIGHTED or before & set(node.output):
            before.update(node.input)
    return frozenset(
        node.name
        for node in graph.nodes
        if node.op_type not in onnx_file.WEIGHTED
        and not (behind & set(node.output) and before & set(node.output))
    )


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute's value, or the operator's default."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default
