"""Splits -> ``checkpoint.pt``; continues in mid-epoch after a kill."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pipeline.engine.stage import Context, Elsewhere, Stage
from pipeline.recipe import HOW_FAST, Recipe
from pipeline.reports import TrainReport
from pipeline.stages.sources import DATA, LEARNING
from pipeline.teacher import teacher_of
from pipeline.user_modules import current_digests, loaded_modules, weights_digest

if TYPE_CHECKING:
    from pipeline.learning.training.results import StepProgress


def run(context: Context) -> TrainReport:
    """Train in ``context.out``."""
    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.distributed.launch import Training, train_together
    from pipeline.learning.training.checkpoint import METRICS_NAME
    from pipeline.learning.training.results import read_epochs
    from pipeline.learning.training.teacher_answers import write_teacher_answers
    from pipeline.stages.model_spec import spec_of

    recipe, observer = context.recipe, context.observer
    data, out = context.inputs["data"].resolve(), context.out.resolve()
    spec = spec_of(recipe, open_dataset(data).info)
    modules = loaded_modules(recipe.network)  # as they are when training begins
    if recipe.distill is not None:
        teacher, shown = context.inputs["teacher"], context.inputs["teacher's data"]
        step = partial(observer.step, "train: teacher's answers")
        write_teacher_answers(teacher, shown, data, spec, recipe.train, out, step)
    training = Training(data, spec, recipe.network, recipe.train, recipe.seed, out, recipe.distill)
    result = train_together(training, partial(_show, context))
    for note in result.notes:
        observer.note(note)
    return TrainReport(result.headline, result, read_epochs(out / METRICS_NAME), modules)


def _show(context: Context, progress: StepProgress) -> None:
    detail = f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}"
    if progress.val_accuracy_percent is not None:
        detail += f"  validation {progress.val_accuracy_percent:.2f} %"
    context.observer.step("train: steps", progress.step, progress.steps, detail)


def _borrows(recipe: Recipe) -> dict[str, Elsewhere]:
    teacher = teacher_of(recipe)
    if teacher is None:
        return {}
    stages = {"teacher": "train", "teacher's data": "data"}
    return {name: Elsewhere(teacher.name, stage) for name, stage in stages.items()}


STAGE = Stage(
    "train",
    "train the network, keep the checkpoint that validates best",
    TrainReport,
    run,
    inputs=("data",),
    sections=("name", "seed", "network", "train", "preprocess", "distill"),
    sources=(
        *("pipeline/stages/train.py", "pipeline/stages/model_spec.py"),
        *("pipeline/teacher.py", "pipeline/user_modules.py"),
        *(*DATA, *LEARNING),
        "exporters/evaluate/metrics.py",
        "exporters/files.py",
        *("runtime/cpu.py", "runtime/errors.py", "runtime/origin.py", "runtime/plain_text.py"),
        *("runtime/regular_file.py", "runtime/spec.py", "runtime/strict_json.py"),
        *("runtime/output_spec.py", "runtime/tasks"),
    ),
    libraries=("numpy", "torch", "torchvision"),
    outside=lambda recipe: weights_digest(recipe.network),
    modules=lambda recipe, seen: current_digests(recipe.network, seen),
    borrows=_borrows,
    resumable=True,
    how_fast=tuple(f"train.{key}" for key in HOW_FAST),
    scratch=("resume.pt",),  # learning.checkpoint.RESUME_NAME, which would load torch
)
