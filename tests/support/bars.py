"""A small data set of bars in noise, the network and options that learn it in seconds, and what two
trainings are compared by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.datasets.arrays import Dataset, Split
from pipeline.datasets.info import DatasetInfo
from pipeline.learning.training.checkpoint import load_checkpoint
from pipeline.learning.training.fit import fit
from pipeline.learning.training.results import StepProgress, TrainResult
from pipeline.recipe import AugmentOptions, NetworkOptions, TrainOptions
from runtime.spec import ModelSpec

BARS = ModelSpec("bars", "multi-class", 12, 12, 1, ("none", "upright", "level"))
SIGNS = ModelSpec("signs", "multi-label", 12, 12, 1, ("upright", "level"))
NETWORK = NetworkOptions.model_validate(
    {
        "layers": [
            {"op": "conv", "out": 8, "stride": 2, "batch_norm": True},
            {"op": "dropout", "p": 0.1},
            {"op": "conv", "out": 8, "batch_norm": True},
            {"op": "pool", "kind": "max", "size": "global"},
            {"op": "linear"},
        ]
    }
)
# all that has a state: momentum, averages, augmentation, dropout; saved after every step
TRAIN = TrainOptions(
    epochs=3,
    batch_size=16,
    lr=0.1,
    ema=0.9,
    label_smoothing=0.05,
    threads=1,
    device="cpu",
    precision="float32",  # "auto" is measured by each process, and these are compared
    checkpoint_seconds=0,
    augment=AugmentOptions(shift=1, rotate=5, brightness=0.1),
)


def bars(count: int, seed: int, multi_label: bool = False) -> Split:
    """Noise with an upright bar, a level bar, neither, or (multi-label) both."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 90, (count, 12, 12, 1), dtype=np.uint8)
    upright, level = rng.integers(0, 2, (2, count))
    if not multi_label:
        level &= 1 - upright
    for image, has_upright, has_level, offset in zip(
        images, upright, level, rng.integers(1, 9, count), strict=True
    ):
        if has_upright:
            image[1:11, offset : offset + 2] = 220
        if has_level:
            image[offset : offset + 2, 1:11] = 220
    labels = np.stack([upright, level], 1).astype(np.uint8) if multi_label else upright + 2 * level
    return Split(images, labels, np.arange(count).astype(np.str_))


def dataset(multi_label: bool = False, train: int = 200) -> Dataset:
    spec = SIGNS if multi_label else BARS
    counts = {"train": train, "val": 60, "test": 60}
    info = DatasetInfo(spec.name, spec.task, spec.labels, counts, "0" * 64, True, True, "CC0")
    return Dataset(info, *(bars(n, seed, multi_label) for seed, n in enumerate(counts.values())))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint.pt").state_dict()


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, less what the clock has a hand in."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = {"cpu_seconds", "seconds", "images_per_second"}
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def assert_same_run(one: Path, two: Path) -> None:
    """Weights, statistics and metrics agree to the last bit."""
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(value, b[key]), key
    assert metrics(one) == metrics(two)


def train(folder: Path, options: TrainOptions = TRAIN, **more: Any) -> TrainResult:
    return fit(more.pop("data", dataset()), BARS, NETWORK, options, 7, folder, **more)


class Killed(Exception):
    pass


def kill_at(step: int) -> Callable[[StepProgress], None]:
    def on_step(progress: StepProgress) -> None:
        if progress.step == step:
            raise Killed

    return on_step
