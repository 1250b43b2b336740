"""A network whose forward pass rounds as its INT8 file will: weights and activations lie on 8-bit
grids, gradients pass the rounding straight through. Knows nothing of training, nor of ONNX files.

What is rounded, and how, follows ``exporters/quantize`` and onnxruntime's QDQ quantizer:

* weights, symmetric, one scale for each output channel: largest magnitude / ``weight_range``.
  A batch norm that is folded on export multiplies a channel by a constant, which changes neither
  its integers nor what they stand for, so the weight is rounded as it stands before folding;
* activations, asymmetric uint8, one range for each tensor: what enters and what leaves each
  operator that has 8-bit kernels, between the first and the last one with weights. A ReLU or clip
  is part of the operator before it; pools and reshapes keep the grid of their input. Logits stay
  float, and pixels with one mean for all channels are as they are in the file: 8-bit already.

Biases, which are 32-bit in the file, stay float here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.quantization_aware.graph import (
    first_input,
    is_spatial_mean,
    operator,
    traced,
)

_LEVELS = 255  # of uint8, less one

# PyTorch operators, by what onnxruntime's quantizer does with the ONNX operator that they become
_CHANNEL_AXIS = {  # with weights: the axis of the output channels
    **{"conv1d": 0, "conv2d": 0, "conv3d": 0, "linear": 0},
    **{"conv_transpose1d": 1, "conv_transpose2d": 1, "conv_transpose3d": 1},
    **{"matmul": -1, "mm": -1},
}
_OWN_RANGE = frozenset({"add", "mul", "sigmoid", "leaky_relu", "cat", "matmul", "mm"})
_CLIPS = frozenset({"relu", "relu6", "hardtanh", "clamp"})
_ROUNDS_AGAIN = frozenset({"avg_pool1d", "avg_pool2d", "avg_pool3d"})  # on the grid of their input
_SAME_VALUES = frozenset(
    {
        *("max_pool1d", "max_pool2d", "max_pool3d", "pad", "constant_pad_nd"),
        *("flatten", "reshape", "view", "squeeze", "unsqueeze", "permute", "transpose", "t"),
        *("slice", "select", "split", "split_with_sizes", "chunk", "getitem"),
        *("contiguous", "clone"),
    }
)


class ActivationRounding(nn.Module):
    """Rounds a tensor to uint8 between the smallest and the largest value that it has observed,
    zero included. While it observes, and before it has, values pass unchanged."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.observing = False

    def forward(self, x: Tensor) -> Tensor:
        """``x``, rounded; what lies outside the range is clipped and gets no gradient."""
        if self.observing:
            low, high = x.detach().aminmax()
            torch.minimum(self.low, low, out=self.low)
            torch.maximum(self.high, high, out=self.high)
            return x
        scale = (self.high - self.low) / _LEVELS
        scale = torch.where(scale > 0, scale, 1.0)  # a tensor that was zero throughout stays so
        zero_point = torch.round(-self.low / scale).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, _LEVELS)


class WeightRounding(nn.Module):
    """Rounds weights to integers -limit..limit times a scale for each channel of ``axis``."""

    def __init__(self, axis: int, limit: int) -> None:
        super().__init__()
        self.axis, self.limit, self.observing = axis, limit, False

    def forward(self, weight: Tensor) -> Tensor:
        """``weight``, rounded; unchanged while activations are observed, as calibration runs
        the float network."""
        if self.observing:
            return weight
        axis = self.axis % weight.ndim
        others = [d for d in range(weight.ndim) if d != axis]
        scale = weight.detach().abs().amax(others) / self.limit  # (channels,)
        scale = torch.where(scale > 0, scale, 1.0)
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            weight, scale, zero_point, axis, -self.limit, self.limit
        )


def fake_quantized(network: PixelNetwork, weight_range: int) -> PixelNetwork:
    """A second form of ``network`` that rounds; both share parameters and statistics.

    ``weight_range`` is the largest quantized weight: 64 with onnxruntime's ``reduce_range``, 127
    without. Batch norm keeps its statistics and dropout is switched off, as in the file.
    Activations are rounded once :func:`observing` has shown it images. Raises TrainError when the
    network cannot be traced; what can be exported to ONNX can.
    """
    body = traced(network)
    # normalised pixels are 8-bit numbers already, where one mean and one scale made them
    exact = network.mean.numel() == network.scale.numel() == 1
    _insert(body, _Plan(body, exact_pixels=exact), weight_range)
    body.graph.lint()
    body.recompile()
    rounding = PixelNetwork(body, network.options, network.spec)
    return rounding.to(network.mean.device).eval()


@contextmanager
def observing(rounding: PixelNetwork) -> Iterator[None]:
    """Within it, every image that ``rounding`` sees widens its ranges, which start anew, and
    nothing is rounded: onnxruntime's min-max calibration."""
    parts = [m for m in rounding.modules() if isinstance(m, (ActivationRounding, WeightRounding))]
    for part in parts:
        part.observing = True
        if isinstance(part, ActivationRounding):
            part.low.zero_()
            part.high.zero_()
    try:
        yield
    finally:
        for part in parts:
            part.observing = False


# --- the graph ------------------------------------------------------------------------------


def _insert(body: GraphModule, plan: _Plan, weight_range: int) -> None:
    roundings: dict[Node, str] = {}
    for node in list(body.graph.nodes):
        if (source := plan.grid_of(node)) is not None:
            if source not in roundings:
                roundings[source] = f"rounding_{len(roundings)}"
                body.add_submodule(roundings[source], ActivationRounding())
            _insert_behind(body, node, roundings[source])
        if plan.has_weights(node):
            weight = cast(Node, node.args[1])
            name = f"rounding_of_weight_{node.name}"
            body.add_submodule(name, WeightRounding(_CHANNEL_AXIS[operator(node)], weight_range))
            with body.graph.inserting_before(node):
                node.update_arg(1, body.graph.call_module(name, (weight,)))


def _insert_behind(body: GraphModule, node: Node, module: str) -> None:
    users = list(node.users)
    with body.graph.inserting_after(node):
        rounded = body.graph.call_module(module, (node,))
    for user in users:
        user.replace_input_with(node, rounded)


class _Plan:
    """Which tensors of a graph are rounded, decided before anything is changed."""

    def __init__(self, body: GraphModule, *, exact_pixels: bool) -> None:
        nodes = list(body.graph.nodes)
        self._exact_pixels = exact_pixels
        self._weighted = {n for n in nodes if operator(n) in _CHANNEL_AXIS and _is_parameter(n, 1)}
        behind, before = set[Node](), set[Node]()  # what lies behind, and before, weights
        for node in nodes:
            if any(n in behind or n in self._weighted for n in node.all_input_nodes):
                behind.add(node)
        for node in reversed(nodes):
            if any(n in before or n in self._weighted for n in node.users):
                before.add(node)
        self._inside = (behind & before) | self._weighted
        self._before = before
        self._grids = {node: self._grid(node) for node in nodes if node.op != "output"}

    def has_weights(self, node: Node) -> bool:
        """Whether its second argument is a parameter with output channels."""
        return node in self._weighted

    def grid_of(self, node: Node) -> Node | None:
        """The tensor whose range ``node`` is rounded with, usually itself; None: not rounded."""
        grid = self._grids.get(node)
        if grid is None or grid is node or operator(node) in _ROUNDS_AGAIN:
            return grid
        return None  # it has values of the grid already

    def _grid(self, node: Node) -> Node | None:
        if node.op == "get_attr" or self._belongs_to_next(node):
            return None
        if node.op == "placeholder" and self._exact_pixels:
            return None
        if node in self._inside and operator(node) in (_SAME_VALUES | _ROUNDS_AGAIN):
            return self._grid(first_input(node)) or (node if self._is_demanded(node) else None)
        return node if self._is_made_in_8_bits(node) or self._is_demanded(node) else None

    def _belongs_to_next(self, node: Node) -> bool:
        """A convolution before its batch norm, and anything before the ReLU that limits it."""
        if len(node.users) != 1:
            return False
        (user,) = node.users
        if operator(user) == "batch_norm":
            return node in self._weighted
        return user in self._inside and operator(user) in _CLIPS

    def _is_demanded(self, node: Node) -> bool:
        return any(
            user in self._weighted or (user in self._inside and _has_own_range(user))
            for user in node.users
        )

    def _is_made_in_8_bits(self, node: Node) -> bool:
        name = operator(node)
        if node in self._weighted:  # the last matrix product gives float logits
            return node in self._before or name.startswith("conv")
        if name == "batch_norm":  # folded
            return first_input(node) in self._weighted and self._is_made_in_8_bits(
                first_input(node)
            )
        if name in _CLIPS and node in self._inside:
            return self._is_made_in_8_bits(first_input(node))
        return node in self._inside and _has_own_range(node)


def _is_parameter(node: Node, position: int) -> bool:
    argument = node.args[position] if len(node.args) > position else None
    return isinstance(argument, Node) and argument.op == "get_attr"


def _has_own_range(node: Node) -> bool:
    """Whether onnxruntime gives in- and outputs a range each; pools to a single pixel are among
    them, as GlobalAveragePool."""
    name = operator(node)
    if name == "adaptive_avg_pool2d":
        size = node.args[1]
        return isinstance(size, (list, tuple)) and math.prod(int(str(n)) for n in size) == 1
    return name in _OWN_RANGE or is_spatial_mean(node)
