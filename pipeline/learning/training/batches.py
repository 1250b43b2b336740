"""Images and labels of a split as tensors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.datasets.arrays import Split


def batch_of(
    split: Split, indices: NDArray[np.int64], device: torch.device
) -> tuple[Tensor, Tensor]:
    """The images uint8 [N, H, W, C] at ``indices`` [N], and their labels, [N] or
    [N, labels]."""
    # indexing copies, so a read-only memory map is read and never written
    pixels = torch.from_numpy(np.asarray(split.images[indices]))
    labels = torch.from_numpy(np.asarray(split.labels[indices]))
    return pixels.to(device), labels.to(device)
