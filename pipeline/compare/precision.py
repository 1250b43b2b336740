"""The precision of a model's arithmetic, read from the model itself. A file's name proves nothing,
and the tolerances of INT8 would let a float model pass with any fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.graph.quantized import precision_of as precision_of

if TYPE_CHECKING:
    from torch import nn


def precision_of_network(network: nn.Module) -> str:
    """Return "fp16" for a PyTorch network with a parameter of half precision, else "fp32"."""
    import torch

    half = (torch.float16, torch.bfloat16)
    return "fp16" if any(p.dtype in half for p in network.parameters()) else "fp32"
