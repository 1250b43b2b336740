"""Parallel training as its user starts it: ``--nproc`` and torchrun, killed, interrupted, failing.
Statistics of batch norm by process cost no accuracy. Real processes, so slow."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import children
import numpy as np
import pytest

from pipeline.datasets.arrays import open_dataset
from pipeline.engine.digests import file_sha256
from pipeline.learning.training.checkpoint import load_checkpoint
from pipeline.learning.training.evaluate import probabilities
from runtime.cpu import usable_threads

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.skipif(usable_threads() < 2, reason="not run: --nproc 2 needs two cores"),
]
ROOT = Path(__file__).resolve().parents[3]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--max-restarts", "2")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[[Path], Path]) -> Path:
    return write_tiny(tmp_path_factory.mktemp("recipe"))


class Run:
    """A training of the tiny recipe in a folder and a session of its own."""

    def __init__(
        self,
        folder: Path,
        recipe: Path,
        *words: str,
        launcher: tuple[str, ...] = (),
        shell: tuple[str, ...] = (),
    ):
        pipeline = ["-m", "pipeline", "run", "train", "--recipe", str(recipe), *words]
        self.folder = folder.resolve()
        self.train = folder / "artifacts" / "tiny" / "2_train"
        self.child = children.start(
            *(*shell, sys.executable, *launcher, *pipeline),
            cwd=folder,
            env=children.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for_steps(self) -> None:
        """Returns once a checkpoint of an unfinished training is there."""
        resume = self.train.with_name("2_train.partial") / "resume.pt"
        children.wait_until(resume.exists, self.child)
        assert self.child.poll() is None, self.end()

    def processes(self) -> dict[int, str]:
        """The command lines of the processes that run in its folder, by process id."""
        commands = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (folder / "cwd").readlink() == self.folder:  # a zombie has none
                    commands[int(folder.name)] = (folder / "cmdline").read_text()
            except OSError:  # ended, or another user's
                continue
        return commands

    def kill(self, rank: str) -> None:
        """Kill the process of this rank."""
        for process in self.processes():
            if f"\0RANK={rank}\0" in Path(f"/proc/{process}/environ").read_text():
                os.kill(process, signal.SIGKILL)

    def end(self) -> tuple[int, str]:
        """Exit code and printed text; no process of it may be left."""
        out, _ = self.child.communicate(timeout=children.PATIENCE)
        children.wait_until(lambda: self.processes() == {})
        return self.child.returncode, out


@pytest.fixture(scope="module")
def unbroken(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the checkpoint of two processes, the same by either way to start them."""
    hashes = set()
    for words, launcher in (
        (["--nproc", "2"], ()),
        ([], (*TORCHRUN, "--nproc-per-node", "2")),
    ):
        run = Run(tmp_path_factory.mktemp("unbroken"), recipe, *words, launcher=launcher)
        code, out = run.end()
        assert code == 0, out
        assert out.count("✓ data") == 1  # by one process only
        assert "of 2 processes" in out
        hashes.add(file_sha256(run.train / "checkpoint.pt"))
    assert len(hashes) == 1
    return hashes.pop()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_torchrun_restarts_a_killed_process(
    tmp_path: Path, recipe: Path, unbroken: str, rank: str
) -> None:
    run = Run(tmp_path, recipe, launcher=(*TORCHRUN, "--nproc-per-node", "2"))
    run.wait_for_steps()
    run.kill(rank)
    code, out = run.end()
    assert code == 0, out
    assert "- data       fresh" in out  # the second time
    assert file_sha256(run.train / "checkpoint.pt") == unbroken


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_same_command_resumes_after_a_process_was_killed(
    tmp_path: Path, recipe: Path, unbroken: str, rank: str
) -> None:
    run = Run(tmp_path, recipe, "--nproc", "2")
    run.wait_for_steps()
    run.kill(rank)
    code, out = run.end()
    assert code == 1
    assert len(re.findall(f"process {rank} of 2 .*SIGKILL", out)) == 1, out
    assert "Traceback" not in out
    run = Run(tmp_path, recipe, "--nproc", "2")
    code, out = run.end()
    assert code == 0, out
    assert file_sha256(run.train / "checkpoint.pt") == unbroken


def test_three_processes_resume_with_the_same_bits(tmp_path: Path, recipe: Path) -> None:
    """Sums of three numbers depend on their order, which must not change by a resume."""
    words = ("--set", "train.batch_size=30")
    launcher = (*TORCHRUN, "--nproc-per-node", "3")
    for name in ("unbroken", "broken"):
        (tmp_path / name).mkdir()
        run = Run(tmp_path / name, recipe, *words, launcher=launcher)
        if name == "broken":
            run.wait_for_steps()
            run.child.send_signal(signal.SIGINT)
            assert run.end()[0] != 0
            run = Run(tmp_path / name, recipe, *words, launcher=launcher)
        code, out = run.end()
        assert code == 0, out
    one, two = (
        tmp_path / n / "artifacts" / "tiny" / "2_train" / "checkpoint.pt"
        for n in ("unbroken", "broken")
    )
    assert file_sha256(one) == file_sha256(two)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_launching_process_ends_all(
    tmp_path: Path, recipe: Path, number: int
) -> None:
    run = Run(tmp_path, recipe, "--nproc", "2", "--set", "train.epochs=200")
    run.wait_for_steps()
    assert len(run.processes()) >= 3
    run.child.send_signal(number)
    code, out = run.end()
    assert "Traceback" not in out
    if number == signal.SIGINT:
        assert code == 130
        assert len(re.findall(r"\n +pipeline run train .* --nproc 2", out)) == 1, out
    else:
        assert code == -number


@pytest.mark.parametrize("name", ["INT", "HUP"])
def test_a_signal_that_the_shell_ignores_ends_nothing(
    tmp_path: Path, recipe: Path, unbroken: str, name: str
) -> None:
    """As in the background of a script, and as under nohup when the terminal is closed."""
    ignoring = ("sh", "-c", f"trap '' {name}; exec \"$@\"", "sh")
    run = Run(tmp_path, recipe, "--nproc", "2", shell=ignoring)
    run.wait_for_steps()
    os.killpg(run.child.pid, signal.Signals[f"SIG{name}"])
    code, out = run.end()
    assert code == 0, out
    assert file_sha256(run.train / "checkpoint.pt") == unbroken


def test_an_error_of_all_processes_is_printed_once(tmp_path: Path, recipe: Path) -> None:
    run = Run(tmp_path, recipe, "--nproc", "2", "--set", "train.lr=1e30")
    code, out = run.end()
    assert code == 1
    assert out.count("train.lr, at present 1e+30") == 1
    assert len(re.findall(r"\n +pipeline run train .* --nproc 2", out)) == 1, out
    assert "Traceback" not in out


def test_batch_norm_by_process_costs_no_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the whole of MNIST: the mean over three seeds, since single runs differ by the bound."""
    by_processes = {}
    for processes in (1, 2):
        accuracies = []
        for seed in (0, 1, 2):
            folder = tmp_path / f"{processes}-{seed}"
            command = [sys.executable, "-m", "pipeline", "run", "train", "--recipe", "mnist"]
            command += ["--artifacts", str(folder), "--seed", str(seed)]
            command += ["--nproc", str(processes), "--set", "train.epochs=4"]
            command += ["--set", "train.threads=1"]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            test = open_dataset(folder / "mnist" / "1_data").test
            network = load_checkpoint(folder / "mnist" / "2_train" / "checkpoint.pt")
            right = probabilities(network, test.images).argmax(1) == test.labels
            accuracies.append(100 * float(right.mean()))
        by_processes[processes] = accuracies
    with capsys.disabled():
        print("\n  MNIST, 4 epochs, seeds 0 to 2, test accuracy by number of processes:")
        for processes, accuracies in by_processes.items():
            text = ", ".join(f"{value:.2f}" for value in accuracies)
            print(f"  {processes}: {text}; mean {np.mean(accuracies):.3f} %")
    assert abs(np.mean(by_processes[1]) - np.mean(by_processes[2])) <= 0.1
