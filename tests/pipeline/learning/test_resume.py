"""A killed training continues and ends with the same bits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import children
import pytest
import torch
from bars import (
    TRAIN,
    Killed,
    assert_same_run,
    dataset,
    kill_at,
    metrics,
    train,
)
from full_disk import full_disk

from pipeline.datasets.arrays import (
    open_dataset,
    write_info,
    write_split,
)
from pipeline.errors import TrainError
from pipeline.learning.training import device as device_module
from pipeline.learning.training import fit as fit_module
from pipeline.learning.training.results import StepProgress


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    train(folder)
    return folder


# --- it resumes -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 12, 17, 24, 36])  # an epoch has 12 steps
def test_a_broken_run_ends_with_the_same_bits(tmp_path: Path, unbroken: Path, step: int) -> None:
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_at(step))
    torch.rand(5)  # between the two, outside of training
    seen: list[int] = []
    result = train(tmp_path, on_step=lambda p: seen.append(p.step))
    assert result.resumed
    assert result.notes == ()
    assert seen == list(range(step + 1, 37))
    assert_same_run(unbroken, tmp_path)


def test_a_finished_run_has_nothing_to_do(tmp_path: Path, unbroken: Path) -> None:
    """Its caller may have failed after it."""
    first = train(tmp_path)
    again = train(tmp_path, on_step=kill_at(1))
    assert again.resumed
    assert again.val_accuracy_percent == first.val_accuracy_percent
    assert_same_run(unbroken, tmp_path)


@pytest.mark.parametrize(
    ("instructions", "then"), [(True, "bfloat16"), (False, "float32")], ids=["same", "other CPU"]
)
def test_a_resumed_run_keeps_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instructions: bool, then: str
) -> None:
    """A second measurement does not matter, as long as this CPU has the instructions."""
    options = TRAIN.model_copy(update={"precision": "auto"})
    monkeypatch.setattr(device_module, "bfloat16_pays", lambda: True)
    monkeypatch.setattr(fit_module, "bfloat16_instructions", lambda: instructions)
    with pytest.raises(Killed):
        train(tmp_path, options, on_step=kill_at(8))
    monkeypatch.setattr(device_module, "bfloat16_pays", lambda: False)
    result = train(tmp_path, options)
    assert (result.resumed, result.precision) == (True, then)
    expected = [] if instructions else ["precision float32 after bfloat16"]
    notes = [re.findall("precision .* after [^:]*", note)[0] for note in result.notes]
    assert notes == expected


def test_two_threads_repeat_their_bits(tmp_path: Path) -> None:
    # one epoch only: on a busy machine two threads spend most of the time waiting for each other
    two = TRAIN.model_copy(update={"threads": 2, "optimizer": "adamw", "lr": 0.01, "epochs": 1})
    train(tmp_path / "unbroken", two)
    with pytest.raises(Killed):
        train(tmp_path / "broken", two, on_step=kill_at(6))
    assert train(tmp_path / "broken", two).notes == ()
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


def test_only_the_steps_after_the_last_checkpoint_are_lost(tmp_path: Path, unbroken: Path) -> None:
    """A checkpoint of step 14 continues a run that got to step 30, and no epoch appears twice."""
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_at(14))
    kept = (tmp_path / "resume.pt").read_bytes()
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_at(30))
    assert len(metrics(tmp_path)) == 2
    (tmp_path / "resume.pt").write_bytes(kept)
    train(tmp_path)
    assert_same_run(unbroken, tmp_path)


def test_kill_9_in_mid_epoch_changes_nothing(tmp_path: Path, unbroken: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    splits = dataset()
    for name in ("train", "val", "test"):
        write_split(data, name, getattr(splits, name))
    write_info(data, splits.info)
    process = children.start_script("train_bars.py", data, out, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 19:
            process.send_signal(signal.SIGKILL)
            break
    process.wait(timeout=children.PATIENCE)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "checkpoint.pt").exists()
    result = train(out, data=open_dataset(data))
    assert result.resumed
    assert_same_run(unbroken, out)


def test_another_number_of_threads_resumes_with_a_note(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_at(30))
    result = train(tmp_path, TRAIN.model_copy(update={"threads": 2}))
    assert result.resumed
    assert result.threads == 2
    (note,) = result.notes
    assert re.search("step 30 .*threads 2 after 1.* not bit-equal", note)
    assert len(metrics(tmp_path)) == 3


@pytest.mark.parametrize("size", [0, 1, 1000, -1])
def test_a_truncated_checkpoint_is_set_aside(tmp_path: Path, unbroken: Path, size: int) -> None:
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_at(5))
    path = tmp_path / "resume.pt"
    path.write_bytes(path.read_bytes()[:size])
    result = train(tmp_path)
    assert not result.resumed
    assert re.search(r"resume\.pt .*resume\.damaged\.pt", result.notes[0])
    assert (tmp_path / "resume.damaged.pt").exists()
    assert_same_run(unbroken, tmp_path)


def test_a_checkpoint_of_another_recipe_is_set_aside(tmp_path: Path, unbroken: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, TRAIN.model_copy(update={"lr": 0.2}), on_step=kill_at(5))
    kept = (tmp_path / "resume.pt").read_bytes()
    result = train(tmp_path)
    assert not result.resumed
    assert re.search(r"resume\.pt .*train\.lr.*resume\.other\.pt", result.notes[0])
    assert (tmp_path / "resume.other.pt").read_bytes() == kept
    assert_same_run(unbroken, tmp_path)


def test_times_add_up_over_resumes(tmp_path: Path) -> None:
    def slow(progress: StepProgress) -> None:
        time.sleep(0.02)
        kill_at(20)(progress)

    with pytest.raises(Killed):
        train(tmp_path, on_step=slow)
    assert train(tmp_path).wall_seconds > 0.38


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX")
def test_a_full_disk_is_named_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_at(5))
    before = (tmp_path / "resume.pt").read_bytes()
    with full_disk(), pytest.raises(TrainError, match=r"resume\.pt \([\d,]+ bytes\)"):
        train(tmp_path)
    assert (tmp_path / "resume.pt").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.jsonl", "resume.pt"]
