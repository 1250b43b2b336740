"""The precision of a model's arithmetic, read from the model itself. A file's name proves nothing,
and the tolerances of INT8 would let a float model pass with any fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto

from exporters.graph.foreign_file import all_nodes, subgraphs

if TYPE_CHECKING:
    from torch import nn

_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
# ONNX's own operators and onnxruntime's: QuantizeLinear, DynamicQuantizeLinear, QLinearConv, QGemm,
# ConvInteger, MatMulIntegerToFloat, MatMulNBits. Not DequantizeLinear, whose q is small.
_QUANTIZED = re.compile(r"Quantize|Integer|^Q[A-Z]|^MatMul(NBits|Bnb4)$")


def precision_of(model: onnx.ModelProto) -> str:
    """Return the coarsest arithmetic in a file: "int8", "fp16" or "fp32"."""
    nodes = [*all_nodes(model.graph), *(n for f in model.functions for n in f.node)]
    if _is_quantized(model, nodes):
        return "int8"
    return "fp16" if any(kind in _HALF for kind in _types(model, nodes)) else "fp32"


def precision_of_network(network: nn.Module) -> str:
    """Return "fp16" for a PyTorch network with a parameter of half precision, else "fp32"."""
    import torch

    half = (torch.float16, torch.bfloat16)
    return "fp16" if any(p.dtype in half for p in network.parameters()) else "fp32"


def _is_quantized(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> bool:
    """Return True for quantized operators or weights. A DequantizeLinear of pixels is only how
    ``onnx_from_torch.py`` normalizes them; one of constants makes weights of 8-bit numbers."""
    constants = {tensor.name for graph in _graphs(model, nodes) for tensor in graph.initializer}
    for node in nodes:
        if _QUANTIZED.search(node.op_type):
            return True
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            return True
        if all(name in constants for name in node.input if name):  # a Constant, or made of some
            constants.update(node.output)
    return False


def _graphs(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[onnx.GraphProto]:
    return [model.graph, *(inner for node in nodes for inner in subgraphs(node))]


def _types(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> Iterator[int]:
    """Yield the types of weights, of constants in nodes, of casts, and of inputs and outputs."""
    for graph in _graphs(model, nodes):
        yield from (tensor.data_type for tensor in graph.initializer)
        yield from (v.type.tensor_type.elem_type for v in (*graph.input, *graph.output))
    for node in nodes:
        for entry in node.attribute:
            yield from (tensor.data_type for tensor in (entry.t, *entry.tensors))
            if node.op_type == "Cast" and entry.name == "to":
                yield entry.i
