"""The parts of a foreign model that stay float in every INT8 variant, with the reasons."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.foreign.foreign_model import ForeignModel, counted, full_name
from exporters.graph import onnx_file
from exporters.graph.quantized import QUANTIZED_OPERATORS
from exporters.graph.walk import Graph, all_nodes, outside, read_by_subgraphs, subgraphs
from exporters.options import Int8Options
from exporters.quantize import unquantizable
from exporters.quantize.activation_ranges import ActivationStatistics

# Computed once for all images, or moves numbers only: not worth listing.
_SHAPES = frozenset(
    (
        *("Shape", "Gather", "Cast", "Constant", "ConstantOfShape", "Range", "Expand", "Where"),
        *("Identity", "Equal", "Not", "And", "Or", "Greater", "Less", "NonZero", "Size"),
    )
)


@dataclass(frozen=True)
class LeftInFloat:
    """A part of a model that no INT8 variant of it computes in 8 bits."""

    what: str  # a node, or an operator and how often
    reason: str


def kept_in_float(foreign: ForeignModel, statistics: ActivationStatistics) -> dict[str, str]:
    """Return name -> reason of the nodes that stay float in every variant although their operator
    has an 8-bit kernel. ``statistics`` of a few images are enough.

    The nodes that the quantizer cannot do are found by trying; raises QuantizeError where nothing
    is left.
    """
    graph = Graph(foreign.model)
    captured = read_by_subgraphs(foreign.model.graph)
    reasons = {
        node.name: "a subgraph (If, Loop) reads its result, which therefore stays float"
        for node in graph.nodes
        if captured & set(node.output)
    }
    for rule in (_gates(graph), _unfit_layers(graph), _without_range(graph, statistics)):
        reasons |= {name: reason for name, reason in rule.items() if name not in reasons}
    options = Int8Options(exclude_nodes=tuple(reasons))
    reasons |= unquantizable.failing_nodes(foreign.model, options, statistics, foreign.finish)
    options = Int8Options(exclude_nodes=tuple(reasons))
    return reasons | unquantizable.left_in_float(foreign.model, options, statistics)


def left_in_float(foreign: ForeignModel, kept: dict[str, str]) -> tuple[LeftInFloat, ...]:
    """List everything between the first and the last layer with weights that stays float."""
    graph = Graph(foreign.model)
    rows = _grouped(graph, kept)
    for node in graph.nodes:
        rows += _float_node(graph, node, kept)
    ends = outside(graph)
    others = Counter(
        full_name(node)
        for node in graph.nodes
        if node.name not in ends
        and node.op_type not in (*QUANTIZED_OPERATORS, *_SHAPES)
        and not subgraphs(node)
    )
    for operator, count in others.items():
        what = operator + (f" ({count} nodes)" if count > 1 else "")
        rows.append(LeftInFloat(what, "onnxruntime has no 8-bit kernel for it"))
    return tuple(rows)


def _float_node(graph: Graph, node: onnx.NodeProto, kept: dict[str, str]) -> list[LeftInFloat]:
    rows, label = [], _label(node, node.name)
    if node.name not in kept:
        if node.op_type in onnx_file.WEIGHTED and node.input[1] not in graph.constants:
            rows.append(LeftInFloat(label, "its weights are computed"))
        elif node.op_type == "ConvTranspose":
            reason = "8-bit weights, but onnxruntime has no kernel that multiplies by them"
            rows.append(LeftInFloat(label, reason))
    inside = [n.op_type for inner in subgraphs(node) for n in all_nodes(inner.node)]
    if inside:
        what = f"{counted(inside)} inside {label}"
        rows.append(LeftInFloat(what, "the quantizer does not enter subgraphs"))
    return rows


def _unfit_layers(graph: Graph) -> dict[str, str]:
    """Return name -> reason of operators that share a name with one that the quantizer knows, and
    of layers whose weights it cannot quantize."""
    reasons = {}
    for node in graph.nodes:
        if node.op_type not in QUANTIZED_OPERATORS:
            continue
        if node.domain:
            reasons[node.name] = f"onnxruntime's quantizer does not know {node.domain}"
        elif node.op_type in onnx_file.WEIGHTED and (reason := _unfit_weights(graph, node)):
            reasons[node.name] = reason
    return reasons


def _unfit_weights(graph: Graph, node: onnx.NodeProto) -> str:
    """Return why a layer's weights cannot be quantized; "" where they can."""
    weights = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
    if weights is None:
        if node.op_type != "MatMul":
            return "its weights are computed"
        constant_first = node.input[0] in graph.constants
        return "its first factor is the constant one" if constant_first else ""
    if weights.data_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(weights.data_type).lower()
        return f"its weights are {kind}, not float32"
    if len(weights.dims) < 2:
        return "its weights are a single vector"
    if 0 in weights.dims:
        return "its weights are empty"
    if not all(np.isfinite(_values(graph, name)).all() for name in node.input[1:]):
        return "its weights hold values that are not numbers (inf, nan)"
    return ""


def _values(graph: Graph, name: str) -> NDArray[Any]:
    """Return the values of a constant; none where it is computed or left out."""
    values = graph.array(name) if name else None
    return np.zeros(0) if values is None else values


def _without_range(graph: Graph, statistics: ActivationStatistics) -> dict[str, str]:
    """Return name -> reason of operators on tensors with values that are not numbers."""
    without = statistics.floats - set(statistics.ranges("minmax"))
    ends = outside(graph)
    return {
        node.name: "its input or output holds values that are not numbers (inf, nan)"
        for node in graph.nodes
        if node.op_type in QUANTIZED_OPERATORS
        and node.name not in ends
        and without & {*node.input, *node.output}
    }


def _gates(graph: Graph) -> dict[str, str]:
    """Return name -> reason of products with a float factor, as in x * HardSigmoid(x): rounding it
    for the sake of the product costs more than the product (MobileNetV3-small: 0.73 times the
    speed of FP32 with, 0.79 without, on a CPU with VNNI)."""
    reasons, ends = {}, outside(graph)
    for node in graph.nodes:
        if node.op_type != "Mul" or node.name in ends:
            continue
        makers = [graph.producer(name) for name in node.input]
        floats = [m.op_type for m in makers if m and m.op_type not in QUANTIZED_OPERATORS]
        if floats:
            reasons[node.name] = f"one of its factors comes from {floats[0]}, which is float"
    return reasons


def _grouped(graph: Graph, kept: dict[str, str]) -> list[LeftInFloat]:
    """Return one row for each layer with weights, and one for all other nodes of a kind and
    reason."""
    rows = []
    others: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], str] = {}
    for name, reason in kept.items():
        node = graph.node(name)
        operator = node.op_type if node is not None else ""
        if operator in onnx_file.WEIGHTED:
            rows.append(LeftInFloat(_label(node, name), reason))
        else:
            others[operator, reason] += 1
            last[operator, reason] = _label(node, name)
    for key, count in others.items():
        what = last[key] if count == 1 else f"{key[0]} ({count} nodes)"
        rows.append(LeftInFloat(what, key[1]))
    return rows


def _label(node: onnx.NodeProto | None, name: str) -> str:
    return name if node is None or node.op_type in name else f"{node.op_type} {name}"
