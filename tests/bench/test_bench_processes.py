"""How much faster two processes train than one, each held to a core of its own. Through the command
line, as its user starts it; rates are those of ``metrics.jsonl``, without start and validation."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="not run: needs Linux"),
]
ROOT = Path(__file__).resolve().parents[2]
TIMES = 1.6  # the throughput of one process on one core, at least
TURNS, EPOCHS = 3, 2


def images_per_second(name: str, processes: int, cores: set[int], folder: Path) -> float:
    """Of the best epoch, on these cores; one thread for each process."""
    command = [sys.executable, "-m", "pipeline", "run", "train", "--force", "--recipe", name]
    command += ["--artifacts", str(folder), "--nproc", str(processes), "--device", "cpu"]
    command += ["--set", f"train.epochs={EPOCHS}", "--set", "train.threads=1"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (folder / name / "2_train" / "metrics.jsonl").read_text().splitlines()
    return max(float(json.loads(line)["images_per_second"]) for line in lines)


@pytest.mark.parametrize("name", ["mnist", "celeba"])
def test_two_processes_on_two_cores(name: str, tmp_path: Path, show: Any) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("not run: this process may use one core only")
    found = []
    for _ in range(TURNS):  # in turns, so that a busy neighbour disturbs both
        one = images_per_second(name, 1, {cores[0]}, tmp_path)
        two = images_per_second(name, 2, set(cores), tmp_path)
        found.append((two / one, one, two))
    ratio, one, two = (statistics.median(column) for column in zip(*found, strict=True))
    show(
        f"Images per second of training {name}, one thread for each process (median of {TURNS} "
        "turns)",
        ("one process on one core", "two on two", "times", "bound"),
        [(f"{one:,.0f}", f"{two:,.0f}", f"{ratio:.2f}", f"{TIMES}")],
    )
    assert ratio >= TIMES
