"""The images of a source with labels, splits and groups, as values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks import LabelledTask, task_of_labels

LEFT_OUT_NAME = "left_out.csv"  # next to the arrays, if any image was left out
# names of folders, and values in a column "split", as used by torchvision, Keras and Kaggle
SPLIT_WORDS = {
    "train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2,
    "testing": 2,
}  # fmt: skip


@dataclass(frozen=True)
class LeftOut:
    """An image, or a row of a list, that is not used."""

    file: str  # relative to the data's folder, with /
    reason: str


@dataclass(frozen=True)
class ImageList:
    """Images that have a label, in the order of their names."""

    root: Path
    files: tuple[str, ...]  # [N] relative to root, with /
    labels: NDArray[Any]  # int64 [N] of classes, or uint8 [N, labels] of 0 and 1
    names: tuple[str, ...]  # of the classes or attributes
    splits: NDArray[np.int8]  # [N]: 0 train, 1 val, 2 test, or NO_SPLIT
    unusable: tuple[LeftOut, ...]  # images without a label, rows without an image
    notes: tuple[str, ...]
    unlisted: tuple[LeftOut, ...] = ()  # images without a row in the label file: allowed, but noted
    groups: tuple[str, ...] | None = None  # [N] the group of each; None: no groups
    group_columns: tuple[str, ...] = ()  # unused columns with usual names of groups

    @property
    def task(self) -> LabelledTask:
        """The task that the labels belong to."""
        return task_of_labels(self.labels)

    def take(self, rows: NDArray[np.int64]) -> ImageList:
        """Return the images of the given rows, in that order."""
        groups = self.groups
        return replace(
            self,
            files=tuple(self.files[row] for row in rows),
            labels=self.labels[rows],
            splits=self.splits[rows],
            groups=None if groups is None else tuple(groups[row] for row in rows),
        )

    @property
    def counts(self) -> NDArray[np.int64]:
        """[labels] images of each class, or with each attribute."""
        return self.task.label_counts(self.labels, len(self.names))
