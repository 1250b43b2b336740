"""Checks of the data before training."""

from __future__ import annotations

import numpy as np

from pipeline.datasets.arrays import Dataset, Split
from pipeline.errors import TrainError
from pipeline.processes import check_batch
from pipeline.tasks import training_task
from runtime.spec import ModelSpec


def check_data(dataset: Dataset, spec: ModelSpec) -> None:
    """Raise TrainError unless the train and validation splits fit the spec and hold enough."""
    for name, split, least in (("train", dataset.train, 2), ("val", dataset.val, 1)):
        if len(split) < least:
            raise TrainError(
                f"the {name} split has {len(split)} images; expected at least {least}. "
                "Give the data stage more images or other splits."
            )
        _check_split(name, split, spec)


def _check_split(name: str, split: Split, spec: ModelSpec) -> None:
    count, labels = len(spec.labels), split.labels
    if split.images.shape[1:] != spec.shape or split.images.dtype != np.uint8:
        raise TrainError(
            f"the {name} images are {split.images.dtype} {split.images.shape[1:]}; expected uint8 "
            f"{spec.shape}, (height, width, channels). Run the data stage again."
        )
    if problem := training_task(spec.task).check_labels(labels, len(split), count):
        raise TrainError(f"the {name} labels {problem}.")


def check_shares(images: int, batch_size: int, processes: int) -> None:
    """Raise RecipeError unless a batch, and TrainError unless the train split, can be divided among
    the processes."""
    check_batch(batch_size, processes)
    if images < 2 * processes:
        raise TrainError(
            f"there are {images} images to train with, and {processes} processes; expected two for "
            "each process. Start fewer."
        )
