"""Several processes train one network: the same gradients, one writer, and whoever is killed is
replaced. Real processes, joined by gloo."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import children
import pytest
import torch
from bars import (
    BARS,
    NETWORK,
    TRAIN,
    assert_same_run,
    dataset,
    metrics,
    train,
)
from click.testing import CliRunner
from two_processes import PLAIN, gradients

from pipeline.cli.main import cli
from pipeline.datasets.arrays import write_info, write_split
from pipeline.errors import RecipeError, TrainError
from pipeline.learning.distributed.launch import Job, run_job
from pipeline.learning.distributed.parallel import ALONE, World
from pipeline.learning.training import fit as fit_module
from pipeline.learning.training.evaluate import judge
from pipeline.learning.training.fit import StepProgress
from pipeline.processes import Place, check_batch, launched_place
from pipeline.recipe import TrainOptions


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    splits = dataset()
    for name in ("train", "val", "test"):
        write_split(folder, name, getattr(splits, name))
    write_info(folder, splits.info)
    return folder


def job(data: Path, folder: Path, options: TrainOptions = TRAIN) -> Job:
    return Job(data, BARS, NETWORK, options, 7, folder)


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    seen: list[StepProgress] = []
    notes: list[str] = []
    result = run_job(job(data, folder), 2, seen.append, notes.append)
    assert (result.processes, result.threads, result.epochs) == (2, 1, 3)
    assert not result.resumed
    assert notes == []
    assert seen[-1].step == 36
    assert 0 < result.cpu_seconds < 60
    names = ["checkpoint.pt", "metrics.jsonl", "resume.pt"]
    assert sorted(p.name for p in folder.iterdir()) == names
    return folder


def kill_a_worker_at(step: int) -> Callable[[StepProgress], None]:
    killed: list[int] = []

    def on_step(progress: StepProgress) -> None:
        if progress.step >= step and not killed:
            killed.append(multiprocessing.active_children()[-1].pid or 0)
            os.kill(killed[0], signal.SIGKILL)

    return on_step


def test_a_killed_worker_is_replaced_and_nothing_changes(
    data: Path, tmp_path: Path, unbroken: Path
) -> None:
    notes: list[str] = []
    result = run_job(job(data, tmp_path), 2, kill_a_worker_at(5), notes.append)
    assert result.resumed
    assert len(notes) == 1
    assert "a worker process was lost; all go on from the last checkpoint (restart 1 " in notes[0]
    assert_same_run(unbroken, tmp_path)
    assert multiprocessing.active_children() == []


def test_a_time_limit_holds_for_all_processes_and_lets_the_rate_fall(
    data: Path, tmp_path: Path
) -> None:
    rates: list[float] = []
    changes = {"epochs": 100_000, "max_minutes": 0.03, "checkpoint_seconds": 60.0}
    options = TRAIN.model_copy(update=changes)
    result = run_job(
        job(data, tmp_path, options), 2, lambda progress: rates.append(progress.lr), print
    )
    assert not result.complete
    assert not result.resumed
    assert result.epochs < 100_000
    assert metrics(tmp_path)[-1]["lr"] < max(rates)  # how small is up to the machine's mood


def test_what_nobody_foresaw_is_told_once(data: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    options = TRAIN.model_copy(update={"threads": -1})  # a recipe refuses it
    with pytest.raises(TrainError, match=r"worker \d of 2 failed with RuntimeError: .*threads"):
        run_job(job(data, tmp_path, options), 2, print, notes.append)
    assert len(notes) <= 1


def test_a_reader_of_progress_that_fails_stops_nobody(data: Path, tmp_path: Path) -> None:
    def on_step(progress: StepProgress) -> None:
        raise BrokenPipeError("nobody reads this")

    with pytest.raises(BrokenPipeError, match="nobody reads this"):
        run_job(job(data, tmp_path), 2, on_step, print)
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left, a folder for each way to exchange gradients."""
    folder = tmp_path_factory.mktemp("exchanged")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [
        "--nproc-per-node",
        "2",
        str(Path(children.__file__).with_name("two_processes.py")),
        str(folder),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=children.PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("by", ["memory", "sockets"])
def test_two_processes_have_the_gradients_of_one_and_only_the_first_writes(
    exchanged: Path, by: str
) -> None:
    alone = gradients(ALONE)
    for rank in "01":
        together = torch.load(exchanged / by / rank / "gradients.pt")
        assert together.keys() == alone.keys()
        for name, value in alone.items():
            assert value.abs().max() > 1e-4
            torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-7)
    assert sorted(p.name for p in (exchanged / by / "0" / "fit").iterdir()) == [
        "checkpoint.pt",
        "metrics.jsonl",
        "resume.pt",
    ]
    assert not (exchanged / by / "1" / "fit").exists()


# --- without processes --------------------------------------------------------------------------


def test_shares_and_parts_cover_everything_once() -> None:
    splits = dataset()
    worlds = [World(Place(rank, 4, rank, 4)) for rank in range(4)]
    order = fit_module.EpochOrder(200, 0, 0, 1000, 1).part(0, 40)
    assert [i for world in worlds for i in world.share(order)] == order.tolist()
    ids = [name for world in worlds for name in world.part(splits.val).ids]
    assert ids == splits.val.ids.tolist()


def test_a_part_without_images_counts_for_nothing() -> None:
    network = fit_module.build_network(PLAIN, BARS)
    split = dataset().val
    none = World(Place(0, 100, 0, 100)).part(split)
    assert len(none) == 0
    told: list[float] = []
    judge(network, none, "cpu", lambda value: told.append(value) or 1.0)
    assert told == [0, 0, 0]


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, Place(0, 1, 0, 1)),
        ({"WORLD_SIZE": "4"}, Place(0, 1, 0, 1)),  # a shell may export one
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
            Place(5, 8, 1, 4),
        ),
    ],
)
def test_the_launcher_says_where_a_process_stands(variables: dict[str, str], place: Place) -> None:
    assert launched_place(variables) == place


def test_a_launcher_that_talks_nonsense_is_named() -> None:
    with pytest.raises(RecipeError, match=r"RANK='one'.* expected whole numbers"):
        launched_place({"RANK": "one", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(("batch", "processes"), [(128, 1), (128, 2), (6, 3)])
def test_a_batch_is_divided(batch: int, processes: int) -> None:
    check_batch(batch, processes)


@pytest.mark.parametrize(("batch", "processes", "hint"), [(128, 3, 129), (2, 2, 4), (10, 8, 16)])
def test_a_batch_that_cannot_be_divided_is_refused(batch: int, processes: int, hint: int) -> None:
    with pytest.raises(
        RecipeError,
        match=rf"{batch} is the batch of all .* among {processes}. Set "
        rf"train.batch_size={hint}",
    ):
        check_batch(batch, processes)
    check_batch(hint, processes)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, r"cannot be divided evenly, .* among 3. Set train.batch_size=21"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, r"--nproc 3: torchrun has started 2 processes already"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path,
    write_tiny: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    message: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    words = ["run", "train", "--nproc", "3", "--recipe", str(write_tiny(tmp_path))]
    done = CliRunner().invoke(cli, [*words, "--artifacts", str(tmp_path / "artifacts")])
    assert done.exit_code == 2
    assert re.search(message, " ".join(done.output.split())), done.output
    assert not (tmp_path / "artifacts").exists()


class Two(World):
    """Two processes, of which the other one is always as this one."""

    size = 2

    def gather(self, value):
        return [value, value]

    def agree(self, value):
        return value

    def agree_number(self, value):
        return value

    def average(self, networks):
        pass

    def logits_of(self, network):
        return network.logits


class Killed(Exception):
    pass


def killed_at(step: int) -> Callable[[StepProgress], None]:
    def on_step(progress: StepProgress) -> None:
        if progress.step == step:
            raise Killed

    return on_step


def test_checkpoints_are_written_where_epochs_have_few_steps(tmp_path: Path) -> None:
    """Processes agree every 16 steps; an epoch has 12 here."""
    options = TRAIN.model_copy(update={"checkpoint_seconds": 0.001})
    with pytest.raises(Killed):
        train(tmp_path, options, on_step=killed_at(20), world=Two(Place()))
    assert (tmp_path / "resume.pt").exists()


def test_more_processes_than_images(tmp_path: Path) -> None:
    few = dataset()
    few = replace(few, train=World(Place(0, 67, 0, 67)).part(few.train))
    with pytest.raises(TrainError, match=r"2 images to train with, and 2 processes; expected two"):
        fit_module.fit(few, BARS, NETWORK, TRAIN, 7, tmp_path, world=Two(Place()))


def test_another_number_of_processes_goes_on_and_says_so(tmp_path: Path) -> None:
    """What two processes left is taken over by one."""

    with pytest.raises(Killed):
        train(tmp_path, on_step=killed_at(14), world=Two(Place()))
    result = train(tmp_path)
    assert result.resumed
    assert result.notes == (
        "resumed at step 14 with processes 1 after 2: the result is as good, but not bit-equal to "
        "an unbroken run",
    )
    assert len(metrics(tmp_path)) == 3
