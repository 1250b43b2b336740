"""Cores and instruction sets, read from made-up systems."""

from __future__ import annotations

import os
import platform
import sys
import threading
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from runtime.cpu import cpu_target, cpu_targets, startable_threads, usable_threads


def system(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return f"{root}/"


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu"
MANY = 64
QUOTAS: dict[str, tuple[dict[str, str], int]] = {
    "no cgroups": ({}, MANY),
    "v2 without a limit": ({"proc/self/cgroup": "0::/a\n", f"{V2}/a/cpu.max": "max 100000"}, MANY),
    "v2 half a core": ({"proc/self/cgroup": "0::/a\n", f"{V2}/a/cpu.max": "50000 100000"}, 1),
    "v2 two and a half": ({"proc/self/cgroup": "0::/a\n", f"{V2}/a/cpu.max": "250000 100000"}, 2),
    "v2 in a parent": (
        {
            "proc/self/cgroup": "0::/a/b\n",
            f"{V2}/a/cpu.max": "300000 100000",
            f"{V2}/a/b/cpu.max": "max 100000",
        },
        3,
    ),
    "v2 of a container": ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "200000 100000"}, 2),
    "v1": (
        {
            "proc/self/cgroup": "9:memory:/a\n4:cpu,cpuacct:/a\n",
            f"{V1}/a/cpu.cfs_quota_us": "400000\n",
            f"{V1}/a/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
    "v1 without a limit": (
        {
            "proc/self/cgroup": "4:cpu:/\n",
            f"{V1}/cpu.cfs_quota_us": "-1\n",
            f"{V1}/cpu.cfs_period_us": "100000\n",
        },
        MANY,
    ),
    "v1 of a container whose path is the host's": (
        {
            "proc/self/cgroup": "4:cpu:/docker/abc\n",
            f"{V1}/cpu.cfs_quota_us": "100000\n",
            f"{V1}/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_threads_respect_the_quota(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, expected = QUOTAS[name]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(MANY)), raising=False)
    assert usable_threads(system(tmp_path, files)) == expected


def test_threads_respect_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert usable_threads(f"{tmp_path}/") == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert usable_threads(f"{tmp_path}/") == 5


MIB = 1 << 20


def test_threads_that_cannot_start_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert startable_threads(0, MIB) == 0
    before = threading.active_count()
    assert startable_threads(3, MIB) == 3
    assert threading.active_count() == before
    left = iter(range(2))

    def refuse(self: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(self)

    start = threading.Thread.start
    # as a function of the module threading: what one of the app's raises would be the app's own
    theirs = {**globals(), "__name__": "threading"}
    stand_in = FunctionType(refuse.__code__, theirs, closure=refuse.__closure__)
    monkeypatch.setattr(threading.Thread, "start", stand_in)
    assert startable_threads(5, MIB) == 2
    assert threading.active_count() == before


@pytest.mark.skipif(sys.platform != "linux", reason="not run: Linux limits the address space")
def test_threads_leave_room_for_what_they_are_started_for() -> None:
    assert startable_threads(3, 1 << 60) == 0  # more than any address space has


ARM = ("arm64", "cpu")
DOT = ("arm64-dotprod", *ARM)


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "expected"),
    [
        ("x86_64", "flags\t\t: fpu avx avx2 avx512_vnni\n", ("x86_64-vnni", "cpu")),
        ("AMD64", "flags : avx2 avx_vnni\n", ("x86_64-vnni", "cpu")),
        ("x86_64", "vendor_id : x\nflags\t: avx avx2\n", ("x86_64-avx2", "cpu")),
        ("x86_64", "flags : sse2\n", ("cpu",)),
        ("aarch64", "Features : fp asimd crc32\n", ARM),
        ("aarch64", "Features : fp asimd asimddp\n", DOT),
        ("aarch64", "Features : fp asimd asimddp i8mm bf16\n", ("arm64-i8mm", *DOT)),
        ("riscv64", "isa : rv64\n", ("cpu",)),
    ],
)
def test_the_targets_are_read_from_the_instruction_sets(
    machine: str,
    cpuinfo: str,
    expected: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    root = system(tmp_path, {"proc/cpuinfo": cpuinfo})
    assert cpu_targets(root) == expected
    assert cpu_target(root) == expected[0]


def test_without_proc_numpy_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    core: Any = getattr(np, "_core", None) or np.core  # numpy 1 has no _core
    features = core._multiarray_umath.__cpu_features__
    monkeypatch.setitem(features, "AVX512VNNI", False)
    monkeypatch.setitem(features, "AVX2", True)
    assert cpu_target(f"{tmp_path}/") == "x86_64-avx2"
