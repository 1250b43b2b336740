"""Images and labels of a split as tensors. Knows nothing of what is done with them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.datasets.arrays import Split


def batch_of(
    split: Split, chosen: NDArray[np.int64], device: torch.device
) -> tuple[Tensor, Tensor]:
    """The images uint8 [N, H, W, C] at the indices ``chosen`` [N], and their labels, [N] or
    [N, labels]."""
    # indexing copies, so a read-only memory map is read and never written
    pixels = torch.from_numpy(np.asarray(split.images[chosen]))
    labels = torch.from_numpy(np.asarray(split.labels[chosen]))
    return pixels.to(device), labels.to(device)
