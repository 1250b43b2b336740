"""The multiply-adds of one image, counted from the shapes in the ONNX file that ships, so that what
the exporter folded away is not counted. They do not give the time: two networks with the same
count can differ severalfold in latency."""

from __future__ import annotations

from math import prod

import onnx

from exporters.graph.onnx_file import WEIGHTED, copied
from exporters.graph.walk import all_nodes, attribute, subgraphs

Shapes = dict[str, tuple[int | None, ...]]  # tensor -> sizes, None where unknown


def multiply_adds(model: onnx.ModelProto) -> int | None:
    """Count those of convolutions and matrix products for one image; None when a shape that is
    needed cannot be inferred, or such an operator is inside a branch or loop.

    As usual for such counts, biases, pooling, activations and normalization are left out, and
    padding is counted like pixels.
    """
    inner = (graph.node for node in model.graph.node for graph in subgraphs(node))
    if any(node.op_type in WEIGHTED for nodes in inner for node in all_nodes(nodes)):
        return None
    shapes = _shapes(model)
    counts = [_count(node, shapes) for node in model.graph.node if node.op_type in WEIGHTED]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _shapes(model: onnx.ModelProto) -> Shapes:
    """Infer the shape of every tensor for a batch of one."""
    single = copied(model)
    for value in (*single.graph.input, *single.graph.output):
        first = value.type.tensor_type.shape.dim[:1]
        for dim in first:
            dim.dim_value = 1
    del single.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    shapes: Shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            shapes[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
            )
    return shapes


def _count(node: onnx.NodeProto, shapes: Shapes) -> int | None:
    first, second, out = (
        shapes.get(name) for name in (node.input[0], node.input[1], node.output[0])
    )
    if node.op_type == "Conv" and out and second:
        # every output value takes one product for each weight of its channel
        return _product((*out, *second[1:]))
    if node.op_type == "ConvTranspose" and first and second:
        return _product((*first, *second[1:]))  # every input value goes to so many outputs
    if node.op_type == "Gemm" and out and first:
        return _product((*out, first[0 if attribute(node, "transA", 0) else 1]))
    if node.op_type == "MatMul" and out is not None and first:
        return _product((*out, first[-1]))
    return None


def _product(sizes: tuple[int | None, ...]) -> int | None:
    known = [size for size in sizes if size is not None]
    return prod(known) if len(known) == len(sizes) else None
