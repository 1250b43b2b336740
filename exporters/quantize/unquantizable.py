"""Nodes that onnxruntime's quantizer cannot quantize, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import onnx

from exporters.errors import QuantizeError
from exporters.graph.quantized import QUANTIZED_OPERATORS, activation_type, quantized_weights
from exporters.graph.walk import Graph, outside
from exporters.options import Int8Options
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.quantize.onnxruntime_quantizer import run_quantizer


def left_in_float(
    model: onnx.ModelProto, options: Int8Options, statistics: ActivationStatistics
) -> dict[str, str]:
    """Return name -> reason of the operators with constant weights that the quantizer leaves in
    float although nobody asked for it; raises QuantizeError when it fails."""
    before = Graph(model)
    after = Graph(run_quantizer(model, options, statistics, outside(before)))
    weights = {weight.node for weight in quantized_weights(after)}
    reasons = {}
    for node in before.constant_layers():
        if node.name in options.exclude_nodes:
            continue
        if node.name not in weights:
            reasons[node.name] = "onnxruntime's quantizer leaves its weights in float"
        elif activation_type(after, node.name) is None:
            reasons[node.name] = "onnxruntime's quantizer leaves its input in float"
    return reasons


def failing_nodes(
    model: onnx.ModelProto,
    options: Int8Options,
    statistics: ActivationStatistics,
    finish: Callable[[onnx.ModelProto, str], onnx.ModelProto],
) -> dict[str, str]:
    """Return name -> reason of the nodes that have to stay float for this variant to be made.

    Most models have none and are quantized once; else halves of the nodes are tried until each
    failing one is isolated. Raises QuantizeError when not even the model without a single 8-bit
    node can be finished.
    """
    graph = Graph(model)
    ends = outside(graph)
    names = [
        node.name
        for node in graph.nodes
        if node.op_type in QUANTIZED_OPERATORS
        and node.name not in ends
        and node.name not in options.exclude_nodes
    ]

    def failure(kept: Collection[str]) -> str:
        """Return why it fails with these in float; "" where it does not."""
        excluded = replace(options, exclude_nodes=(*options.exclude_nodes, *kept))
        try:
            finish(run_quantizer(model, excluded, statistics, ends), options.id)
        except QuantizeError as exc:
            return str(exc)
        return ""

    if not failure(()):
        return {}
    if reason := failure(names):
        raise QuantizeError(reason)
    failing: dict[str, str] = {}
    fine: set[str] = set()
    groups = [names]
    while groups:
        group = groups.pop()
        reason = failure([name for name in names if name not in fine and name not in group])
        if not reason:
            fine.update(group)
        elif len(group) == 1:
            failing[group[0]] = f"onnxruntime's quantizer cannot do it: {_shortened(reason)}"
        else:
            middle = len(group) // 2
            groups += [group[middle:], group[:middle]]
    return failing


def _shortened(text: str) -> str:
    """Cut a text to one line of at most 200 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:197]}..."
