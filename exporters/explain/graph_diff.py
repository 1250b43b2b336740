"""Two ONNX graphs compared node by node: operators, attributes and small constants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.graph.walk import Graph

_LARGE = 64  # elements from which a constant is a weight; see ``weight_causes.py``


def graph_differences(a: onnx.ModelProto, b: onnx.ModelProto) -> Iterator[str]:
    """Yield the differences of two graphs of the same length; none for others, whose nodes cannot
    be matched."""
    nodes_a, nodes_b = list(a.graph.node), list(b.graph.node)
    if len(nodes_a) != len(nodes_b):
        return
    graph_a, graph_b = Graph(a), Graph(b)
    for node_a, node_b in zip(nodes_a, nodes_b, strict=True):
        name = node_a.name or f"{node_a.op_type} of {node_a.output[0]}"
        if node_a.op_type != node_b.op_type:
            yield f"{name} is {_article(node_a.op_type)} in A and {_article(node_b.op_type)} in B"
            continue
        yield from _attributes(node_a, node_b, name)
        for position, (x, y) in enumerate(zip(node_a.input, node_b.input, strict=False)):
            first, second = graph_a.array(x), graph_b.array(y)
            if first is None or second is None or max(first.size, second.size) >= _LARGE:
                continue
            if first.shape != second.shape or not np.array_equal(first, second):
                yield (
                    f"{name}: its constant {position} is {_short(first)} in A and "
                    f"{_short(second)} in B"
                )
        if len(node_a.input) != len(node_b.input):
            yield f"{name} has {len(node_a.input)} inputs in A and {len(node_b.input)} in B"


def _attributes(a: onnx.NodeProto, b: onnx.NodeProto, name: str) -> Iterator[str]:
    values_a, values_b = _values(a), _values(b)
    for key in sorted({*values_a, *values_b}):
        x, y = values_a.get(key, "the default"), values_b.get(key, "the default")
        if x != y:
            yield f"{name}: {key} is {x} in A and {y} in B"


def _values(node: onnx.NodeProto) -> dict[str, str]:
    return {
        entry.name: _text(onnx.helper.get_attribute_value(entry))
        for entry in node.attribute
        if entry.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.TENSOR)
    }


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"


def _short(values: NDArray[Any]) -> str:
    text = np.array2string(values.reshape(-1), precision=6, threshold=6, separator=", ")
    return text if values.ndim else text[1:-1]
