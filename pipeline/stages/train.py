"""Splits -> ``checkpoint.pt``; goes on in mid-epoch after a kill."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pipeline.stage import Context, Stage


def run(context: Context) -> dict[str, Any]:
    """Train in ``context.out``; the report holds the figures of training and of every epoch."""
    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.checkpoint import METRICS_NAME
    from pipeline.learning.fit import StepProgress, fit

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
    result = fit(dataset, spec, recipe.network, recipe.train, recipe.seed, context.out, on_step)
    metrics = (context.out / METRICS_NAME).read_text(encoding="utf-8")
    for note in result.notes:
        context.observer.note(note)
    return {
        "headline": f"validation {result.val_accuracy_percent:.2f} %, "
        f"{result.parameters:,} parameters, {result.cpu_seconds:.0f} CPU-seconds",
        "result": asdict(result),
        "epochs": [json.loads(line) for line in metrics.splitlines()],
    }


STAGE = Stage(
    "train",
    "train the network, keep the checkpoint that validates best",
    run,
    inputs=("data",),
    sections=("name", "seed", "network", "train", "preprocess"),
    sources=(
        "pipeline/stages/train.py",
        "pipeline/stages/model_spec.py",
        "pipeline/learning",
        "pipeline/datasets/arrays.py",
        "exporters/metrics.py",
        "runtime/cpu.py",
        "runtime/errors.py",
        "runtime/spec.py",
        "runtime/strict_json.py",
    ),
    libraries=("numpy", "torch", "torchvision"),
    resumable=True,
)
