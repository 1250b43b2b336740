"""Probabilities of many images, batch by batch, so that they never stand in memory as floats, and
how good they are while training. Knows nothing of epochs and gates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from exporters.evaluate.metrics import correct
from pipeline.datasets.arrays import Split
from pipeline.learning.networks.pixel_network import PixelNetwork

BATCH_SIZE = 256  # larger ones fall out of the processor's cache and were slower


def probabilities(
    network: nn.Module,
    images: NDArray[np.uint8],
    batch_size: int = BATCH_SIZE,
    device: str = "cpu",
    on_step: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Probabilities [N, labels] of uint8 images [N, H, W, C], which may be a memory map.

    ``network`` is any module from pixels to probabilities. It is moved to ``device`` and left
    there, runs in evaluation mode and gets its own mode back. ``on_step`` is told (images done,
    images in all) after each batch. No images give an array [0, 0].
    """
    was_training = network.training
    network.to(device).eval()
    parts: list[NDArray[np.float32]] = []
    try:
        with torch.inference_mode():
            for start in range(0, len(images), batch_size):
                # a copy: what is mapped read-only may not back a tensor
                batch = np.array(images[start : start + batch_size])
                answer = network(torch.from_numpy(batch).to(device))
                parts.append(answer.to("cpu", torch.float32).numpy())
                if on_step is not None:
                    on_step(start + len(batch), len(images))
    finally:
        network.train(was_training)
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def judge(
    network: PixelNetwork,
    split: Split,
    device: str,
    total: Callable[[float], float] = float,
) -> tuple[float, float]:
    """(cross-entropy, accuracy in percent) of a split; means over labels for multi-label.

    ``total`` adds up a number over processes that have other parts of the split.
    """
    answer = probabilities(network, split.images, device=device)
    tiny = np.finfo(np.float32).tiny
    if not len(split):
        of_truth, right = np.zeros(0), np.zeros(0, np.bool_)
    elif network.spec.task == "multi-class":
        of_truth = answer[np.arange(len(answer)), split.labels]
        right = correct(answer, split.labels, None)
    else:
        of_truth = np.where(split.labels == 1, answer, 1 - answer)
        right = correct(answer, split.labels, np.full(1, 0.5))
    loss = -np.log(np.maximum(of_truth, tiny), dtype=np.float64).sum()
    answers = total(right.size)
    return total(float(loss)) / answers, 100 * total(float(right.sum())) / answers
