"""A teacher: a smaller network learns from the scores of a larger one for the train images as well
as from the labels. The scores are computed once and kept on disk. Independent of training.

Where training mirrors images, each score is the teacher's mean of an image and its mirror image, so
that the student need not distinguish them. The score is the same for all augmentations of an image.
Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exporters.files import atomic_file
from pipeline.datasets.arrays import SPLITS, Dataset, Split
from pipeline.errors import TrainError
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.training.device import mixed_precision
from pipeline.recipe import DistillOptions
from pipeline.tasks import LabelledTask
from runtime.spec import ModelSpec

SCORES_NAME = "teacher.npy"  # float32 [N, labels]
BATCH_SIZE = 128


@dataclass(frozen=True)
class TeacherScores:
    """The teacher's scores of every train image, and their weight."""

    scores: NDArray[np.float32]  # [N, labels], which may be a memory map
    options: DistillOptions

    def blended(self, targets: Tensor, indices: NDArray[np.int64], task: LabelledTask) -> Tensor:
        """The targets [n, labels] of the images ``indices``, blended with the teacher's
        probabilities.

        With cross-entropy, blending the targets is the same as adding up two losses.
        """
        scores = torch.from_numpy(np.asarray(self.scores[indices])) / self.options.temperature
        probabilities = task.probabilities(scores)
        return torch.lerp(targets, probabilities.to(targets.device), self.options.weight)


def open_scores(folder: Path, options: DistillOptions) -> TeacherScores:
    """The scores that :func:`teacher_scores` wrote to ``folder``."""
    return TeacherScores(np.load(folder / SCORES_NAME, mmap_mode="r"), options)


def check_same_images(teacher: Dataset, student: Dataset) -> None:
    """Raise TrainError unless the splits of the teacher are those of the student, row by row: a
    score belongs to a row, and a teacher must not have seen the test images."""
    pairs = [(getattr(teacher, name), getattr(student, name)) for name in SPLITS]
    if all(np.array_equal(a.ids, b.ids) and np.array_equal(a.labels, b.labels) for a, b in pairs):
        return
    theirs, ours = pairs[0]
    common = len(np.intersect1d(theirs.ids, ours.ids))
    raise TrainError(
        f"the teacher was trained on {len(theirs):,} images and the student trains on "
        f"{len(ours):,}, of which {common:,} have the same names; expected the same images with "
        "the same labels in the same order and splits. For images of your own these follow from "
        "what the model sees: give both recipes the same [preprocess] and seed."
    )


def teacher_scores(
    teacher: PixelNetwork,
    images: Split,
    spec: ModelSpec,
    mirror: bool,
    device: torch.device,
    precision: str,
    folder: Path,
    on_step: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """The teacher's scores of ``images``, [N, labels], computed or, if an earlier run of the same
    stage wrote them, read from ``folder``.

    ``images`` are in the teacher's own size, ``precision`` is one of ``TrainOptions.precision``.
    Raises TrainError when the teacher's labels are not those of ``spec``, the student's.
    """
    if (teacher.spec.task, teacher.spec.labels) != (spec.task, spec.labels):
        raise TrainError(
            f"the teacher {teacher.spec.name!r} is {teacher.spec.task} with "
            f"{len(teacher.spec.labels)} labels, the student {spec.name!r} {spec.task} with "
            f"{len(spec.labels)}; expected the same labels in the same order. Choose another "
            "distill.teacher, or give both recipes the same data.attributes."
        )
    file = folder / SCORES_NAME
    if not file.exists():
        shape = (len(images), len(spec.labels))
        with atomic_file(file) as partial:
            scores = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
            _compute(teacher, images, mirror, device, precision, scores, on_step)
            scores.flush()
    stored: NDArray[np.float32] = np.load(file, mmap_mode="r")
    return stored


def _compute(
    teacher: PixelNetwork,
    images: Split,
    mirror: bool,
    device: torch.device,
    precision: str,
    scores: NDArray[np.float32],
    on_step: Callable[[int, int], None] | None,
) -> None:
    teacher.to(device).eval().to(memory_format=torch.channels_last)
    mixed = mixed_precision(device, precision)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, mixed or torch.bfloat16, enabled=mixed is not None),
    ):
        for start in range(0, len(images), BATCH_SIZE):
            pixels = torch.from_numpy(np.array(images.images[start : start + BATCH_SIZE]))
            pixels = pixels.to(device)
            logits = teacher.logits(pixels).float()
            if mirror:
                logits = (logits + teacher.logits(pixels.flip(2)).float()) / 2
            scores[start : start + len(pixels)] = logits.cpu().numpy()
            if on_step is not None:
                on_step(start + len(pixels), len(images))
