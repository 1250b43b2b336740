"""``fp32.onnx`` -> one dynamic INT8 variant: fully connected layers in 8 bits, the rest in float.

The range of a layer's input is computed at every call, so no calibration is needed, and its sums
come back in float. That pays where fully connected layers hold most of the weights, as in old
networks; convolutions have no fast dynamic kernel (0.24 times the speed of FP32 was measured on a
face network)."""

from __future__ import annotations

import tempfile
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto
from onnxruntime.quantization import quantize_dynamic

from exporters.errors import QuantizeError
from exporters.graph import onnx_file
from exporters.graph.silenced import quiet
from exporters.graph.walk import Graph
from exporters.options import DynamicOptions
from exporters.quantize.onnxruntime_quantizer import TYPES

OPERATORS = ("Gemm", "MatMul")


def head_share(model: onnx.ModelProto) -> float:
    """Return the share of a model's weights in fully connected layers, 0 to 1."""
    graph = Graph(model)
    heads, total = 0, 0
    for node in graph.constant_layers():
        size = prod(graph.constants[node.input[1]].dims)
        total += size
        heads += size if node.op_type in OPERATORS else 0
    return heads / total if total else 0.0


def dynamic_int8(model: onnx.ModelProto, options: DynamicOptions) -> onnx.ModelProto:
    """Quantize the fully connected layers of a float model.

    Raises QuantizeError when there is none, when the tools fail, or when the result is not what
    was asked for (see :func:`verify_dynamic`).
    """
    if not any(node.op_type in OPERATORS for node in model.graph.node):
        raise QuantizeError(
            f"variant {options.id!r}: the model has no fully connected layer (Gemm, MatMul), and "
            "dynamic quantization is for those; leave it out."
        )
    with tempfile.TemporaryDirectory(prefix="edgeproof-dynamic-") as folder, quiet():
        target = Path(folder) / "dynamic.onnx"
        try:
            quantize_dynamic(
                onnx_file.copied(model),
                target,
                op_types_to_quantize=list(OPERATORS),
                per_channel=options.per_channel,
                reduce_range=options.reduce_range,
                weight_type=TYPES[options.weights],
            )
        except Exception as exc:  # the quantizer raises whatever its helpers raise
            raise QuantizeError(
                f"variant {options.id!r}: onnxruntime.quantization failed: "
                f"{type(exc).__name__}: {exc}"
            ) from exc
        result = onnx_file.load(target)
    verify_dynamic(model, result, options)
    return result


def verify_dynamic(
    original: onnx.ModelProto, quantized: onnx.ModelProto, options: DynamicOptions
) -> None:
    """Raise QuantizeError unless every fully connected layer multiplies 8-bit weights of the
    requested type, and nothing else was changed."""
    before, after = Graph(original), Graph(quantized)
    expected = sum(node.op_type in OPERATORS for node in before.constant_layers())
    products = [node for node in after.nodes if node.op_type == "MatMulInteger"]
    problems = []
    if len(products) != expected:
        problems.append(f"{len(products)} of {expected} fully connected layers are quantized")
    kind = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}[options.weights]
    for node in products:
        tensor = after.constants.get(node.input[1])
        if tensor is None or tensor.data_type != kind:
            problems.append(f"{node.name} has no {options.weights} weights")
    for operator in ("Conv", "ConvTranspose"):
        counts = [sum(n.op_type == operator for n in graph.nodes) for graph in (before, after)]
        if counts[0] != counts[1]:
            problems.append(f"{counts[0] - counts[1]} {operator} nodes are gone")
    if problems:
        raise QuantizeError(
            f"variant {options.id!r}: the tools did not do what was asked: "
            + "; ".join(problems)
            + ". Leave the variant out (quantize.search.dynamic = false)."
        )
