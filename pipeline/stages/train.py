"""Splits -> ``checkpoint.pt``; goes on in mid-epoch after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import user_code
from pipeline.engine.stage import Context, Elsewhere, Stage
from pipeline.recipe import HOW_FAST, Recipe
from pipeline.teacher import teacher_of

if TYPE_CHECKING:
    from runtime.spec import ModelSpec


def run(context: Context) -> dict[str, Any]:
    """Train in ``context.out``; the report holds the figures of training and of every epoch."""
    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.distributed.launch import Training, train_together
    from pipeline.learning.training.checkpoint import METRICS_NAME
    from pipeline.learning.training.results import StepProgress
    from pipeline.stages.model_spec import spec_of

    recipe = context.recipe
    dataset = open_dataset(context.inputs["data"])

    def on_step(progress: StepProgress) -> None:
        val = progress.val_accuracy_percent
        detail = f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}"
        if val is not None:
            detail += f"  validation {val:.2f} %"
        context.observer.step("train: steps", progress.step, progress.steps, detail)

    spec = spec_of(recipe, dataset.info)
    modules = _loaded(recipe)  # as they are when training begins
    _write_teacher_answers(context, spec)
    training = Training(
        context.inputs["data"].resolve(),
        spec,
        recipe.network,
        recipe.train,
        recipe.seed,
        context.out.resolve(),
        recipe.distill,
    )
    result = train_together(training, on_step)
    metrics = (context.out / METRICS_NAME).read_text(encoding="utf-8")
    for note in result.notes:
        context.observer.note(note)
    return {
        "headline": f"validation {result.val_accuracy_percent:.2f} %, "
        f"{result.parameters:,} parameters, {result.cpu_seconds:.0f} CPU-seconds"
        + (f" of {result.processes} processes" if result.processes > 1 else ""),
        "result": asdict(result),
        "epochs": [json.loads(line) for line in metrics.splitlines()],
        "modules": modules,
    }


def _write_teacher_answers(context: Context, spec: ModelSpec) -> None:
    """Leave the teacher's answers to the train images where training looks for them."""
    if context.recipe.distill is None:
        return
    from functools import partial

    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.training.checkpoint import CHECKPOINT_NAME, load_checkpoint
    from pipeline.learning.training.device import resolve_device
    from pipeline.learning.training.distillation import check_same_images, teacher_scores

    shown = open_dataset(context.inputs["teacher's data"])
    check_same_images(shown, open_dataset(context.inputs["data"]))
    teacher_scores(
        load_checkpoint(context.inputs["teacher"] / CHECKPOINT_NAME),
        shown.train,
        spec,
        context.recipe.train.augment.flip,
        resolve_device(context.recipe.train.device),
        context.recipe.train.precision,
        context.out,
        partial(context.observer.step, "train: teacher's answers"),
    )


def _borrows(recipe: Recipe) -> Mapping[str, Elsewhere]:
    teacher = teacher_of(recipe)
    if teacher is None:
        return {}
    return {
        "teacher": Elsewhere(teacher.name, "train"),
        "teacher's data": Elsewhere(teacher.name, "data"),
    }


def _outside(recipe: Recipe) -> dict[str, str]:
    """The content of a file of weights that the recipe only names."""
    if recipe.network.weights is None:
        return {}
    return {"network.weights": _content(Path(recipe.network.weights).expanduser())}


def _modules(recipe: Recipe, report: Mapping[str, Any]) -> dict[str, str]:
    """Every file of the user's that the network is made of, as it is now."""
    reference, folder = recipe.network.callable, recipe.network.folder
    if reference is None:
        return {}
    found = {name: Path(row["file"]) for name, row in report.get("modules", {}).items()}
    base = folder or Path()
    return user_code.digests(
        {name: base / file for name, file in found.items()}
        | user_code.source_files(reference, folder)
    )


def _loaded(recipe: Recipe) -> dict[str, dict[str, str]]:
    """The files among them that only running the code has shown, with the content that ran."""
    reference, folder = recipe.network.callable, recipe.network.folder
    if reference is None:
        return {}
    read_off = user_code.source_files(reference, folder)
    files = user_code.loaded_files(reference, folder)
    more = {name: file for name, file in files.items() if name not in read_off}
    return {
        name: {"file": _place(more[name], folder), "sha256": digest}
        for name, digest in user_code.digests(more).items()
    }


def _place(file: Path, folder: Path | None) -> str:
    """Relative to the recipe's folder where it is in there, so that both can be moved."""
    inside = folder is not None and file.is_relative_to(folder)
    return str(file.relative_to(folder) if inside and folder is not None else file)


def _content(file: Path) -> str:
    if not file.is_file():
        return user_code.MISSING
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


STAGE = Stage(
    "train",
    "train the network, keep the checkpoint that validates best",
    run,
    inputs=("data",),
    sections=("name", "seed", "network", "train", "preprocess", "distill"),
    sources=(
        "pipeline/stages/train.py",
        "pipeline/stages/model_spec.py",
        "pipeline/teacher.py",
        "pipeline/user_code.py",
        "pipeline/learning",
        "pipeline/processes.py",
        "pipeline/datasets/arrays.py",
        "pipeline/datasets/info.py",
        "exporters/evaluate/metrics.py",
        "exporters/files.py",
        "runtime/cpu.py",
        "runtime/errors.py",
        "runtime/origin.py",
        "runtime/output_spec.py",
        "runtime/plain_text.py",
        "runtime/regular_file.py",
        "runtime/spec.py",
        "runtime/strict_json.py",
        "runtime/tasks",
    ),
    libraries=("numpy", "torch", "torchvision"),
    outside=_outside,
    modules=_modules,
    borrows=_borrows,
    resumable=True,
    how_fast=tuple(f"train.{key}" for key in HOW_FAST),
    scratch=("resume.pt",),  # learning.checkpoint.RESUME_NAME, which would load torch
)
