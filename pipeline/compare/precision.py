"""How coarse a model's arithmetic is, read off the model itself: a file's name says nothing, and a
comparison that believes in INT8 where there is none lets everything pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.graph.quantized import precision_of as precision_of

if TYPE_CHECKING:
    from torch import nn


def precision_of_network(network: nn.Module) -> str:
    """The same of a PyTorch network: "fp16" where a parameter has half precision."""
    import torch

    half = (torch.float16, torch.bfloat16)
    return "fp16" if any(p.dtype in half for p in network.parameters()) else "fp32"
