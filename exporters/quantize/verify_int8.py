"""The proof that a static INT8 variant is what was asked for, read off the file."""

from __future__ import annotations

import numpy as np
import onnx

from exporters.errors import QuantizeError
from exporters.graph.quantized import QuantizedWeight, activation_type, quantized_weights
from exporters.graph.walk import Graph
from exporters.options import Int8Options

_LARGEST = {True: 64, False: 128}  # |quantized weight - zero point|, with and without reduce_range


def verify_int8(
    original: onnx.ModelProto, quantized: onnx.ModelProto, options: Int8Options
) -> None:
    """Raise QuantizeError naming every request that ``quantized`` does not fulfill.

    Checked: the presence of Q/DQ nodes; each operator with weights (quantized, or float when
    excluded); type, zero point, axis and range of its weights; the type of its activations; and
    that every scale is positive and finite. The method of calibration cannot be seen in a file.
    """
    graph, before = Graph(quantized), Graph(original)
    weights = {weight.node: weight for weight in quantized_weights(graph)}
    problems = [*_missing_pairs(graph), *_bad_scales(graph)]
    for node in before.constant_layers():
        weight = weights.get(node.name)
        if node.name in options.exclude_nodes:
            if weight is not None:
                problems.append(f"{node.name} was to stay float but is quantized")
        elif weight is None:
            problems.append(f"{node.name} is not quantized")
        else:
            problems += _weight_problems(weight, options)
            # pixels that the float model dequantizes stay as they are
            requested = activation_type(before, node.name) or options.activations
            problems += _activation_problems(graph, weight, requested)
    if problems:
        raise QuantizeError(
            f"variant {options.id!r}: the tools did not do what was asked: "
            + "; ".join(problems)
            + ". List a node in exclude_nodes to keep it in float, or change the options."
        )


def _missing_pairs(graph: Graph) -> list[str]:
    operators = {node.op_type for node in graph.nodes}
    kinds = ("QuantizeLinear", "DequantizeLinear")
    return [f"it has no {kind} node" for kind in kinds if kind not in operators]


def _bad_scales(graph: Graph) -> list[str]:
    problems = []
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = graph.array(node.input[1])
            if scale is None or not (np.isfinite(scale).all() and (scale > 0).all()):
                problems.append(f"the scale of {node.name} is not a positive constant")
    return problems


def _weight_problems(weight: QuantizedWeight, options: Int8Options) -> list[str]:
    values = weight.values
    if values.dtype.name != options.weights:
        return [f"{weight.node} has {values.dtype.name} weights, not {options.weights}"]
    problems = []
    largest = int(np.abs(weight.centered).max(initial=0))
    if options.weights == "int8" and weight.zero_point.any():
        problems.append(f"{weight.node} has weight zero points other than 0")
    if options.weights == "int8" and largest > _LARGEST[options.reduce_range]:
        problems.append(f"{weight.node} has weights up to {largest}, reduce_range allows 64")
    if options.weights == "uint8" and options.reduce_range and int(values.max(initial=0)) > 127:
        problems.append(f"{weight.node} has weights up to {values.max()}, reduce_range allows 127")
    if options.per_channel and not (weight.operator == "MatMul" and values.ndim != 2):
        if weight.scale.ndim != 1 or len(weight.scale) != values.shape[weight.channel_axis]:
            problems.append(f"{weight.node} is not quantized per channel")
        elif weight.axis != weight.channel_axis:
            problems.append(
                f"{weight.node} has its scales on axis {weight.axis}, not {weight.channel_axis}"
            )
    elif weight.scale.size != 1:
        problems.append(f"{weight.node} is quantized per channel, not per tensor")
    return problems


def _activation_problems(graph: Graph, weight: QuantizedWeight, requested: str) -> list[str]:
    actual = activation_type(graph, weight.node)
    if actual is None:
        return [f"the activations of {weight.node} are not quantized"]
    if actual != requested:
        return [f"the activations of {weight.node} are {actual}, not {requested}"]
    return []
