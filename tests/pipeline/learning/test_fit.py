"""Training learns, chooses by validation, keeps to its time and refuses what does not fit."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from bars import (
    NETWORK,
    SIGNS,
    TRAIN,
    bars,
    dataset,
    metrics,
    train,
    weights,
)

from pipeline.datasets.arrays import (
    Dataset,
)
from pipeline.errors import TrainError
from pipeline.learning.training import clock as clock_module
from pipeline.learning.training import device as device_module
from pipeline.learning.training import fit as fit_module
from pipeline.learning.training.checkpoint import load_checkpoint
from pipeline.learning.training.device import bfloat16_pays
from pipeline.learning.training.evaluate import probabilities
from pipeline.learning.training.fit import fit
from pipeline.learning.training.results import StepProgress

# --- it learns --------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_multi_class_is_learned(tmp_path: Path, optimizer: str) -> None:
    data = dataset(train=600)
    lr = 0.1 if optimizer == "sgd" else 0.01
    options = TRAIN.model_copy(
        update={"epochs": 6, "checkpoint_seconds": 60, "optimizer": optimizer, "lr": lr}
    )
    seen: list[StepProgress] = []
    before = torch.get_num_threads(), torch.get_rng_state()
    result = train(tmp_path, options, data=data, on_step=seen.append)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])

    answer = probabilities(load_checkpoint(tmp_path / "checkpoint.pt"), data.test.images)
    assert (answer.argmax(1) == data.test.labels).mean() > 0.95
    assert result.val_accuracy_percent > 95
    assert (result.epochs, result.device, result.threads) == (6, "cpu", 1)
    assert not result.resumed
    assert result.notes == ()
    assert result.parameters == 8 * 9 + 16 + 64 * 9 + 16 + 27
    assert 0 < result.cpu_seconds < 60
    assert [p.step for p in seen] == list(range(1, 6 * 37 + 1))
    assert (seen[-1].steps, seen[-1].epoch, seen[-1].epochs) == (6 * 37, 6, 6)
    assert seen[0].val_accuracy_percent is None
    assert seen[-1].val_accuracy_percent == metrics(tmp_path)[4]["val_accuracy_percent"]
    names = ["checkpoint.pt", "metrics.jsonl", "resume.pt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_multi_label_is_learned(tmp_path: Path) -> None:
    data = dataset(multi_label=True, train=600)
    options = TRAIN.model_copy(update={"epochs": 6, "checkpoint_seconds": 60})
    result = fit(data, SIGNS, NETWORK, options, 0, tmp_path)
    answer = probabilities(load_checkpoint(tmp_path / "checkpoint.pt"), data.test.images)
    assert ((answer > 0.5) == data.test.labels).mean() > 0.95
    assert result.val_accuracy_percent > 95  # the mean over both labels


def test_the_best_epoch_by_validation_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epoch 2: of two equal accuracies the one with the smaller loss."""
    validations = iter([(0.5, 60.0), (0.4, 90.0), (0.6, 90.0)])  # (loss, accuracy)
    states: list[dict[str, torch.Tensor]] = []

    def validate(network: torch.nn.Module, *_: object) -> tuple[float, float]:
        states.append({k: v.clone() for k, v in network.state_dict().items()})
        return next(validations)

    monkeypatch.setattr(fit_module, "validate", validate)
    result = train(tmp_path)
    assert (result.best_epoch, result.val_accuracy_percent) == (2, 90.0)
    for key, value in weights(tmp_path).items():
        assert torch.equal(value, states[1][key])


# --- a time limit -------------------------------------------------------------------------------


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two milliseconds pass between two readings of the clock, on any machine."""
    readings = count()
    clock = SimpleNamespace(
        perf_counter=lambda: 0.002 * next(readings), process_time=time.process_time
    )
    monkeypatch.setattr(fit_module, "time", clock)
    monkeypatch.setattr(clock_module, "time", clock)


@pytest.mark.usefixtures("steady_clock")
def test_a_time_limit_ends_training_with_a_small_rate_and_a_note(tmp_path: Path) -> None:
    rates: list[float] = []
    result = train(
        tmp_path,
        TRAIN.model_copy(update={"epochs": 100_000, "max_minutes": 0.03}),
        on_step=lambda progress: rates.append(progress.lr),
    )
    assert not result.complete
    assert result.epochs < 100_000
    assert "INCOMPLETE: train.max_minutes = 0.03" in " ".join(result.notes)
    assert max(rates) > 0.9 * TRAIN.lr
    assert rates[-1] < 0.2 * TRAIN.lr
    assert (tmp_path / "checkpoint.pt").exists()
    assert train(tmp_path / "whole").complete


def test_a_run_killed_after_its_time_limit_is_validated_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TRAIN.model_copy(update={"max_minutes": 1e-6, "checkpoint_seconds": 0})

    class Killed(Exception):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(fit_module, "validate", die)
        with pytest.raises(Killed):
            train(tmp_path, options)
    assert (tmp_path / "resume.pt").exists()
    result = train(tmp_path, options)
    assert result.resumed and not result.complete
    assert (result.epochs, result.best_epoch) == (1, 1)


@pytest.mark.usefixtures("steady_clock")
def test_labels_are_trimmed_by_time_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    loss = fit_module.training_loss

    def spy(*args: Any) -> torch.Tensor:
        seen.append(args[-1])
        return loss(*args)

    monkeypatch.setattr(fit_module, "training_loss", spy)
    changes = {"epochs": 100_000, "max_minutes": 0.03, "trim": 0.1}
    train(tmp_path, TRAIN.model_copy(update=changes))
    assert seen[0] == 0 and seen[-1] == 0.1


def test_precision_is_as_requested(tmp_path: Path) -> None:
    for requested in ("float32", "bfloat16"):
        result = train(tmp_path / requested, TRAIN.model_copy(update={"precision": requested}))
        assert result.precision == requested
    auto = TRAIN.model_copy(update={"precision": "auto"})
    precision = train(tmp_path / "auto", auto).precision
    assert precision == ("bfloat16" if bfloat16_pays() else "float32")


@pytest.mark.parametrize(
    ("capability", "seconds", "pays"),
    [
        ("avx512_bf16", {torch.bfloat16: 1.0, torch.float32: 1.7}, True),
        ("amx_tile", {torch.bfloat16: 0.2, torch.float32: 1.7}, True),
        ("avx512_bf16", {torch.bfloat16: 3.2, torch.float32: 1.7}, False),
        ("avx512_bf16", {torch.bfloat16: 1.0, torch.float32: 1.1}, False),  # not worth it
        ("avx2", {}, False),  # not measured: without instructions it takes seconds
    ],
)
def test_bfloat16_is_used_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, capability: str, seconds: dict[torch.dtype, float], pays: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    monkeypatch.setattr(device_module, "product_seconds", lambda matrix: seconds[matrix.dtype])
    assert bfloat16_pays.__wrapped__() == pays


# --- it refuses -------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_at_once(tmp_path: Path) -> None:
    options = TRAIN.model_copy(update={"lr": 1e30, "checkpoint_seconds": 60.0})
    with pytest.raises(TrainError, match=r"(nan|inf) at step \d of 36 .*train\.lr"):
        train(tmp_path, options)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_cuda_device_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r'train\.device = "cuda".* torch .*"auto"'):
        train(tmp_path, TRAIN.model_copy(update={"device": "cuda"}))


def _with(**changes: Any) -> Dataset:
    data = dataset()
    return replace(data, **{k: replace(getattr(data, k), **v) for k, v in changes.items()})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (replace(dataset(), val=bars(0, 0)), "val split .* 0 .* 1"),
        (replace(dataset(), train=bars(1, 0)), "train split .* 1 .* 2"),
        (
            _with(train={"images": np.zeros((200, 12, 12, 3), np.uint8)}),
            r"train images .*uint8 \(12, 12, 3\).*uint8 \(12, 12, 1\)",
        ),
        (_with(val={"images": np.zeros((60, 12, 12, 1))}), "val images .*float64"),
        (_with(val={"labels": np.full(60, 3)}), "val labels .* 3 to 3.* 0 to 2"),
        (
            _with(train={"labels": np.zeros((200, 2), np.uint8)}),
            r"train .*\(200, 2\).*\(200,\)",
        ),
    ],
)
def test_data_that_contradict_the_spec_are_named(
    tmp_path: Path, data: Dataset, message: str
) -> None:
    with pytest.raises(TrainError, match=message):
        train(tmp_path, data=data)
