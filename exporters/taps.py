"""Making the inside of a model file visible: its quantized tensors, and copies of the file that
return further tensors beside the probabilities. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from .errors import GraphError
from .qdq import Graph


@dataclass(frozen=True)
class QuantizedTensor:
    """An activation that is stored in 8 bits, as a QuantizeLinear makes it."""

    name: str
    layer: str  # the operator whose result it is; "images" where it is the input's own
    last: bool  # nothing quantized comes behind it: what the float tail is computed from


def quantized_tensors(model: onnx.ModelProto) -> tuple[QuantizedTensor, ...]:
    """Every quantized activation in graph order; none in a float file.

    Weights are constants, so a QuantizeLinear always stands behind an activation.
    """
    graph = Graph(model)
    found = []
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear" and node.input[0] not in graph.constants:
            behind = graph.reached(node.output[0])
            last = all(later.op_type != "QuantizeLinear" for later in behind)
            found.append(QuantizedTensor(node.output[0], _layer(graph, node), last))
    return tuple(found)


def _layer(graph: Graph, quantize: onnx.NodeProto) -> str:
    """The operator whose result ``quantize`` stores; a Relu or Clip counts with the operator that
    it is fused into."""
    node = graph.producer(quantize.input[0])
    while node is not None and node.op_type in ("Relu", "Clip"):
        before = graph.producer(node.input[0])
        if before is None:
            break
        node = before
    return str(quantize.input[0] if node is None else node.name)


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy that returns the named tensors as well, behind the outputs that it has.

    An 8-bit tensor behind a QuantizeLinear may be returned without disturbing the integer kernels:
    they are the ones that make it. Returning a float tensor between a convolution and its
    activation keeps onnxruntime from fusing the two.

    Raises GraphError for a name that no node makes.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {value.name: value for value in inferred.graph.value_info}
    graph = Graph(model)
    for name in names:
        if name in graph.outputs:
            continue
        if graph.producer(name) is None:
            raise GraphError(f"no node makes a tensor {name!r}; expected the output of a node.")
        if name in known:
            result.graph.output.add().CopyFrom(known[name])
        else:  # onnxruntime infers what ONNX does not
            kind = TensorProto.UNDEFINED
            result.graph.output.add().CopyFrom(onnx.helper.make_tensor_value_info(name, kind, None))
    return result
