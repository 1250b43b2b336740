"""Several processes train one network: the same gradients, one writer, and a killed one is
restarted. Real processes, joined by gloo."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import children
import pytest
import torch
from bars import BARS, NETWORK, TRAIN, assert_same_run, dataset, metrics, train
from click.testing import CliRunner
from two_processes import PLAIN, gradients

from pipeline.cli.main import cli
from pipeline.errors import RecipeError, TrainError
from pipeline.learning.distributed.launch import exit_code
from pipeline.learning.distributed.world import ALONE, World
from pipeline.learning.training import fit as fit_module
from pipeline.learning.training.evaluate import validate
from pipeline.learning.training.results import StepProgress
from pipeline.processes import ProcessRank, check_batch, launched_process


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each of two processes; one of them was killed and restarted on the way."""
    folder = tmp_path_factory.mktemp("two")
    script = children.SUPPORT / "two_processes.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--max-restarts", "1", str(script), str(folder)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=children.PATIENCE,
        env=children.environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "exitcode: -9" in done.stderr
    return folder


def test_two_processes_have_the_gradients_of_one(two_processes: Path) -> None:
    alone = gradients(ALONE)
    for rank in "01":
        together = torch.load(two_processes / rank / "gradients.pt")
        assert together.keys() == alone.keys()
        for name, value in alone.items():
            assert value.abs().max() > 1e-4
            torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-7)


def test_the_first_process_alone_writes(two_processes: Path) -> None:
    for folder in ("unbroken", "killed"):
        names = sorted(p.name for p in (two_processes / "0" / folder).iterdir())
        assert names == ["checkpoint.pt", "metrics.jsonl", "resume.pt"]
        assert not (two_processes / "1" / folder).exists()


def test_a_killed_process_is_restarted_and_nothing_changes(two_processes: Path) -> None:
    assert_same_run(two_processes / "0" / "unbroken", two_processes / "0" / "killed")


# --- without processes --------------------------------------------------------------------------


def test_shares_and_parts_cover_everything_once() -> None:
    splits = dataset()
    worlds = [World(ProcessRank(rank, 4, rank, 4)) for rank in range(4)]
    order = fit_module.EpochOrder(200, 0, 0, 1000, 1).part(0, 40)
    assert [i for world in worlds for i in world.share(order)] == order.tolist()
    ids = [name for world in worlds for name in world.part(splits.val).ids]
    assert ids == splits.val.ids.tolist()


def test_a_part_without_images_counts_for_nothing() -> None:
    network = fit_module.build_network(PLAIN, BARS)
    split = dataset().val
    none = World(ProcessRank(0, 100, 0, 100)).part(split)
    assert len(none) == 0
    summands: list[float] = []
    validate(network, none, "cpu", lambda value: summands.append(value) or 1.0)
    assert summands == [0, 0, 0]


@pytest.mark.parametrize(
    ("variables", "process"),
    [
        ({}, ProcessRank()),
        ({"WORLD_SIZE": "4"}, ProcessRank()),  # a shell may export one
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
            ProcessRank(5, 8, 1, 4),
        ),
    ],
)
def test_the_launcher_sets_the_rank_of_a_process(
    variables: dict[str, str], process: ProcessRank
) -> None:
    assert launched_process(variables) == process


def test_a_launcher_that_sets_no_numbers_is_refused() -> None:
    with pytest.raises(RecipeError, match="RANK='one'"):
        launched_process({"RANK": "one", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(("batch", "processes"), [(128, 1), (128, 2), (6, 3)])
def test_a_batch_is_divided(batch: int, processes: int) -> None:
    check_batch(batch, processes)


@pytest.mark.parametrize(("batch", "processes", "hint"), [(128, 3, 129), (2, 2, 4), (10, 8, 16)])
def test_a_batch_that_cannot_be_divided_is_refused(batch: int, processes: int, hint: int) -> None:
    with pytest.raises(
        RecipeError,
        match=rf"batch_size = {batch} .* among {processes}.* train.batch_size={hint}",
    ):
        check_batch(batch, processes)
    check_batch(hint, processes)


@pytest.mark.parametrize(
    ("cores", "variables", "message"),
    [
        (3, {}, "among 3.* train.batch_size=21"),
        (2, {}, "--nproc 3.* 2 cores.* --nproc 2"),
        (3, {"RANK": "1", "WORLD_SIZE": "2"}, "--nproc 3.* torchrun .* 2 processes"),
    ],
)
def test_processes_that_cannot_train_together_are_refused_before_anything_runs(
    tmp_path: Path,
    write_tiny: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    variables: dict[str, str],
    message: str,
) -> None:
    monkeypatch.setattr("runtime.cpu.usable_threads", lambda: cores)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    words = ["run", "train", "--nproc", "3", "--recipe", str(write_tiny(tmp_path))]
    done = CliRunner().invoke(cli, [*words, "--artifacts", str(tmp_path / "artifacts")])
    assert done.exit_code == 2
    assert re.search(message, " ".join(done.output.split())), done.output
    assert not (tmp_path / "artifacts").exists()


@dataclass(frozen=True)
class Ended:
    """A process that failed, as torchrun reports it."""

    exitcode: int

    def signal_name(self) -> str:
        return signal.Signals(-self.exitcode).name


@pytest.mark.parametrize(
    ("exit_codes", "expected"),
    [
        ({0: 2}, 2),
        ({0: 1, 1: 3}, 3),
        ({1: 1, 0: -signal.SIGTERM}, 1),  # torchrun stops the others with SIGTERM
    ],
)
def test_the_exit_code_is_that_of_the_process_that_failed(
    exit_codes: dict[int, int], expected: int
) -> None:
    failures = {rank: Ended(code) for rank, code in exit_codes.items()}
    assert exit_code(failures, 2) == expected


@pytest.mark.parametrize(
    ("exit_codes", "message"),
    [
        ({1: -signal.SIGKILL, 0: -signal.SIGTERM}, "process 1 of 2 .*SIGKILL.* memory.*"),
        ({0: 1, 1: -signal.SIGSEGV}, "process 1 of 2 .*SIGSEGV"),
        ({0: -signal.SIGTERM}, "process 0 of 2 .*SIGTERM"),
    ],
)
def test_a_killed_process_is_named(exit_codes: dict[int, int], message: str) -> None:
    failures = {rank: Ended(code) for rank, code in exit_codes.items()}
    with pytest.raises(TrainError, match=message):
        exit_code(failures, 2)


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
        train(tmp_path, options, on_step=killed_at(20), world=Two(ProcessRank()))
    assert (tmp_path / "resume.pt").exists()


def test_a_time_limit_holds_for_all_processes_and_lowers_the_rate(tmp_path: Path) -> None:
    rates: list[float] = []
    changes = {"epochs": 100_000, "max_minutes": 0.03, "checkpoint_seconds": 60.0}
    result = train(
        tmp_path,
        TRAIN.model_copy(update=changes),
        on_step=lambda progress: rates.append(progress.lr),
        world=Two(ProcessRank()),
    )
    assert not result.complete
    assert not result.resumed
    assert result.epochs < 100_000
    assert metrics(tmp_path)[-1]["lr"] < max(rates)  # how small depends on the machine's load


def test_more_processes_than_images(tmp_path: Path) -> None:
    few = dataset()
    few = replace(few, train=World(ProcessRank(0, 67, 0, 67)).part(few.train))
    with pytest.raises(TrainError, match=r"2 images.* 2 processes"):
        fit_module.fit(few, BARS, NETWORK, TRAIN, 7, tmp_path, world=Two(ProcessRank()))


def test_another_number_of_processes_resumes_with_a_note(tmp_path: Path) -> None:
    """One process resumes what two have left."""
    with pytest.raises(Killed):
        train(tmp_path, on_step=killed_at(14), world=Two(ProcessRank()))
    result = train(tmp_path)
    assert result.resumed
    (note,) = result.notes
    assert re.search("step 14 .*processes 1 after 2.* not bit-equal", note)
    assert len(metrics(tmp_path)) == 3
