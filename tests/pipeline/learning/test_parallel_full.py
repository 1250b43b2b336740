"""Parallel training as its user starts it: ``--nproc`` and torchrun, killed, interrupted, failing;
and that statistics of batch norm by process cost no accuracy. Real processes, so slow."""

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

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
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
            env={**os.environ, "PYTHONPATH": str(ROOT)},
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
        """Those that live and were started in its folder, whoever started them: command lines."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (folder / "cwd").readlink() == self.folder:  # a zombie has none
                    found[int(folder.name)] = (folder / "cmdline").read_text()
            except OSError:  # gone by now, or someone else's
                continue
        return found

    def rank(self, process: int) -> str | None:
        text = Path(f"/proc/{process}/environ").read_text()
        return next((v[5:] for v in text.split("\0") if v.startswith("RANK=")), None)

    def end(self) -> tuple[int, str]:
        """Exit code and all that was printed; nothing of it may live on."""
        out, _ = self.child.communicate(timeout=children.PATIENCE)
        children.wait_until(lambda: self.processes() == {})
        return self.child.returncode, out


@pytest.fixture(scope="module")
def unbroken(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of what two processes come to, by either way to start them."""
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
def test_torchrun_replaces_who_is_killed(
    tmp_path: Path, recipe: Path, unbroken: str, rank: str
) -> None:
    run = Run(tmp_path, recipe, launcher=(*TORCHRUN, "--nproc-per-node", "2"))
    run.wait_for_steps()
    os.kill(next(p for p in run.processes() if run.rank(p) == rank), signal.SIGKILL)
    code, out = run.end()
    assert code == 0, out
    assert "- data       fresh" in out  # the second time
    assert file_sha256(run.train / "checkpoint.pt") == unbroken


def test_three_processes_go_on_with_the_same_bits(tmp_path: Path, recipe: Path) -> None:
    """Sums of three numbers depend on their order, which must not change by a resume."""
    words = ("--nproc", "3", "--set", "train.batch_size=30")
    for name in ("unbroken", "broken"):
        (tmp_path / name).mkdir()
        run = Run(tmp_path / name, recipe, *words)
        if name == "broken":
            run.wait_for_steps()
            run.child.send_signal(signal.SIGINT)
            assert run.end()[0] == 130
            run = Run(tmp_path / name, recipe, *words)
        code, out = run.end()
        assert code == 0, out
    one, two = (
        tmp_path / n / "artifacts" / "tiny" / "2_train" / "checkpoint.pt"
        for n in ("unbroken", "broken")
    )
    assert file_sha256(one) == file_sha256(two)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_ends_the_first_process_ends_its_workers(
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
        assert re.search(r"To go on from here:\n +pipeline run train .* --nproc 2", out), out
    else:
        assert code == -number


@pytest.mark.parametrize("name", ["INT", "HUP"])
def test_a_signal_that_the_shell_has_ignored_ends_nothing(
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


def test_an_error_that_would_repeat_itself_is_told_once(tmp_path: Path, recipe: Path) -> None:
    run = Run(tmp_path, recipe, "--nproc", "2", "--set", "train.lr=1e30")
    code, out = run.end()
    assert code == 1
    assert out.count("Lower train.lr") == 1
    assert "Traceback" not in out


def test_batch_norm_by_process_costs_no_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the whole of MNIST: the mean over three seeds, since one run differs from another of the
    same kind by as much as is asked for."""
    answers = {}
    for processes in (1, 2):
        found = []
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
            found.append(100 * float(right.mean()))
        answers[processes] = found
    with capsys.disabled():
        print("\n  MNIST, 4 epochs, seeds 0 to 2, test accuracy by number of processes:")
        for processes, found in answers.items():
            text = ", ".join(f"{value:.2f}" for value in found)
            print(f"  {processes}: {text}; mean {np.mean(found):.3f} %")
    assert abs(np.mean(answers[1]) - np.mean(answers[2])) <= 0.1
