"""A family of small networks made for low latency: plain 3x3 convolutions with ReLU, which CPUs run
fast and INT8 runs faster still (it makes depthwise ones slower), and one knob, the width. In
training each convolution may have parallel branches that make learning easier; ``merge`` folds them
into the one convolution that is deployed. Independent of training.

    stem      3x3, ``width`` channels; halves images of 40 pixels and more
    stages    ``width`` times 1, 3, 6 and 8 channels, each but the first halves the image, ``depth``
              convolutions in each (the stem counts); none leaves fewer than 4x4 features
    head      global average (unless ``pool`` is "none"), a linear layer

Two convolutions a stage have some 1,600 ``width``^2 weights: 10 thousand at 2, 2 million at 35. A
width of 16 fills the vector registers of every stage. Source of the branches: Ding et al.,
"RepVGG: Making VGG-style ConvNets Great Again", 2021.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.recipe import NetworkOptions
from runtime.spec import ModelSpec

_STEM_HALVES_FROM = 40  # pixels: a smaller image would lose what it shows
_SMALLEST_TO_HALVE = 4  # features a side
# Multiples of the width. Thin where the image is large, which takes the time; and no doubling at
# the end, where most of the weights would compute few features.
_STAGES = (1, 3, 6, 8)
_MULTIPLE = 4  # channels are rounded to it


class BranchedConv(nn.Module):
    """The sum of a 3x3 convolution, a 1x1 convolution and (where sizes agree) the input, each with
    a batch norm of its own; then ReLU. Takes and returns [N, C, H, W]."""

    def __init__(self, channels: int, out: int, stride: int, branches: bool) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(out)
        self.point: nn.Conv2d | None = None
        self.point_norm: nn.BatchNorm2d | None = None
        self.through_norm: nn.BatchNorm2d | None = None
        if branches:
            # forward() skips rows and columns in place of a stride: the gradient of a 1x1
            # convolution with a stride writes beyond its memory in torch 2.14 on CPUs (64x64)
            self.point = nn.Conv2d(channels, out, 1, bias=False)
            self.point_norm = nn.BatchNorm2d(out)
            if stride == 1 and channels == out:
                self.through_norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the branches, rectified."""
        total: Tensor = self.norm(self.conv(x))
        if self.point is not None and self.point_norm is not None:
            total = total + self.point_norm(self.point(x[:, :, :: self.stride, :: self.stride]))
        if self.through_norm is not None:
            total = total + self.through_norm(x)
        return torch.relu(total)

    @torch.no_grad()
    def merged(self) -> nn.Sequential:
        """One convolution with bias and a ReLU: the same function in evaluation mode."""
        kernel, bias = _folded(self.conv.weight, self.norm)
        if self.point is not None and self.point_norm is not None:
            more, shift = _folded(self.point.weight, self.point_norm)
            kernel[:, :, 1:2, 1:2] += more
            bias += shift
        if self.through_norm is not None:
            out = kernel.shape[0]
            one = torch.eye(out, dtype=kernel.dtype).view(out, out, 1, 1)
            more, shift = _folded(one, self.through_norm)
            kernel[:, :, 1:2, 1:2] += more
            bias += shift
        conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, self.stride, 1)
        conv.weight.copy_(kernel)
        conv.bias.copy_(bias)  # type: ignore[union-attr]  # it has one
        return nn.Sequential(conv, nn.ReLU(inplace=True))


def _folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel [out, in, k, k] and bias [out] of a convolution and its norm, float64."""
    mean, variance = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
    gain = norm.weight.double() / torch.sqrt(variance.double() + norm.eps)
    kernel = weight.detach().cpu().double() * gain.cpu().view(-1, 1, 1, 1)
    return kernel, (norm.bias.double() - mean.double() * gain).cpu()


def from_edge(network: NetworkOptions, spec: ModelSpec) -> nn.Sequential:
    """A network of the family with fresh weights, from [N, C, H, W] to logits [N, labels]."""
    assert network.edge is not None
    options = network.edge
    size = (spec.height, spec.width)
    halves = min(size) >= _STEM_HALVES_FROM
    sides = [(side + 1) // 2 if halves else side for side in size]
    widths = [_channels(options.width, times) for times in _STAGES]
    # no branches in the stem, where a 1x1 of three colors learns little
    blocks = [BranchedConv(spec.channels, widths[0], 2 if halves else 1, branches=False)]
    here = widths[0]
    for number, out in enumerate(widths):
        strides = [1] * (options.depth - 1 if number == 0 else options.depth)
        if number > 0:
            if min(sides) < _SMALLEST_TO_HALVE * 2 - 1:
                break
            strides[0] = 2
            sides = [(side + 1) // 2 for side in sides]
        for stride in strides:
            blocks.append(BranchedConv(here, out, stride, options.branches))
            here = out
    if options.pool == "average":
        head, features = [nn.AdaptiveAvgPool2d(1), nn.Flatten()], here
    else:
        head, features = [nn.Flatten()], here * math.prod(sides)
    if options.dropout:
        head.append(nn.Dropout(options.dropout))
    body = nn.Sequential(*blocks, *head, nn.Linear(features, len(spec.labels)))
    return merge(body) if options.merged else body


def merge(network: nn.Module) -> nn.Sequential:
    """The same network as it is deployed: each block is one convolution with bias."""
    return nn.Sequential(
        *(m.merged() if isinstance(m, BranchedConv) else m for m in network.children())
    )


def _channels(width: int, times: int) -> int:
    return max(_MULTIPLE, round(width * times / _MULTIPLE) * _MULTIPLE)
