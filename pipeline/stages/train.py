"""Splits -> ``checkpoint.pt``; goes on in mid-epoch after a kill."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.recipe import HOW_FAST, Recipe
from pipeline.stage import Context, Elsewhere, Stage
from pipeline.teacher import teacher_of

if TYPE_CHECKING:
    from runtime.spec import ModelSpec


def run(context: Context) -> dict[str, Any]:
    """Train in ``context.out``; the report holds the figures of training and of every epoch."""
    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.checkpoint import METRICS_NAME
    from pipeline.learning.fit import StepProgress
    from pipeline.learning.launch import Job, run_job

    from .model_spec import spec_of

    recipe = context.recipe
    dataset = open_dataset(context.inputs["data"])

    def on_step(progress: StepProgress) -> None:
        val = progress.val_accuracy_percent
        detail = f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}"
        if val is not None:
            detail += f"  validation {val:.2f} %"
        context.observer.step("train: steps", progress.step, progress.steps, detail)

    spec = spec_of(recipe, dataset.info)
    _write_teacher_answers(context, spec)
    job = Job(
        context.inputs["data"].resolve(),
        spec,
        recipe.network,
        recipe.train,
        recipe.seed,
        context.out.resolve(),
        recipe.distill,
    )
    result = run_job(job, context.processes, on_step, context.observer.note)
    metrics = (context.out / METRICS_NAME).read_text(encoding="utf-8")
    for note in result.notes:
        context.observer.note(note)
    return {
        "headline": f"validation {result.val_accuracy_percent:.2f} %, "
        f"{result.parameters:,} parameters, {result.cpu_seconds:.0f} CPU-seconds"
        + (f" of {result.processes} processes" if result.processes > 1 else ""),
        "result": asdict(result),
        "epochs": [json.loads(line) for line in metrics.splitlines()],
    }


def _write_teacher_answers(context: Context, spec: ModelSpec) -> None:
    """Leave the teacher's answers to the train images where training looks for them."""
    if context.recipe.distill is None:
        return
    from functools import partial

    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.checkpoint import CHECKPOINT_NAME, load_checkpoint
    from pipeline.learning.device import resolve_device
    from pipeline.learning.distillation import check_same_images, teacher_scores

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
    """The content of files that the recipe only names: weights, and the user's own network (the
    module, not what it imports)."""
    files: dict[str, Path | None] = {}
    if recipe.network.weights is not None:
        files["network.weights"] = Path(recipe.network.weights).expanduser()
    if recipe.network.callable is not None:
        files["network.callable"] = _source_of(recipe.network.callable.partition(":")[0])
    return {name: _content(file) for name, file in files.items()}


def _source_of(module: str) -> Path | None:
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # its package is missing; it has no name
        found = None
    return Path(found.origin) if found is not None and found.origin is not None else None


def _content(file: Path | None) -> str:
    if file is None or not file.is_file():
        return "missing"
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
        "pipeline/learning",
        "pipeline/processes.py",
        "pipeline/datasets/arrays.py",
        "exporters/metrics.py",
        "runtime/cpu.py",
        "runtime/errors.py",
        "runtime/origin.py",
        "runtime/spec.py",
        "runtime/strict_json.py",
    ),
    libraries=("numpy", "torch", "torchvision"),
    outside=_outside,
    borrows=_borrows,
    resumable=True,
    how_fast=tuple(f"train.{key}" for key in HOW_FAST),
    scratch=("resume.pt",),  # learning.checkpoint.RESUME_NAME, which would load torch
)
