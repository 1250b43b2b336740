"""Layers that stay float inside a quantized file, and the proof that they do when it runs.

Between a DequantizeLinear and a QuantizeLinear, onnxruntime (1.20 and later, by its
WeightBiasQuantization) quantizes a Conv, ConvTranspose or Gemm with *float* weights: it rounds the
weights to 8 bits over their full range, one scale for all channels, and runs the layer on
integers. Such a layer may saturate on CPUs without VNNI, whatever the file says: a face network
whose first layer was excluded from quantization had 41.5 dB as written and 20.5 dB as run. A
MatMul followed by an Add becomes a Gemm first.

A LeakyRelu with a slope of 1, which returns its input bit for bit, breaks that pattern: no
version of onnxruntime removes it, moves a QuantizeLinear across it, or looks through it as it
does through Relu and Clip. It costs nothing, since it is fused into the layer as its
activation."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnxruntime as ort

from exporters.errors import QuantizeError
from exporters.graph import onnx_file
from exporters.graph.walk import Graph, attribute

_BARRIER = "LeakyRelu"
# onnxruntime moves a DequantizeLinear forward and a QuantizeLinear backward across these
_MOVES_ONLY = frozenset(
    ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Identity")
)
# ... and looks through these, or folds them, on the way from a layer to its QuantizeLinear;
# adding a constant is what turns a MatMul into a Gemm and a Conv's bias into its own
_LOOKED_THROUGH = _MOVES_ONLY | {"Relu", "Clip", "Add", "Mul", "BatchNormalization", "Dropout"}
_INTEGER = frozenset(
    (
        *("QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger"),
        *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearConvTranspose"),
    )
)


def keep_float(model: onnx.ModelProto) -> None:
    """Make every float layer of a quantized file stay float in any runtime, in place.

    A LeakyRelu with a slope of 1 is inserted after each layer with float weights between a
    DequantizeLinear and a QuantizeLinear. The layer's output keeps its name.
    """
    graph = Graph(model)
    for node in graph.constant_layers():
        if _comes_from_dequantize(graph, node.input[0]) and _goes_to_quantize(graph, node):
            _insert_barrier(model, graph, node)


def is_barrier(node: onnx.NodeProto) -> bool:
    """Return True for a node that :func:`keep_float` inserts: it returns its input unchanged."""
    return bool(node.op_type == _BARRIER and attribute(node, "alpha", 0.01) == 1.0)


def verify_running(model: onnx.ModelProto, variant: str) -> None:
    """Raise QuantizeError where onnxruntime would run more layers on integers than the file has.

    The optimized graph of the installed onnxruntime is read back; a layer with a float weight
    must not have become an integer operator in it.
    """
    graph = Graph(model)
    kept = graph.constant_layers()
    if not kept:
        return
    written = sum(_reads_integers(graph, node) for node in graph.nodes)
    running = integer_layers(model)
    if running > written:
        raise QuantizeError(
            f"variant {variant!r}: {written} layers are quantized in the file, and onnxruntime "
            f"{ort.__version__} runs {running} on integers; expected the float layers "
            f"{[node.name for node in kept]} to stay float. Quantize them as well, or report "
            "this model."
        )


def integer_layers(model: onnx.ModelProto) -> int:
    """Count the layers that the installed onnxruntime runs on integers, after its optimizations."""
    optimized = onnx_file.optimized_by_onnxruntime(model)
    return sum(node.op_type in _INTEGER for node in optimized.graph.node)


def _reads_integers(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return True where the file multiplies two quantized tensors, or has an integer operator."""
    if node.op_type not in onnx_file.WEIGHTED:
        return node.op_type in _INTEGER
    return all(graph.dequantizer(name) is not None for name in node.input[:2])


def _comes_from_dequantize(graph: Graph, tensor: str) -> bool:
    maker = graph.producer(tensor)
    while maker is not None and maker.op_type in _MOVES_ONLY:
        maker = graph.producer(maker.input[0])
    return maker is not None and maker.op_type == "DequantizeLinear"


def _goes_to_quantize(graph: Graph, node: onnx.NodeProto) -> bool:
    pending: Sequence[onnx.NodeProto] = [node]
    while pending:
        users = [user for one in pending for name in one.output for user in graph.consumers(name)]
        if any(user.op_type == "QuantizeLinear" for user in users):
            return True
        pending = [user for user in users if user.op_type in _LOOKED_THROUGH]
    return False


def _insert_barrier(model: onnx.ModelProto, graph: Graph, node: onnx.NodeProto) -> None:
    (output,) = node.output
    after = f"{output}_stays_float"
    graph.redirect(output, after)
    barrier = onnx.helper.make_node(
        _BARRIER, [output], [after], name=f"{node.name}_stays_float", alpha=1.0
    )
    position = next(i for i, other in enumerate(model.graph.node) if output in other.output)
    model.graph.node.insert(position + 1, barrier)
