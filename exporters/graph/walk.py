"""Walking a graph: its nodes and those of the graphs inside it, the producer and the consumers of a
tensor, and the nodes outside the layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from exporters.graph import onnx_file


class Graph:
    """The producer and the consumers of each tensor of a model's main graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.constants: dict[str, onnx.TensorProto] = {t.name: t for t in model.graph.initializer}
        self.outputs: frozenset[str] = frozenset(value.name for value in model.graph.output)
        self._producer = {name: node for node in self.nodes for name in node.output if name}
        self._consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._consumers[name].append(node)

    @property
    def tensors(self) -> frozenset[str]:
        """The names of everything that a node makes."""
        return frozenset(self._producer)

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that makes ``tensor``; None for an input or a constant."""
        return self._producer.get(tensor)

    def dequantizer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the DequantizeLinear that makes ``tensor``, if one does."""
        node = self.producer(tensor)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """Return the nodes that use ``tensor``, each once."""
        return list(self._consumers.get(tensor, ()))

    def redirect(self, tensor: str, other: str) -> None:
        """Let every user of ``tensor`` read ``other``, in place; this view stays as it was."""
        for node in self.consumers(tensor):
            for position, name in enumerate(node.input):
                if name == tensor:
                    node.input[position] = other

    def reached(self, tensor: str) -> list[onnx.NodeProto]:
        """Return all nodes that depend on ``tensor``, in graph order."""
        tensors, nodes = {tensor}, []
        for node in self.nodes:
            if tensors & set(node.input):
                tensors.update(node.output)
                nodes.append(node)
        return nodes

    def array(self, tensor: str) -> NDArray[Any] | None:
        """Return the values of a constant; None when ``tensor`` is computed."""
        constant = self.constants.get(tensor)
        return None if constant is None else numpy_helper.to_array(constant)

    def node(self, name: str) -> onnx.NodeProto | None:
        """Return the node of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def layers(self) -> list[onnx.NodeProto]:
        """Return the operators with weights, those whose weights are computed included."""
        return [node for node in self.nodes if node.op_type in onnx_file.WEIGHTED]

    def constant_layers(self) -> list[onnx.NodeProto]:
        """Return the operators whose weights are constants of the file, as they are in float."""
        return [node for node in self.layers() if node.input[1] in self.constants]


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes and those of every graph inside them."""
    for node in nodes:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner.node)


def model_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes of a model's graph, of its functions and of every graph inside them."""
    inner = (node for function in model.functions for node in function.node)
    return list(all_nodes((*model.graph.node, *inner)))


def model_graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    """Return a model's graph and every graph inside it and its functions."""
    return [model.graph, *(inner for node in model_nodes(model) for inner in subgraphs(node))]


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs that a node such as If or Loop holds."""
    return [inner for entry in node.attribute for inner in (entry.g, *entry.graphs) if inner.node]


def read_by_subgraphs(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the names that the graphs inside a graph read or return: a subgraph reads tensors of
    the graph around it without listing them as inputs."""
    names: set[str] = set()
    for node in graph.node:
        for entry in node.attribute:
            for inner in (entry.g, *entry.graphs):
                names.update(name for part in inner.node for name in part.input if name)
                names.update(value.name for value in inner.output)
                names |= read_by_subgraphs(inner)
    return frozenset(names)


def outside(graph: Graph) -> frozenset[str]:
    """Return the names of the nodes before the first and after the last operator with weights, of
    a graph that may be quantized: normalization and the final softmax or sigmoid."""
    after, before = set[str](), set[str]()  # tensors after and before a weighted node
    for node in graph.nodes:
        if node.op_type in onnx_file.WEIGHTED or after & set(node.input):
            after.update(node.output)
    for node in reversed(graph.nodes):
        if node.op_type in onnx_file.WEIGHTED or before & set(node.output):
            before.update(node.input)
    return frozenset(
        node.name
        for node in graph.nodes
        if node.op_type not in onnx_file.WEIGHTED
        and not (after & set(node.output) and before & set(node.output))
    )


def channel_axis(node: onnx.NodeProto, rank: int) -> int:
    """Return the axis of the output channels in an operator's weights.

    Conv stores [out, in / groups, kh, kw], ConvTranspose [in, out / groups, kh, kw], MatMul
    [..., in, out] and Gemm [in, out] or, with transB, [out, in].
    """
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        return 0
    return 1 if node.op_type == "ConvTranspose" else rank - 1


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute's value, or the operator's default."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def drop_attributes(node: onnx.NodeProto, *names: str) -> None:
    """Leave attributes to their defaults, in place."""
    kept = [entry for entry in node.attribute if entry.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)
