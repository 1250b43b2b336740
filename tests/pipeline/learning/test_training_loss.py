"""Losses, weights of rare answers, averages and the learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bars import (
    TRAIN,
)
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pipeline.learning.training.optimize import (
    averaged_copy,
    learning_rate,
    training_loss,
)
from pipeline.tasks import training_task

ONE, EACH = training_task("multi-class"), training_task("multi-label")


def test_averages_include_the_statistics_of_batch_norm() -> None:
    network = torch.nn.BatchNorm1d(2)
    averaged = averaged_copy(network, decay=0.5)
    averaged.update_parameters(network)  # the first one copies
    network.running_mean += 8  # type: ignore[operator]
    network.num_batches_tracked += 3  # type: ignore[operator]
    averaged.update_parameters(network)
    # the early decay is (1 + 1) / (10 + 1), less than the 0.5 that were asked for
    torch.testing.assert_close(averaged.module.running_mean, torch.full((2,), 8 * 9 / 11))
    assert averaged.module.num_batches_tracked == 3


def test_the_rate_goes_up_and_down_once() -> None:
    rates = [learning_rate(step, 100, TRAIN) for step in range(100)]
    top = int(np.argmax(rates))
    assert top == 20  # warmup = 0.2
    assert rates[top] == TRAIN.lr
    assert rates[0] == pytest.approx(TRAIN.lr / 25)
    assert rates[-1] == pytest.approx(TRAIN.lr / 1000)
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    constant = TRAIN.model_copy(update={"schedule": "constant"})
    assert {learning_rate(step, 100, constant) for step in range(100)} == {TRAIN.lr}
    assert learning_rate(0, 1, TRAIN.model_copy(update={"warmup": 0.0})) == TRAIN.lr


def test_smoothed_labels_are_best_answered_short_of_certainty() -> None:
    label, score = torch.tensor([[1]]), torch.tensor([[0.9]]).logit()
    target = EACH.targets(label, 1, 0.2)
    smoothed = training_loss(score, target, EACH)
    assert smoothed < training_loss(score + 0.1, target, EACH)
    assert smoothed < training_loss(score - 0.1, target, EACH)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs_cross_entropy(smoothing: float) -> None:
    torch.manual_seed(0)
    scores, classes = 3 * torch.randn(8, 5), torch.randint(0, 5, (8,))
    own = training_loss(scores, ONE.targets(classes, 5, smoothing), ONE)
    assert own == pytest.approx(float(cross_entropy(scores, classes, label_smoothing=smoothing)))
    labels = torch.randint(0, 2, (8, 5))
    own = training_loss(scores, EACH.targets(labels, 5), EACH)
    assert own == pytest.approx(float(binary_cross_entropy_with_logits(scores, labels.float())))


def test_rare_answers_weigh_more() -> None:
    labels = torch.zeros(100, 2, dtype=torch.uint8)
    labels[:10, 0] = 1
    labels[:50, 1] = 1
    weights = EACH.answer_weights(labels, 2, rare=1.0)
    assert weights is not None
    assert weights[1].tolist() == pytest.approx([5, 1])  # 1 / (2 * 0.1), 1 / (2 * 0.5)
    assert weights[0].tolist() == pytest.approx([1 / 1.8, 1])
    half = EACH.answer_weights(labels, 2, rare=0.5)
    assert half is not None
    assert half[1, 0] == pytest.approx(5**0.5)
    classes = torch.tensor([0] * 75 + [1] * 25)
    by_class = ONE.answer_weights(classes, 2, rare=1.0)
    assert by_class is not None
    assert by_class.tolist() == [pytest.approx([2 / 3, 2])]
    assert EACH.answer_weights(labels, 2, rare=0.0) is None
    # an answer weighs by its own target
    score, yes = torch.zeros(1, 2), torch.tensor([[1.0, 1.0]])
    loss = training_loss(score, yes, EACH, weights)
    assert loss == pytest.approx((5 + 1) / 2 * np.log(2))


@pytest.mark.parametrize("task", [ONE, EACH])
def test_focal_loss_has_a_finite_slope_at_certainty(task: Any) -> None:
    logits = torch.tensor([[25.0, -5.0]], requires_grad=True)
    training_loss(logits, torch.tensor([[1.0, 0.0]]), task, focal=0.5).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_focal_loss_ignores_confident_answers() -> None:
    known, unknown = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    target = torch.tensor([[1.0, 0.0]])

    def ratio(focal: float) -> float:
        of_known = training_loss(known, target, ONE, focal=focal)
        return float(of_known / training_loss(unknown, target, ONE, focal=focal))

    assert ratio(2.0) < 0.01 * ratio(0.0)
    p = float(torch.sigmoid(torch.tensor(4.0)))
    by_hand = -((1 - p) ** 2) * np.log(p)
    loss = training_loss(known, target, ONE, focal=2.0)
    assert loss == pytest.approx(by_hand, rel=1e-4)


def test_trimming_leaves_the_largest_losses_out() -> None:
    scores = torch.tensor([[5.0], [5.0], [5.0], [-5.0]])  # the last has a wrong label
    target = torch.ones(4, 1)
    trimmed = training_loss(scores, target, EACH, trim=0.25)
    assert trimmed == pytest.approx(float(training_loss(scores[:3], target[:3], EACH)))
