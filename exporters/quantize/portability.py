"""Does an INT8 file give the same quantized tensors on every target? Judged from the file alone:
on a CPU with VNNI or dot product nothing can be seen by running it.

Two things make the same file differ from one CPU to the next:

1. Saturation. The x86 kernels for uint8 activations and int8 weights before VNNI (``vpmaddubsw``)
   add two neighbouring products in a signed 16-bit number, which stops at 32767. A pair of
   weights is safe when 255 * (|a| + |b|) <= 32767, whatever the pixels are. onnxruntime turns
   int8 activations into uint8 ones on x86, so they are judged alike. uint8 weights use 16-bit
   products with 32-bit sums (``vpmaddwd``): no pair can saturate.
2. Float operators in the middle whose last bit depends on the order of the sums or on a library
   function: quantized again, one level may flip.

Measured with onnxruntime 1.32: files that pass give the same tensors on x86 with VNNI, AVX2 and SSE
(emulated), WebAssembly and aarch64; a full-range U8S8 file of a digit network differed by 0.24 in
its probabilities between VNNI and AVX2. Users met it in microsoft/onnxruntime#14642 and #12072."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.graph.onnx_file import WEIGHTED
from exporters.graph.walk import Graph, QuantizedWeight, quantized_weights

PAIR_LIMIT = 32767  # the largest signed 16-bit number
LARGEST_ACTIVATION = 255
_NO_INT8 = "it has no 8-bit weights; only INT8 is portable"
_DYNAMIC = "the ranges of its inputs are found in float at every call"
_ACCUMULATOR_LIMIT = 2**31 - 1
# Float results of these are the same everywhere: IEEE 754 rounds each single operation alike, and
# the rest only moves or compares numbers.
_EXACT = frozenset(
    (
        *("QuantizeLinear", "DequantizeLinear", "Cast", "Add", "Sub", "Mul", "Div", "Neg", "Abs"),
        *("Relu", "Clip", "Min", "Max", "MaxPool", "GlobalMaxPool", "Transpose", "Reshape"),
        *("Flatten", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Pad", "Gather"),
        *("Identity", "Constant", "Shape", "Expand", "Where", "Range", "ConstantOfShape"),
    )
)
# Integer kernels replace these when inputs and output are quantized. (Sigmoid's makes a table with
# the CPU's own exponential function: not the same everywhere. ConvTranspose has none at all.)
_FUSED = frozenset(("Conv", "Gemm", "MatMul", "AveragePool", "GlobalAveragePool", "LeakyRelu"))


@dataclass(frozen=True)
class LayerPortability:
    """One operator with 8-bit weights."""

    node: str
    weight_type: str  # "int8" or "uint8"
    worst_pair: int  # the largest |a| + |b| of neighbours along the reduction; 0 for uint8
    worst_sum: int  # bound of |32-bit sum| over all inputs
    portable: bool
    reason: str


@dataclass(frozen=True)
class Portability:
    """The verdict on a file, with the layers that decided it."""

    portable: bool
    layers: tuple[LayerPortability, ...]
    float_nodes: tuple[str, ...]  # inexact float operators whose results are quantized again
    reason: str

    @property
    def can_saturate(self) -> bool:
        """True when the 16-bit sums of a layer may stop; of what is not portable, the worse."""
        return any(LARGEST_ACTIVATION * layer.worst_pair > PAIR_LIMIT for layer in self.layers)


def portability(model: onnx.ModelProto) -> Portability:
    """Judge a model file. FP32, FP16 and mixed files are never portable.

    "Neighbours along the reduction" are looked for in both orders that kernels use: input
    channel last (onnxruntime packs the weights of 8-bit convolutions as [kh, kw, in]) and input
    channel first (im2col of older versions, [in, kh, kw]), and at even and odd offsets, since
    kernels may start a new row at every kernel position or run on through them.
    """
    graph = Graph(model)
    layers = tuple(_judge(graph, weight) for weight in quantized_weights(graph))
    floats = _inexact(graph)
    if not layers:
        dynamic = any(node.op_type == "MatMulInteger" for node in graph.nodes)
        return Portability(False, (), floats, _DYNAMIC if dynamic else _NO_INT8)
    reasons = [f"{layer.node}: {layer.reason}" for layer in layers if not layer.portable]
    if floats:
        reasons.append(f"{_some(floats, ', ')} compute in float between quantized tensors")
    if mixed := _float_layers(graph):
        reasons.append(f"{_some(mixed, ', ')} multiply in float")
    if reasons:
        return Portability(False, layers, floats, _some(reasons, "; "))
    worst = max(layer.worst_pair for layer in layers)
    why = (
        f"no pair of weights can saturate: 255 * {worst} <= {PAIR_LIMIT}"
        if worst
        else "uint8 weights are multiplied without 16-bit sums"
    )
    return Portability(True, layers, floats, why)


def _some(texts: Sequence[str], between: str) -> str:
    """The first three, and how many more; the rest stands in the fields."""
    more = len(texts) - 3
    return between.join(texts[:3]) + (f"{between}and {more} more" if more > 0 else "")


def worst_pair(values: NDArray[np.int32], channel_axis: int) -> int:
    """The largest |a| + |b| of two neighbours along the reduction, of int8 weights.

    ``values`` are Conv weights [out, in, k...], ConvTranspose [in, out, k...], or a matrix; a
    single weight along the reduction counts with a neighbour of 0.
    """
    rows = np.moveaxis(np.abs(values), channel_axis, 0)  # (out, in, k...) or (out, ..., in)
    orders = (rows, np.moveaxis(rows, 1, -1)) if rows.ndim > 1 else (rows,)
    return max(_worst_in_rows(order.reshape(len(order), -1)) for order in orders)


def _worst_in_rows(rows: NDArray[np.int32]) -> int:
    padded = np.pad(rows, ((0, 0), (0, 1)))  # kernels fill an odd row up with zero
    return int((padded[:, :-1] + padded[:, 1:]).max(initial=0))


def _judge(graph: Graph, weight: QuantizedWeight) -> LayerPortability:
    values = weight.centered
    signed = weight.values.dtype == np.int8
    pair = worst_pair(values, weight.channel_axis) if signed else 0
    total = _worst_sum(weight)
    reasons = []
    if LARGEST_ACTIVATION * pair > PAIR_LIMIT:
        reasons.append(
            f"two neighbouring weights saturate: 255 * {pair} > {PAIR_LIMIT}; use reduce_range or "
            "uint8 weights"
        )
    if total > _ACCUMULATOR_LIMIT:
        reasons.append(f"sums up to {total} overflow 32 bits")
    if graph.activation_type(weight.node) is None:
        reasons.append("its activations are float")
    return LayerPortability(
        weight.node,
        weight.values.dtype.name,
        pair,
        total,
        not reasons,
        "; ".join(reasons) or "safe",
    )


def _worst_sum(weight: QuantizedWeight) -> int:
    """Bound of |sum of products + bias| over all inputs and output channels.

    Kernels add up the weights as they are stored and correct for the zero point afterwards, so
    the stored values count.
    """
    rows = np.moveaxis(np.abs(weight.values.astype(np.int64)), weight.channel_axis, 0)
    largest = LARGEST_ACTIVATION * rows.reshape(len(rows), -1).sum(axis=1)
    bias = 0 if weight.bias is None else int(np.abs(weight.bias.astype(np.int64)).max(initial=0))
    return int(largest.max(initial=0)) + bias


def _float_layers(graph: Graph) -> list[str]:
    """Operators with float weights: their sums depend on the order of the terms."""
    return [
        node.name
        for node in graph.nodes
        if node.op_type in WEIGHTED and node.input[1] in graph.constants
    ]


def _inexact(graph: Graph) -> tuple[str, ...]:
    """Float operators with an inexact result that reaches a QuantizeLinear."""
    found = []
    for node in graph.nodes:
        if node.op_type in _EXACT:
            continue
        if node.op_type in _FUSED and _is_quantized(graph, node):
            continue
        reaches = any(
            later.op_type == "QuantizeLinear"
            for name in node.output
            for later in graph.reached(name)
        )
        if reaches:
            found.append(node.name)
    return tuple(found)


def _is_quantized(graph: Graph, node: onnx.NodeProto) -> bool:
    """All data inputs come from DequantizeLinear, and the output goes to QuantizeLinear only.

    A Relu or Clip between a Conv and its QuantizeLinear is folded into it.
    """
    inputs = [graph.producer(name) for name in node.input[:2] if name not in graph.constants]
    users = graph.consumers(node.output[0])
    if len(users) == 1 and users[0].op_type in ("Relu", "Clip"):
        users = graph.consumers(users[0].output[0])
    return all(maker is not None and maker.op_type == "DequantizeLinear" for maker in inputs) and (
        bool(users) and all(user.op_type == "QuantizeLinear" for user in users)
    )
