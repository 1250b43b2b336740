"""``fp32.onnx`` -> one static INT8 variant in QDQ form, by ``onnxruntime.quantization``, verified.
Independent of which variant is best and of accuracy."""

from __future__ import annotations

import numpy as np
import onnx

from exporters.errors import GraphError, QuantizeError
from exporters.graph import onnx_file
from exporters.graph.walk import Graph, outside
from exporters.options import Int8Options
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.quantize.bias_correction import with_corrected_biases
from exporters.quantize.float_layers import keep_float, verify_running
from exporters.quantize.onnxruntime_quantizer import run_quantizer
from exporters.quantize.verify_int8 import verify_int8
from runtime.spec import ModelSpec


def quantize(
    model: onnx.ModelProto, options: Int8Options, statistics: ActivationStatistics
) -> onnx.ModelProto:
    """Quantize any float model whose nodes have names and whose weights are initializers.

    ``statistics`` are of the very same model. The quantized part reaches from the first to the
    last operator with weights: normalization before and softmax or sigmoid after stay float, and
    so do the logits (the last Gemm puts out float, which costs nothing and leaves one rounding
    less).

    Pixels that the float model dequantizes (see :func:`onnx_from_torch.onnx_from_torch`) are taken
    as they are: the quantizer leaves a tensor alone that comes from a DequantizeLinear.

    Raises QuantizeError when the request contradicts itself, cannot be carried out, or was not
    carried out by the tools (see :func:`verify_int8.verify_int8`).
    """
    graph = Graph(model)
    _refuse_impossible(graph, options)
    quantized = run_quantizer(model, options, statistics, outside(graph))
    _free_logits(quantized)
    keep_float(quantized)
    if options.bias_correction:
        quantized = with_corrected_biases(model, quantized, statistics.reader)
    verify_int8(model, quantized, options)
    verify_running(quantized, options.id)
    return quantized


def shipped(quantized: onnx.ModelProto, spec: ModelSpec, variant: str) -> onnx.ModelProto:
    """Return a quantized model as it ships, checked and opened; raises QuantizeError."""
    result = onnx_file.finished(quantized, spec)
    try:
        onnx_file.check_model(result, spec)
        onnx_file.session(result)
    except GraphError as exc:
        raise QuantizeError(f"variant {variant!r} is not a valid model: {exc}") from exc
    return result


def _refuse_impossible(graph: Graph, options: Int8Options) -> None:
    if options.impossible is not None:
        raise QuantizeError(f"{options.impossible}.")
    layers = graph.layers()
    weighted = [node.name for node in layers]
    unknown = sorted(set(options.exclude_nodes) - {n.name for n in graph.nodes})
    if unknown:
        raise QuantizeError(
            f"variant {options.id!r}: exclude_nodes has {unknown}, which the model has not; its "
            f"operators with weights are {weighted}."
        )
    if set(weighted) <= set(options.exclude_nodes):
        raise QuantizeError(
            f"variant {options.id!r}: nothing is left to quantize; expected a Conv, Gemm or MatMul "
            f"that is not excluded, and the model has {weighted}."
        )
    quantized = (node for node in layers if node.name not in options.exclude_nodes)
    used = {name for node in quantized for name in node.input[1:]}
    broken = [name for name in graph.constants if name in used and not _finite(graph, name)]
    if broken:
        raise QuantizeError(f"weights {broken} are not finite; was the network trained to the end?")


def _finite(graph: Graph, constant: str) -> bool:
    values = graph.array(constant)
    return values is None or values.dtype != np.float32 or bool(np.isfinite(values).all())


def _free_logits(model: onnx.ModelProto) -> None:
    """Remove the Q/DQ pair after the last Gemm or MatMul, in place.

    Its 32-bit sums then become float logits directly (onnxruntime fuses the node into QGemm or
    MatMulIntegerToFloat with a float output) instead of being rounded to 8 bits first.
    """
    graph = Graph(model)
    for dequantize in list(graph.nodes):
        quantize = graph.producer(dequantize.input[0])
        if dequantize.op_type != "DequantizeLinear" or quantize is None:
            continue
        source = graph.producer(quantize.input[0])
        reached = graph.reached(dequantize.output[0])
        if (
            source is not None
            and source.op_type in ("Gemm", "MatMul")
            and not any(n.op_type in (*onnx_file.WEIGHTED, "QuantizeLinear") for n in reached)
        ):
            _bridge(model, graph, source, quantize, dequantize)


def _bridge(
    model: onnx.ModelProto,
    graph: Graph,
    source: onnx.NodeProto,
    quantize: onnx.NodeProto,
    dequantize: onnx.NodeProto,
) -> None:
    """Remove the pair, so that the readers of its end read its source. The tensor keeps the name
    that it had before quantization: an output of the model is the end of a pair."""
    old, new = quantize.input[0], dequantize.output[0]
    if new not in graph.outputs:
        old, new = new, old
    graph.redirect(old, new)
    for position, name in enumerate(source.output):
        if name == old:
            source.output[position] = new
    model.graph.node.remove(dequantize)
    model.graph.node.remove(quantize)
