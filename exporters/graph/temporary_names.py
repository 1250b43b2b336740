"""Temporary names for the tensors and nodes of a model while a tool works on it. Tools make new
names out of existing ones (``b`` -> ``b0``, ``r`` -> ``r_zero_point``) and do not check whether
those are taken; a temporary name cannot become another one. Afterwards everything has its own name
again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx

from exporters.graph import onnx_file

_TENSOR, _NODE = "t", "n"
_OURS = re.compile(r"([tn]\d+\.)(.*)", re.DOTALL)  # the dot ends it: t1. does not begin t10.


@dataclass(frozen=True)
class TemporaryNames:
    """The temporary name of every tensor and node of a model."""

    tensors: dict[str, str]  # own name -> temporary name
    nodes: dict[str, str]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> TemporaryNames:
        """Choose names for a model that has no temporary ones yet."""
        tensors: dict[str, str] = {}
        nodes: dict[str, str] = {}
        _rename(
            model.graph,
            lambda name: tensors.setdefault(name, f"{_TENSOR}{len(tensors)}."),
            lambda name: nodes.setdefault(name, f"{_NODE}{len(nodes)}."),
            change=False,
        )
        return cls(tensors, nodes)

    def apply(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Return a copy with the temporary names."""
        result = onnx_file.copied(model)
        _rename(result.graph, self.tensors.__getitem__, self.nodes.__getitem__)
        return result

    def restore(self, model: onnx.ModelProto) -> None:
        """Give everything its own name back, in place. A name that a tool made of a temporary one
        gets the same ending on the own name, and a number where that name is taken."""
        _rename(model.graph, _Restored(self.tensors), _Restored(self.nodes))


class _Restored:
    """A function from a temporary name, or one that was made of it, to the own name."""

    def __init__(self, names: dict[str, str]) -> None:
        self._own = {temporary: own for own, temporary in names.items()}
        self._taken = set(names)

    def __call__(self, name: str) -> str:
        if name in self._own:
            return self._own[name]
        match = _OURS.fullmatch(name)
        base = self._own[match[1]] + match[2] if match and match[1] in self._own else name
        self._own[name] = unique(base, self._taken)
        return self._own[name]


def unique(base: str, taken: set[str]) -> str:
    """Return ``base``, with a number where it is taken; adds it to ``taken``."""
    name, number = base, 1
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    taken.add(name)
    return name


def tensor_names(model: onnx.ModelProto) -> set[str]:
    """Return the names of all tensors, those of subgraphs too."""
    return set(TemporaryNames.of(model).tensors)


def _rename(
    graph: onnx.GraphProto,
    tensor: Callable[[str], str],
    node: Callable[[str], str],
    *,
    change: bool = True,
) -> None:
    """Visit every name of a graph and of the graphs inside it; an empty one is not a name."""
    for part in _named_tensors(graph):
        if part.name:
            new = tensor(part.name)
            if change:
                part.name = new
    for row in graph.quantization_annotation:
        new = tensor(row.tensor_name)
        if change:
            row.tensor_name = new
    for each in graph.node:
        for names in (each.input, each.output):
            for position, name in enumerate(names):
                new = tensor(name) if name else name
                if change:
                    names[position] = new
        if each.name:
            new = node(each.name)
            if change:
                each.name = new
        for entry in each.attribute:
            for inner in (entry.g, *entry.graphs):
                _rename(inner, tensor, node, change=change)


def _named_tensors(
    graph: onnx.GraphProto,
) -> Iterator[onnx.ValueInfoProto | onnx.TensorProto]:
    yield from (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for sparse in graph.sparse_initializer:
        yield sparse.values
