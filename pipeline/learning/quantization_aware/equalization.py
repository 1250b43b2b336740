"""Channels of the same reach, before rounding is learned: a layer's output channels are divided by
factors, and the next layer's weights multiplied by them, which leaves the function as it was. One
range for a whole tensor then suits all its channels. Knows nothing of training.

The factors are those of Xiao et al., "SmoothQuant", 2022 (alpha = 0.5), moved into the layer before
as Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, do
with weights alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.quantization_aware.graph import (
    first_input,
    is_spatial_mean,
    operator,
    traced,
)

# What passes a positive factor of a channel on to the same channel of its output.
_ACTIVATIONS = frozenset({"relu", "leaky_relu"})
_POOLS = frozenset({"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"})


@dataclass(frozen=True)
class _Pair:
    """Two layers with nothing between that tells channels apart."""

    scaled: tuple[str, ...]  # parameters with a channel on axis 0, that are divided
    watched: Node  # the tensor between, whose range counts
    weight: str  # of the second layer, with the channels on axis 1, that is multiplied


def equalize(network: PixelNetwork, batches: Iterable[Tensor]) -> int:
    """Scale the channels of ``network`` in place; how many pairs of layers it was done for.

    ``batches`` are images uint8 [N, H, W, C], which show how far each channel reaches. The pairs
    that are found are a convolution or linear layer, its batch norm if it has one, ReLU or leaky
    ReLU or none, pools, and an ungrouped convolution or linear layer that alone takes the result.
    Raises TrainError when the network cannot be traced.
    """
    body = traced(network)
    pairs = [pair for node in body.graph.nodes if (pair := _pair_before(node)) is not None]
    watcher = _Watcher(body, {pair.watched for pair in pairs})
    normalised = PixelNetwork(watcher, network.options, network.spec).to(network.mean.device)
    with torch.no_grad():
        for batch in batches:
            normalised.logits(batch)
        for pair in pairs:
            _scale(body, pair, watcher.reach[pair.watched])
    return len(pairs)


def _scale(body: GraphModule, pair: _Pair, reach: Tensor) -> None:
    """``reach`` [channels] is the largest magnitude of each channel between the two layers."""
    weight = body.get_parameter(pair.weight)
    # (out, channels, the rest): behind a flattened image a channel has several columns
    columns = weight.view(len(weight), len(reach), -1).abs()
    # rows have a scale of their own each, so a column counts by its share of its row
    rows = columns.amax((1, 2)).clamp_min(torch.finfo(columns.dtype).tiny)
    share = (columns.amax(2) / rows[:, None]).amax(0)  # (channels,)
    factor = torch.sqrt(reach / share)
    usable = (reach > 0) & (share > 0)  # a dead channel has nothing to be scaled by
    # only ratios count: with a mean of 1 the layer as a whole keeps its size, and its learning rate
    factor = factor / factor[usable].log().mean().exp() if usable.any() else factor
    factor = torch.where(usable, factor, 1.0)
    for name in pair.scaled:
        parameter = body.get_parameter(name)
        parameter.div_(factor.view(-1, *[1] * (parameter.ndim - 1)))
    weight.view(len(weight), len(reach), -1).mul_(factor[:, None])


class _Watcher(torch.nn.Module):
    """Runs a graph and remembers how far each channel of some tensors reached."""

    def __init__(self, body: GraphModule, watched: set[Node]) -> None:
        super().__init__()
        self.body = body
        self.reach: dict[Node, Tensor] = {}
        self._watched = watched

    def forward(self, x: Tensor) -> Any:
        """What the graph returns."""
        return _Watching(self.body, self._watched, self.reach).run(x)


class _Watching(Interpreter):
    def __init__(self, body: GraphModule, watched: set[Node], reach: dict[Node, Tensor]) -> None:
        super().__init__(body)
        self._watched, self._reach = watched, reach

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n in self._watched:
            found = result.abs().transpose(0, 1).flatten(1).amax(1)  # (channels,)
            self._reach[n] = torch.maximum(self._reach.get(n, found), found)
        return result


def _pair_before(second: Node) -> _Pair | None:
    """The pair that ends with ``second``, if it is one."""
    if not _is_layer(second) or _groups(second) != 1:
        return None
    path = [first_input(second)]  # upwards
    while operator(path[-1]) in _POOLS or is_spatial_mean(path[-1]) or _flattens(path[-1]):
        path.append(first_input(path[-1]))
    watched = path[-1]
    if operator(path[-1]) in _ACTIVATIONS:
        path.append(first_input(path[-1]))
    scaled = path[-1]
    if operator(path[-1]) == "batch_norm":
        path.append(first_input(path[-1]))
    if not _is_layer(path[-1]) or any(len(node.users) != 1 for node in path):
        return None
    parameters, weight = _parameters(scaled), _parameters(second)
    return _Pair(parameters, watched, weight[0]) if parameters and weight else None


def _parameters(node: Node) -> tuple[str, ...]:
    """The names of weight and bias; none if one of them is no parameter of this node alone."""
    given = [argument for argument in node.args[1:3] if argument is not None]  # (weight, bias)
    names = [
        str(argument.target)
        for argument in given
        if isinstance(argument, Node) and argument.op == "get_attr" and len(argument.users) == 1
    ]
    return tuple(names) if len(names) == len(given) else ()


def _is_layer(node: Node) -> bool:
    """A convolution or a linear layer whose channels are on axis 1, as those of rows of tokens are
    not."""
    rank = {"conv2d": 4, "linear": 2}.get(operator(node))
    return rank is not None and "val" in node.meta and node.meta["val"].ndim == rank


def _groups(node: Node) -> object:
    return node.args[6] if operator(node) == "conv2d" and len(node.args) > 6 else 1


def _flattens(node: Node) -> bool:
    """Images to rows, channel by channel."""
    return operator(node) == "flatten" and tuple(node.args[1:]) in ((1,), (1, -1))
