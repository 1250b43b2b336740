"""Freed memory is kept during training and returned after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.learning.training import memory

FAULTS = """
import resource
import numpy
from pipeline.learning.training.memory import freed_memory_is_kept

def faults():  # of 200 blocks of 2 MB that are asked for, written and freed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        numpy.ones(250_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

numpy.ones(500_000)  # glibc's own rule: what is freed once is kept from then on
print(faults())
with freed_memory_is_kept():
    print(faults())
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="not run: glibc's allocator is Linux's")
def test_freed_memory_is_kept_and_leaves_the_process_no_slower() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, cwd=root
    )
    before, during, after = map(int, done.stdout.split())
    assert during <= 5000  # each block's 489 pages, 200 times, were 97,800
    assert after <= before + 5000


def test_freed_memory_is_given_back_after_training(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int, int]] = []

    class Libc:
        def mallopt(self, option: int, value: int) -> None:
            calls.append(("mallopt", option, value))

        def malloc_trim(self, pad: int) -> None:
            calls.append(("trim", pad, 0))

    monkeypatch.setattr(memory, "glibc", Libc)
    with memory.freed_memory_is_kept():
        assert len(calls) == 3
    assert calls[-1] == ("trim", 0, 0)
    before = len(calls)
    monkeypatch.setattr(memory, "glibc", lambda: None)  # not Linux, or musl
    with memory.freed_memory_is_kept():
        pass
    assert len(calls) == before
