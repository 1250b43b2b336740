"""A network as a graph of PyTorch operators, as ``torch.export`` sees it, which is also what the
ONNX file is made from. Knows nothing of what the graph is wanted for."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from pipeline.errors import TrainError
from pipeline.learning.networks.pixel_network import PixelNetwork

_NOTHING = frozenset({"dropout", "feature_dropout", "alpha_dropout"})  # in evaluation


def traced(network: PixelNetwork) -> GraphModule:
    """The body of ``network``, from normalised float32 [N, C, H, W] to logits [N, labels], as a
    graph on the very parameters of ``network``.

    Batch norm uses its statistics, dropout is left out, and SiLU is written as the two operators
    that it becomes in ONNX. Raises TrainError when the network cannot be traced.
    """
    spec, device = network.spec, network.mean.device
    # 2: a batch of 1 is specialised
    example = torch.zeros(2, spec.channels, spec.height, spec.width, device=device)
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            program = torch.export.export(
                network.body, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
            )
    except Exception as exc:  # the tracer passes on whatever the network's own code raises
        raise TrainError(
            f"{type(network.body).__name__} cannot be traced by torch.export: {exc}. Expected a "
            "network whose operators depend neither on values nor on the number of images. Without "
            "that it cannot be fine-tuned for quantization."
        ) from exc
    finally:
        network.train(was_training)
    body = program.module()
    # a module of its own: torch's refuses train() and eval(), and checks its input at each call
    for node in list(body.graph.nodes):
        if node.op == "call_module":
            body.graph.erase_node(node)
    body = GraphModule(body, body.graph)
    _simplify(body)
    body.graph.eliminate_dead_code()
    body.recompile()
    return body


def _simplify(body: GraphModule) -> None:
    for node in list(body.graph.nodes):
        name = operator(node)
        if name in _NOTHING:
            node.replace_all_uses_with(first_input(node))
            body.graph.erase_node(node)
        elif name == "silu":
            with body.graph.inserting_before(node):
                x = first_input(node)
                gate = body.graph.call_function(torch.ops.aten.sigmoid.default, (x,))
                product = body.graph.call_function(torch.ops.aten.mul.Tensor, (x, gate))
            node.replace_all_uses_with(product)
            body.graph.erase_node(node)


def operator(node: Node) -> str:
    """The operator without overload and in-place mark: ``conv2d``, ``relu``; "" for the rest."""
    target = node.target
    if node.op != "call_function":
        return ""
    packet = getattr(target, "overloadpacket", target)
    return str(getattr(packet, "__name__", "")).rstrip("_")


def first_input(node: Node) -> Node:
    """The first tensor that ``node`` takes."""
    return node.all_input_nodes[0]


def is_spatial_mean(node: Node) -> bool:
    """Whether ``node`` is the mean over height and width, written without a pool."""
    axes = node.args[1] if operator(node) == "mean" and len(node.args) > 1 else None
    return isinstance(axes, (list, tuple)) and sorted(int(str(a)) % 4 for a in axes) == [2, 3]
