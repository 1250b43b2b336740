"""The answers of a trained teacher to the train images, left where training looks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.datasets.arrays import open_dataset
from pipeline.learning.training.checkpoint import CHECKPOINT_NAME, load_checkpoint
from pipeline.learning.training.device import resolve_device
from pipeline.learning.training.distillation import check_same_images, teacher_scores
from pipeline.recipe import TrainOptions
from runtime.spec import ModelSpec


def write_teacher_answers(
    teacher: Path,
    shown: Path,
    student: Path,
    spec: ModelSpec,
    options: TrainOptions,
    folder: Path,
    on_step: Callable[[int, int], None],
) -> None:
    """Answer the train images of folder ``shown`` with the checkpoint of folder ``teacher``, for a
    student with this ``spec`` and the images of folder ``student``.

    Raises TrainError unless both have the same images and labels.
    """
    images = open_dataset(shown)
    check_same_images(images, open_dataset(student))
    teacher_scores(
        load_checkpoint(teacher / CHECKPOINT_NAME),
        images.train,
        spec,
        options.augment.flip,
        resolve_device(options.device),
        options.precision,
        folder,
        on_step,
    )
