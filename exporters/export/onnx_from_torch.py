"""A PyTorch network -> ``fp32.onnx``: pixels in, probabilities out."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import nn

from exporters.errors import GraphError
from exporters.evaluate.generated_images import noise_images
from exporters.export.proof import (
    file_answers,
    network_answers,
    plain_reason,
    proved,
)
from exporters.graph import onnx_file
from exporters.graph.silenced import quiet
from exporters.options import OPSET, ExportOptions
from runtime.spec import INPUT_NAME, OUTPUT_NAME, ModelSpec

_INPUT_ROLES = {  # names of constant inputs, by operator and position
    "Conv": {1: "weight", 2: "bias"},
    "ConvTranspose": {1: "weight", 2: "bias"},
    "Gemm": {1: "weight", 2: "bias"},
    "MatMul": {1: "weight"},
    "Reshape": {1: "shape"},
}


def onnx_from_torch(network: nn.Module, spec: ModelSpec, options: ExportOptions) -> onnx.ModelProto:
    """Export a network that maps uint8 [N, h, w, c] to float32 probabilities [N, labels].

    The network must be in evaluation mode; it is copied, not changed. BatchNorm is folded into
    the convolution before it. It stays a node of its own where the convolution's output has other
    users, or where the convolution's weights are computed. Nodes are named ``<operator>_<number>``
    in graph order and their tensors after them, so that the same network always gives the same
    bytes.

    Raises GraphError when the network cannot be exported, breaks the file's contract, or when
    the file and the network differ by more than ``PROOF`` at one of ``options.batch_sizes``.
    """
    if network.training:
        raise GraphError(
            "the network is in training mode; expected evaluation mode, or batch norm and dropout "
            "would be exported as they train. Call network.eval() first."
        )
    # channels_last would leave its mark on the stored weights
    network = copy.deepcopy(network).to("cpu").to(memory_format=torch.contiguous_format)
    model = _export(network, spec)
    _pool_means(model.graph)
    _dequantize_pixels(model.graph)
    _rename(model.graph)
    result = onnx_file.finished(ir.to_proto(model), spec)
    onnx_file.check_model(result, spec)
    _prove(result, network, spec, options.batch_sizes)
    return result


def _export(network: nn.Module, spec: ModelSpec) -> ir.Model:
    """Trace and translate, first with the memory layout that gives the plainest graph.

    An image batch [N, h, w, c] that the network permutes to [N, c, h, w] is channels_last.
    PyTorch then leaves ``as_strided`` behind its pools, which becomes Range, Gather and five more
    nodes that neither fuse nor quantize. A batch stored as [N, c, h, w] avoids that, but a network
    that views its input as rows cannot be traced with it.
    """
    rows = torch.zeros((2, *spec.shape), dtype=torch.uint8)  # 2: a batch of 1 is specialized
    planes = rows.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    try:
        return _translate(network, planes)
    except Exception:  # the other layout either shows the same error or succeeds
        pass
    try:
        return _translate(network, rows)
    except Exception as exc:  # the exporter passes on whatever the network's own code raises
        raise GraphError(
            f"the network cannot be exported to ONNX: {plain_reason(exc)}. Expected a "
            f"network that takes uint8 (N, {', '.join(map(str, spec.shape))}) for any N and uses "
            f"operators of opset {OPSET}."
        ) from exc


def _translate(network: nn.Module, images: torch.Tensor) -> ir.Model:
    with quiet():
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim(onnx_file.BATCH_NAME)},),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise GraphError("torch.onnx.export returned nothing; expected an ONNX program.")
    return program.model


def _dequantize_pixels(graph: ir.Graph) -> None:
    """Turn ``(float(pixel) - mean) * scale`` into the one DequantizeLinear that it is.

    Pixels are 8-bit numbers already. Where the mean is a whole pixel value that all channels
    share, normalizing is dequantizing: the same bits in one node instead of three, and an INT8
    model takes the pixels as they are, without rounding.
    """
    for cast in list(graph):
        pixels = cast.inputs[0] if cast.op_type == "Cast" else None
        if pixels is None or pixels.dtype != ir.DataType.UINT8:
            continue
        chain, constants = [cast], {"Sub": 0.0, "Mul": 0.0}
        for operator in constants:
            user = _only_user(chain[-1])
            constant = _scalar(user, 1) if user is not None and user.op_type == operator else None
            if user is not None and constant is not None:
                chain.append(user)
                constants[operator] = constant
        mean, scale = constants["Sub"], constants["Mul"]
        if not (scale > 0 and 0 <= mean <= 255 and mean == round(mean)):
            continue
        steps = {"pixel_scale": np.float32(scale), "pixel_zero_point": np.uint8(mean)}
        values = [ir.Value(name=name, const_value=ir.tensor(v)) for name, v in steps.items()]
        for value in values:
            graph.register_initializer(value)
        node = ir.node("DequantizeLinear", [pixels, *values])
        new, old = node.outputs[0], chain[-1].outputs[0]
        new.shape, new.type = old.shape, old.type
        ir.convenience.replace_nodes_and_values(graph, cast, chain[::-1], [node], [old], [new])


def _only_user(node: ir.Node) -> ir.Node | None:
    users = [user for user, _ in node.outputs[0].uses()]
    return users[0] if len(users) == 1 and not node.outputs[0].is_graph_output() else None


def _scalar(node: ir.Node, position: int) -> float | None:
    """Return a constant input of one element as a number, or None."""
    value = node.inputs[position]
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return float(tensor.numpy().reshape(-1)[0]) if tensor is not None and tensor.size == 1 else None


def _pool_means(graph: ir.Graph) -> None:
    """Turn each mean over height and width back into a global average pool.

    The exporter decomposes ``AdaptiveAvgPool2d(1)`` into ReduceMean, which onnxruntime has no
    8-bit kernel for; GlobalAveragePool has one (and is no slower in float).
    """
    for node in list(graph):
        if node.op_type != "ReduceMean" or not _is_spatial_mean(node):
            continue
        keepdims = node.attributes.get_int("keepdims", 1)
        pooled = ir.node("GlobalAveragePool", [node.inputs[0]])
        chain = [pooled]
        if not keepdims:  # (N, C, 1, 1) -> (N, C)
            chain.append(ir.node("Flatten", [pooled.outputs[0]], attributes={"axis": 1}))
        last = chain[-1].outputs[0]
        last.shape, last.type = node.outputs[0].shape, node.outputs[0].type
        ir.convenience.replace_nodes_and_values(
            graph, node, [node], chain, [node.outputs[0]], [last]
        )


def _is_spatial_mean(node: ir.Node) -> bool:
    source = node.inputs[0]
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    values = None if axes is None else ir.convenience.get_const_tensor(axes)
    if source is None or source.shape is None or len(source.shape) != 4 or values is None:
        return False
    return sorted(int(axis) % 4 for axis in values.numpy()) == [2, 3]


def _rename(graph: ir.Graph) -> None:
    """Give names that are independent of the exporter's inner numbering: ``Conv_0``, ``conv_0``,
    ``Conv_0.weight``."""
    kept = {*graph.inputs, *graph.outputs}
    seen: Counter[str] = Counter()
    unnamed = list(graph.initializers.values())
    # unique names first: a new name may be the old one of a later tensor
    for number, value in enumerate(unnamed):
        value.name = f"constant_{number}"  # stays on what only a subgraph uses
    for node in graph:
        node.name = f"{node.op_type}_{seen[node.op_type]}"
        seen[node.op_type] += 1
        for position, value in enumerate(node.inputs):
            if value is not None and value in unnamed:
                role = _INPUT_ROLES.get(node.op_type, {}).get(position, str(position))
                value.name = f"{node.name}.{role}"
                unnamed.remove(value)
        for position, value in enumerate(node.outputs):
            if value not in kept:
                value.name = node.name.lower() + (f"_{position}" if position else "")


def _prove(
    model: onnx.ModelProto, network: nn.Module, spec: ModelSpec, batch_sizes: tuple[int, ...]
) -> None:
    """Run file and network on the same images at every batch size."""
    session = onnx_file.session(model)
    for count in batch_sizes:
        images = noise_images(spec.shape, count)
        expected = network_answers(network, images)
        proved("the ONNX file and the network", file_answers(session, images), expected)
