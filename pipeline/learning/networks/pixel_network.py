"""The module that is trained and exported: pixels in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.learning.networks.edge import merge
from pipeline.recipe import NetworkOptions
from runtime.spec import ModelSpec


class PixelNetwork(nn.Module):
    """A network with the normalization of pixels before it and probabilities behind.

    ``forward`` takes uint8 [N, height, width, channels] and returns float32 probabilities
    [N, labels]: a softmax over the labels, or one sigmoid for each of a multi-label model.
    ``logits`` stops before that and also takes float pixels in 0..255, as augmentation makes.
    """

    mean: Tensor  # in whole pixel values
    scale: Tensor

    def __init__(self, body: nn.Module, options: NetworkOptions, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.options = options
        self.body = body  # normalized float32 [N, C, H, W] -> logits [N, labels]
        mean = _constants(options.mean or (0.5,) * spec.channels)
        std = _constants(options.std or (0.5,) * spec.channels)
        # In units of pixel values, so that dividing by 255 costs no node of its own. They come
        # from the options, so a checkpoint need not hold them. With a whole pixel value as mean
        # normalizing pixels is the same as dequantizing them (see exporters/export).
        self.register_buffer("mean", torch.round(255 * mean), persistent=False)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)

    def logits(self, pixels: Tensor) -> Tensor:
        """Scores before softmax or sigmoid, [N, labels], of pixels [N, H, W, C] in 0..255."""
        # A view: in memory the result is what torch calls channels_last, the fast layout on CPU.
        x = pixels.permute(0, 3, 1, 2)  # (N, C, H, W)
        x = (x.to(torch.float32) - self.mean) * self.scale  # (N, C, H, W)
        scores: Tensor = self.body(x)  # (N, labels)
        return scores

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities [N, labels] of uint8 pixels [N, H, W, C]."""
        scores = self.logits(pixels)  # (N, labels)
        if self.spec.task == "multi-label":
            return torch.sigmoid(scores)
        return torch.softmax(scores, dim=1)

    @property
    def deployed(self) -> PixelNetwork:
        """The network as it ships, with branches that only training needs folded away. Up to
        rounding its outputs are those of this one in evaluation mode."""
        if self.options.edge is None or self.options.edge.merged:
            return self
        edge = self.options.edge.model_copy(update={"merged": True})
        options = self.options.model_copy(update={"edge": edge})
        return PixelNetwork(merge(self.body), options, self.spec)

    @property
    def parameter_count(self) -> int:
        """The count of trained numbers."""
        return sum(p.numel() for p in self.parameters())


def _constants(values: Sequence[float]) -> Tensor:
    """One number per channel, [1, C, 1, 1], or a single one where all channels agree.

    A single number is much faster: onnxruntime broadcasts three along the last axis of its INT8
    layout at 95 µs for a 64x64 image, and one at 7 µs.
    """
    if len(set(values)) == 1:
        return torch.tensor(values[0])
    return torch.tensor(values).view(1, -1, 1, 1)
