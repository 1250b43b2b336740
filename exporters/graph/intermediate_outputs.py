"""The inside of a model file made visible: its quantized tensors, and copies of the file that
return further tensors next to the probabilities. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from exporters.errors import GraphError
from exporters.graph import onnx_file
from exporters.graph.walk import Graph


@dataclass(frozen=True)
class Tap:
    """An activation that a copy of the model returns."""

    name: str
    layer: str  # the operator whose result it is; "images" where it is the input's own
    last: bool  # no other tap comes after it: the rest is computed from it


def quantized_tensors(model: onnx.ModelProto) -> tuple[Tap, ...]:
    """Return every quantized activation in graph order; none in a float file.

    Weights are constants, so a QuantizeLinear always quantizes an activation.
    """
    graph = Graph(model)
    taps = []
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear" and node.input[0] not in graph.constants:
            later = graph.reached(node.output[0])
            last = all(other.op_type != "QuantizeLinear" for other in later)
            taps.append(Tap(node.output[0], _layer(graph, node.input[0]), last))
    return tuple(taps)


def layer_inputs(model: onnx.ModelProto) -> tuple[Tap, ...]:
    """Return the input of each operator with weights, in graph order. Returning these lets
    onnxruntime fuse a convolution with the activation after it, as in the file itself."""
    graph = Graph(model)
    names = dict.fromkeys(str(node.input[0]) for node in graph.layers())
    made = [name for name in names if graph.producer(name) is not None]
    return tuple(Tap(name, _layer(graph, name), name == made[-1]) for name in made)


def _layer(graph: Graph, tensor: str) -> str:
    """Name the operator whose result ``tensor`` is; a Relu or Clip counts with the operator that it
    is fused into."""
    node = graph.producer(tensor)
    while node is not None and node.op_type in ("Relu", "Clip"):
        before = graph.producer(node.input[0])
        if before is None:
            break
        node = before
    return tensor if node is None else str(node.name)


def with_typed_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy that returns the named tensors as well, after its own outputs, with the types
    and shapes that ONNX infers.

    An 8-bit tensor after a QuantizeLinear may be returned without disturbing the integer kernels:
    they are the ones that make it. Returning a float tensor between a convolution and its
    activation keeps onnxruntime from fusing the two.

    Raises GraphError for a name that no node makes.
    """
    result = onnx_file.copied(model)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    values = {value.name: value for value in inferred.graph.value_info}
    graph = Graph(model)
    for name in names:
        if name in graph.outputs:
            continue
        if graph.producer(name) is None:
            raise GraphError(f"no node makes a tensor {name!r}; expected the output of a node.")
        if name in values:
            result.graph.output.add().CopyFrom(values[name])
        else:  # onnxruntime infers what ONNX does not
            kind = TensorProto.UNDEFINED
            result.graph.output.add().CopyFrom(onnx.helper.make_tensor_value_info(name, kind, None))
    return result
