"""Portability of an INT8 file: the same quantized tensors on every target. Judged from the file
alone, since running it on a CPU with VNNI or dot product shows nothing.

Two things make the same file differ from one CPU to the next:

1. Saturation. The x86 kernels for uint8 activations and int8 weights before VNNI (``vpmaddubsw``)
   add two neighboring products in a signed 16-bit number, which stops at 32767. A pair of
   weights is safe when 255 * (|a| + |b|) <= 32767, whatever the pixels are. onnxruntime turns
   int8 activations into uint8 ones on x86, so they are judged alike. uint8 weights use 16-bit
   products with 32-bit sums (``vpmaddwd``): no pair can saturate.
2. Float operators in the middle whose last bit depends on the order of the sums or on a library
   function: quantized again, one level may flip.

Measured with onnxruntime 1.32: portable files give the same tensors on x86 with VNNI, AVX2 and SSE
(emulated), WebAssembly and aarch64; a full-range U8S8 file of a digit network differed by 0.24 in
its probabilities between VNNI and AVX2. Users met it in microsoft/onnxruntime#14642 and #12072."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.graph.quantized import QuantizedWeight, activation_type, quantized_weights
from exporters.graph.walk import Graph

PAIR_LIMIT = 32767  # the largest signed 16-bit number
LARGEST_ACTIVATION = 255
_NO_INT8 = "it has no 8-bit weights; only INT8 is portable"
_DYNAMIC = "the ranges of its inputs are computed in float at every call"
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
    worst_pair: int  # the largest |a| + |b| of neighbors along the reduction; 0 for uint8
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
        """True when the 16-bit sums of a layer may saturate: the worse way not to be portable."""
        return any(LARGEST_ACTIVATION * layer.worst_pair > PAIR_LIMIT for layer in self.layers)


def portability(model: onnx.ModelProto) -> Portability:
    """Judge a model file. FP32, FP16 and mixed files are never portable.

    "Neighbors along the reduction" are taken in both orders that kernels use: input channel
    last (onnxruntime packs the weights of 8-bit convolutions as [kh, kw, in]) and input channel
    first (im2col of older versions, [in, kh, kw]), and at even and odd offsets, since kernels may
    start a new row at every kernel position or continue through them.
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
    # the sums of float layers depend on the order of the terms
    if mixed := [node.name for node in graph.constant_layers()]:
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
    """List the first three, and how many more; the fields hold the rest."""
    more = len(texts) - 3
    return between.join(texts[:3]) + (f"{between}and {more} more" if more > 0 else "")


def worst_pair(values: NDArray[np.int32], channel_axis: int) -> int:
    """Return the largest |a| + |b| of two neighbors along the reduction, of int8 weights.

    ``values`` are Conv weights [out, in, k...], ConvTranspose [in, out, k...], or a matrix; a
    single weight along the reduction counts with a neighbor of 0.
    """
    rows = np.moveaxis(np.abs(values), channel_axis, 0)  # (out, in, k...) or (out, ..., in)
    orders = (rows, np.moveaxis(rows, 1, -1)) if rows.ndim > 1 else (rows,)
    return max(_worst_in_rows(order.reshape(len(order), -1)) for order in orders)


def _worst_in_rows(rows: NDArray[np.int32]) -> int:
    padded = np.pad(rows, ((0, 0), (0, 1)))  # kernels pad an odd row with zero
    return int((padded[:, :-1] + padded[:, 1:]).max(initial=0))


def _judge(graph: Graph, weight: QuantizedWeight) -> LayerPortability:
    values = weight.centered
    signed = weight.values.dtype == np.int8
    pair = worst_pair(values, weight.channel_axis) if signed else 0
    total = _worst_sum(weight)
    reasons = []
    if LARGEST_ACTIVATION * pair > PAIR_LIMIT:
        reasons.append(
            f"two neighboring weights saturate: 255 * {pair} > {PAIR_LIMIT}; use reduce_range or "
            "uint8 weights"
        )
    if total > _ACCUMULATOR_LIMIT:
        reasons.append(f"sums up to {total} overflow 32 bits")
    if activation_type(graph, weight.node) is None:
        reasons.append("its activations are float")
    return LayerPortability(
        weight.node,
        pair,
        not reasons,
        "; ".join(reasons) or "safe",
    )


def _worst_sum(weight: QuantizedWeight) -> int:
    """Bound |sum of products + bias| over all inputs and output channels.

    Kernels add up the weights as they are stored and correct for the zero point afterwards, so
    the stored values count.
    """
    rows = np.moveaxis(np.abs(weight.values.astype(np.int64)), weight.channel_axis, 0)
    largest = LARGEST_ACTIVATION * rows.reshape(len(rows), -1).sum(axis=1)
    bias = 0 if weight.bias is None else int(np.abs(weight.bias.astype(np.int64)).max(initial=0))
    return int(largest.max(initial=0)) + bias


def _inexact(graph: Graph) -> tuple[str, ...]:
    """Name the float operators with an inexact result that reaches a QuantizeLinear."""
    names = []
    for node in graph.nodes:
        if node.op_type in _EXACT:
            continue
        if node.op_type in _FUSED and _runs_on_integers(graph, node):
            continue
        reaches = any(
            later.op_type == "QuantizeLinear"
            for name in node.output
            for later in graph.reached(name)
        )
        if reaches:
            names.append(node.name)
    return tuple(names)


def _runs_on_integers(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return True when all data inputs come from DequantizeLinear, and the output goes to
    QuantizeLinear only: then an integer kernel replaces the operator.

    A Relu or Clip between a Conv and its QuantizeLinear is folded into it.
    """
    inputs = [graph.dequantizer(name) for name in node.input[:2] if name not in graph.constants]
    users = graph.consumers(node.output[0])
    if len(users) == 1 and users[0].op_type in ("Relu", "Clip"):
        users = graph.consumers(users[0].output[0])
    return (
        None not in inputs
        and bool(users)
        and all(user.op_type == "QuantizeLinear" for user in users)
    )
