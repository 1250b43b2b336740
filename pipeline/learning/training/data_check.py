"""Checks of the data before training."""

from __future__ import annotations

import numpy as np

from pipeline.datasets.arrays import Dataset, Split
from pipeline.errors import TrainError
from pipeline.processes import check_batch
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
    shape = (len(split),) if spec.task == "multi-class" else (len(split), count)
    if labels.shape != shape or not np.issubdtype(labels.dtype, np.integer):
        raise TrainError(
            f"the {name} labels are {labels.dtype} {labels.shape}; expected integers {shape} for a "
            f"{spec.task} model of {count} labels."
        )
    most = count - 1 if spec.task == "multi-class" else 1
    if labels.min() < 0 or labels.max() > most:
        raise TrainError(
            f"the {name} labels range from {labels.min()} to {labels.max()}; expected 0 to {most}."
        )


def check_shares(images: int, batch_size: int, processes: int) -> None:
    """Raise RecipeError unless a batch, and TrainError unless the train split, can be divided among
    the processes."""
    check_batch(batch_size, processes)
    if images < 2 * processes:
        raise TrainError(
            f"there are {images} images to train with, and {processes} processes; expected two for "
            "each process. Start fewer."
        )
