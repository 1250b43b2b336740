"""The arithmetic of one training step: loss, learning rate, optimizer, averaged weights. Knows
nothing of data, epochs or files."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from pipeline.recipe import TrainOptions
from runtime.spec import Task

FIRST_LR = 1 / 25  # of the peak: where the warm-up starts, as in torch's own OneCycleLR
LAST_LR = 1e-3  # of the peak: the last steps still move, but only within rounding of the weights


def training_loss(logits: Tensor, labels: Tensor, task: Task, smoothing: float) -> Tensor:
    """Mean loss of logits [N, labels] in float32.

    Multi-class: cross-entropy with int64 labels [N]. Multi-label: binary cross-entropy, mean
    over images and labels, with 0/1 labels [N, labels]; smoothing draws them towards 0.5.
    """
    scores = logits.float()
    if task == "multi-label":
        target = labels.float() * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(scores, target)
    return F.cross_entropy(scores, labels, label_smoothing=smoothing)


def learning_rate(step: int, steps: int, options: TrainOptions) -> float:
    """The rate of step 0 <= ``step`` < ``steps``: up and down along cosines, or constant.

    Source: Smith and Topin, "Super-Convergence", 2018; cosine halves as in torch's OneCycleLR.
    It is a plain function of the step, so a resumed run needs no scheduler state.
    """
    if options.schedule == "constant":
        return options.lr
    top = options.warmup * steps
    if step < top:
        start, end, share = FIRST_LR, 1.0, step / top
    else:
        start, end, share = 1.0, LAST_LR, (step - top) / max(1.0, steps - 1 - top)
    return options.lr * (end + (start - end) * (1 + math.cos(math.pi * share)) / 2)


def build_optimizer(network: nn.Module, options: TrainOptions) -> Optimizer:
    """The recipe's optimizer; weight decay leaves biases and norms alone (they have one axis)."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # fused: one kernel for all weights; small networks feel the overhead of many
    if options.optimizer == "adamw":
        return AdamW(groups, lr=options.lr, fused=True)
    nesterov = options.momentum > 0
    return SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=nesterov, fused=True)


def averaged_copy(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights, to be fed by ``update_parameters``.

    The running statistics of batch norm are averaged like the weights they belong to. Early on
    the average is shorter than ``decay`` says, lest it remember the random start.
    """

    @torch.no_grad()
    def update(
        averaged: tuple[Tensor, ...] | list[Tensor],
        current: tuple[Tensor, ...] | list[Tensor],
        count: Tensor | int,
    ) -> None:
        if not averaged[0].is_floating_point():  # numbers of batches seen
            _copy(averaged, current)
            return
        seen = int(count)
        weight = 1 - min(decay, (1 + seen) / (10 + seen))
        torch._foreach_lerp_(list(averaged), list(current), weight)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
