"""The arithmetic of one training step: loss, learning rate, optimizer, averaged weights.
Independent of data, epochs and files."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from pipeline.recipe import TrainOptions
from pipeline.tasks import LabelledTask

FIRST_LR = 1 / 25  # of the peak: where the warm-up starts, as in torch's own OneCycleLR
FOCAL_FROM = 1e-6  # the smallest base of a focal weight
LAST_LR = 1e-3  # of the peak: the last steps still move, but only within rounding of the weights


def training_loss(
    logits: Tensor,
    targets: Tensor,
    task: LabelledTask,
    weights: Tensor | None = None,
    focal: float = 0.0,
    trim: float = 0.0,
) -> Tensor:
    """Mean cross-entropy of logits [N, labels] and targets [N, labels], in float32: over images,
    and also over labels where each label has an answer of its own.

    ``weights`` are those of :meth:`LabelledTask.answer_weights`. ``focal``: each term times (1 -
    the probability of its target) to that power (Lin et al., "Focal Loss for Dense Object
    Detection", 2017). ``trim``: the share of the largest losses that is left out.
    """
    scores = logits.float()
    loss = torch.zeros((), device=scores.device)
    for target, log_probability, weight in task.loss_terms(scores, targets, weights):
        term = -target * log_probability
        if weight is not None:
            term = term * weight
        if focal:
            # the slope of a power below 1 is infinite at certainty
            term = term * (1 - log_probability.exp()).clamp(min=FOCAL_FROM) ** focal
        loss = loss + term  # (N, labels)
    losses = task.losses(loss)
    if trim:
        losses = losses.topk(max(1, round(len(losses) * (1 - trim))), largest=False).values
    return losses.mean()


def learning_rate(step: float, steps: int, options: TrainOptions) -> float:
    """The rate of step 0 <= ``step`` < ``steps``: up and down along cosines, or constant.

    Source: Smith and Topin, "Super-Convergence", 2018; cosine halves as in torch's OneCycleLR.
    A plain function of the step, so that a resumed run needs no scheduler state.
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
    """The recipe's optimizer; biases and norms, which have one axis, get no weight decay."""
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
    """An exponential moving average of the weights, updated by ``update_parameters``.

    The running statistics of batch norm are averaged like the weights. The first averages are
    shorter than ``decay`` says, so that they forget the random start.
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
