"""Names inside a model are its maker's own affair, but tools make new ones out of them (``b`` ->
``b0``, ``r`` -> ``r_zero_point``) and do not look whether those exist. While a tool works, every
tensor and node has a name that no other one can become; afterwards it has its own again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx

_TENSOR, _NODE = "t", "n"
_OURS = re.compile(r"([tn]\d+\.)(.*)", re.DOTALL)  # the dot ends it: t1. does not begin t10.


@dataclass(frozen=True)
class Names:
    """What everything in a model was called, by what it is called meanwhile."""

    tensors: dict[str, str]  # own name -> name meanwhile
    nodes: dict[str, str]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Names:
        """Names for a model that has none of them yet."""
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
        """A copy with the names meanwhile."""
        result = onnx.ModelProto()
        result.CopyFrom(model)
        _rename(result.graph, self.tensors.__getitem__, self.nodes.__getitem__)
        return result

    def restore(self, model: onnx.ModelProto) -> None:
        """Give everything its own name back, in place. What a tool has made of one gets the same
        ending on the own name, and a number where somebody has that name already."""
        _rename(model.graph, _Restored(self.tensors), _Restored(self.nodes))


class _Restored:
    """Called with a name meanwhile, or one that was made of it."""

    def __init__(self, names: dict[str, str]) -> None:
        self._own = {meanwhile: own for own, meanwhile in names.items()}
        self._taken = set(names)

    def __call__(self, name: str) -> str:
        known = self._own.get(name)
        if known is not None:
            return known
        match = _OURS.fullmatch(name)
        base = self._own[match[1]] + match[2] if match and match[1] in self._own else name
        result, number = base, 1
        while result in self._taken:
            result, number = f"{base}_{number}", number + 1
        self._own[name] = result
        self._taken.add(result)
        return result


def unique(wanted: str, taken: set[str]) -> str:
    """``wanted``, with a number where it is taken; adds it to ``taken``."""
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    taken.add(name)
    return name


def tensor_names(model: onnx.ModelProto) -> set[str]:
    """The names of all tensors, those of subgraphs too."""
    return set(Names.of(model).tensors)


def _rename(
    graph: onnx.GraphProto,
    tensor: Callable[[str], str],
    node: Callable[[str], str],
    *,
    change: bool = True,
) -> None:
    """Every name of a graph and of the graphs inside it; an empty one is not a name."""
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
