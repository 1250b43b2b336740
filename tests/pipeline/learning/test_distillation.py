"""A student learns from its teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bars import (
    BARS,
    TRAIN,
    dataset,
    train,
)
from torch.nn.functional import cross_entropy

from pipeline.errors import TrainError
from pipeline.learning.training.checkpoint import load_checkpoint
from pipeline.learning.training.distillation import (
    TeacherScores,
    check_same_images,
    teacher_scores,
)
from pipeline.learning.training.optimize import (
    training_loss,
)
from pipeline.recipe import DistillOptions
from pipeline.tasks import training_task

# --- a teacher ----------------------------------------------------------------------------------

ONE = training_task("multi-class")


def test_a_student_learns_from_its_teacher_alone(tmp_path: Path) -> None:
    """Random labels, and the scores of a teacher that is right."""
    data = dataset()
    truth = np.asarray(data.train.labels)
    nonsense = np.random.default_rng(0).permutation(truth)
    unlabeled = replace(data, train=replace(data.train, labels=nonsense))
    scores = (8 * np.eye(3, dtype=np.float32))[truth]
    options = DistillOptions(teacher="any", weight=1.0)
    longer = TRAIN.model_copy(update={"epochs": 8})
    alone = train(tmp_path / "alone", longer, data=unlabeled)
    taught = train(
        tmp_path / "taught", longer, data=unlabeled, teacher=TeacherScores(scores, options)
    )
    assert taught.val_accuracy_percent > 90
    assert alone.val_accuracy_percent < taught.val_accuracy_percent - 20


def test_blending_targets_equals_adding_losses() -> None:
    torch.manual_seed(0)
    scores = np.random.default_rng(0).normal(0, 3, (6, 4)).astype(np.float32)
    indices = np.array([5, 1, 2])
    teacher = TeacherScores(scores, DistillOptions(teacher="any", weight=0.3, temperature=2))
    logits, labels = torch.randn(3, 4), torch.tensor([0, 3, 1])
    target = ONE.targets(labels, 4)
    blended = training_loss(logits, teacher.blended(target, indices, ONE), ONE)
    soft = torch.from_numpy(scores[indices] / 2).softmax(1)
    apart = 0.7 * cross_entropy(logits, labels) + 0.3 * cross_entropy(logits, soft)
    assert blended == pytest.approx(float(apart), rel=1e-5)


def test_scores_are_kept_and_average_the_mirror_image(tmp_path: Path) -> None:
    train(tmp_path)
    network, data = load_checkpoint(tmp_path / "checkpoint.pt"), dataset()
    cpu = torch.device("cpu")
    scores = teacher_scores(network, data.train, BARS, True, cpu, "float32", tmp_path)
    images = torch.from_numpy(np.asarray(data.train.images))
    with torch.no_grad():
        expected = (network.logits(images) + network.logits(images.flip(2))) / 2
    assert np.abs(scores - expected.numpy()).max() < 1e-4
    calls: list[int] = []
    again = teacher_scores(
        network,
        data.train,
        BARS,
        True,
        cpu,
        "float32",
        tmp_path,
        lambda done, _: calls.append(done),
    )
    assert np.array_equal(scores, again)
    assert calls == []
    other = replace(BARS, labels=("none", "level", "upright"))
    with pytest.raises(TrainError, match=r"distill\.teacher.*data\.attributes"):
        teacher_scores(network, data.train, other, True, cpu, "float32", tmp_path)


def test_a_teacher_of_other_images_is_refused() -> None:
    own = dataset()
    check_same_images(own, own)
    train_split, test = own.train, own.test
    turned = replace(train_split, ids=train_split.ids[::-1], labels=train_split.labels[::-1])
    redrawn = replace(train_split, labels=1 - np.minimum(train_split.labels, 1))
    others = (
        replace(own, train=turned),
        replace(own, train=redrawn),
        replace(own, test=replace(test, ids=test.ids[::-1])),
        dataset(train=150),
    )
    for other in others:
        with pytest.raises(TrainError, match=r"teacher .*\[preprocess\] and seed"):
            check_same_images(other, own)
