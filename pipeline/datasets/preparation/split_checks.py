"""Checks that splits are fit for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import SPLITS, TRAIN
from pipeline.datasets.examples import some
from pipeline.datasets.preparation.preparation import Preparation
from pipeline.datasets.sources.image_list import ImageList
from pipeline.errors import DataError
from pipeline.tasks import task_of_labels


def check_splits(listed: ImageList, splits: NDArray[np.int8], same: Sequence[str] = ()) -> None:
    """Raise DataError when a split is empty, or train has no image of a class. ``same`` describes
    images that are one picture; the error then gives it as the reason."""
    counts = [int((splits == i).sum()) for i in range(len(SPLITS))]
    reason = "".join(f"\n{sentence}" for sentence in same)
    if not all(counts):
        sizes = ", ".join(f"{count:,} {name}" for count, name in zip(counts, SPLITS, strict=True))
        advice = (
            f"Images that are the same are always in one split:{reason}"
            if same
            else "Add images, or change data.val_share and data.test_share."
        )
        if listed.groups is not None and not same:
            advice = (
                f"There are {len(set(listed.groups)):,} groups, and each is in one split: add "
                "images of other groups, or set data.test_group."
            )
        raise DataError(
            f"{listed.root} gives {sizes} images; expected some in every split. {advice}"
        )
    if not listed.task.exclusive:
        return  # images without a label teach something about it, too
    if lacking := listed.task.unlearnable(listed.labels[splits == TRAIN], listed.names):
        grouped = ", of different groups" * (listed.groups is not None)
        noun = listed.task.label_noun
        raise DataError(
            f"{listed.root} has no image to train with of the {noun} {some(lacking)}; expected "
            f"at least three different images of each {noun}{grouped}, one for each of train, "
            f"val and test. Add some, or remove the {noun}.{reason}"
        )


def note_constants(prep: Preparation, names: Sequence[str], labels: NDArray[Any]) -> None:
    """Note the labels about which the train labels, [N] or [N, L], teach nothing."""
    task = task_of_labels(labels)
    if unlearnable := task.unlearnable(labels, names):
        prep.note(f"{task.unlearnable_note}: {', '.join(unlearnable)}.")
