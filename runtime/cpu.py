"""The part of its CPU that this process may use: cores and instruction sets. Independent of models
and sessions."""

from __future__ import annotations

import math
import os
import platform
import sys

from .origin import let_through

# Fields that name a CPU in /proc/cpuinfo: a name on x86, numbers on ARM.
_CPU_NAMES = ("model name", "CPU implementer", "CPU part", "CPU variant", "Hardware")
_ARENA_BYTES = 128 << 20  # glibc: twice HEAP_MAX_SIZE on 64 bits, to find an aligned half


def usable_threads(root: str = "/") -> int:
    """Cores that affinity and cgroup quota leave to this process, at least 1.

    A quota is rounded down: with a thread more than cores are granted, every call is throttled.
    ``root`` is where ``proc`` and ``sys`` are mounted.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, math.floor(min(cores, quota_cores(root))))


def startable_threads(requested: int, spare_bytes: int) -> int:
    """The number of further threads, at most ``requested``, that the system lets this process have
    at once, with ``spare_bytes`` of memory left for the work that they are started for.

    Tried, since limits of processes, of a container and of address space all decide: onnxruntime
    1.32 waits forever when one of its own does not start. In the address space each thread has its
    stack, often 8 MB, and on Linux glibc maps another 128 MB for an instant, of which 64 MB stay,
    when it first allocates. Some 50 us a thread.
    """
    if requested < 1:
        return 0
    import mmap
    import threading

    gate, started, held = threading.Event(), list[threading.Thread](), list[mmap.mmap]()

    def hold(size: int) -> None:
        if sys.platform == "linux":  # addresses without memory (PROT_NONE)
            held.append(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE, prot=0))

    try:
        hold(spare_bytes)
        for _ in range(requested):
            hold(_ARENA_BYTES)
            thread = threading.Thread(target=gate.wait, daemon=True)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError, OSError) as exc:
        let_through(exc)
        # "can't start new thread", or no room to map: as many as there are
    finally:
        for room in held:
            room.close()
        gate.set()
        for thread in started:
            thread.join()
    return len(started)


def cpu_targets(root: str = "/") -> tuple[str, ...]:
    """The rows of a manifest's ``defaults`` that fit this CPU, the most special first; "cpu" is
    always the last. The gain of 8-bit layers depends on these instructions more than on anything
    else: sums of four products (VNNI; ARM's dot product) and of small matrices (i8mm)."""
    machine = platform.machine().lower()
    special: list[str] = []
    if machine in ("aarch64", "arm64"):
        features = _features(root)
        special = ["arm64-i8mm"] if "i8mm" in features else []
        special += ["arm64-dotprod"] if "asimddp" in features else []
        special += ["arm64"]
    elif machine in ("x86_64", "amd64"):
        features = _features(root)
        if features & {"avx512_vnni", "avx_vnni", "avx512vnni"}:
            special = ["x86_64-vnni"]
        elif "avx2" in features:
            special = ["x86_64-avx2"]
    return (*special, "cpu")


def cpu_target(root: str = "/") -> str:
    """The most special of ``cpu_targets``: the target of measurements that are made here."""
    return cpu_targets(root)[0]


def cpu_identity(root: str = "/") -> str:
    """The CPU's name and a digest of its instruction sets: equal only where timings compare."""
    import hashlib

    block = _read(f"{root}proc/cpuinfo").partition("\n\n")[0]
    rows = (line.partition(":") for line in block.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in rows}
    names = [fields[key] for key in _CPU_NAMES if key in fields] or [platform.processor()]
    digest = hashlib.sha256(" ".join(sorted(_features(root))).encode()).hexdigest()
    return f"{platform.machine()} {', '.join(names)} ({digest[:12]})"


def _features(root: str) -> set[str]:
    """Instruction sets in lower case: Linux's own list, or numpy's where there is none."""
    for line in _read(f"{root}proc/cpuinfo").splitlines():
        if line.startswith(("flags", "Features")):  # of x86; of ARM
            return set(line.partition(":")[2].split())
    import numpy as np  # here: the machine is described without numpy, too

    core = getattr(np, "_core", None) or np.core  # numpy 1 has no _core
    detected: dict[str, bool] = getattr(core._multiarray_umath, "__cpu_features__", {})
    return {name.lower() for name, is_present in detected.items() if is_present}


def quota_cores(root: str = "/") -> float:
    """Cores that the CPU quotas of this process's cgroups grant; infinite without a quota."""
    cores = math.inf
    for line in _read(f"{root}proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = f"{root}sys/fs/cgroup/cpu" if controllers else f"{root}sys/fs/cgroup"
        parts = path.strip("/").split("/")
        # A parent's quota binds too. In a container the path may be the host's: then only the
        # mount itself exists.
        for depth in range(len(parts) + 1):
            cores = min(cores, _folder_cores("/".join([mount, *parts[:depth]])))
    return cores


def _folder_cores(folder: str) -> float:
    """The quota of one cgroup folder: version 2 keeps it in one file, version 1 in two."""
    limit = _read(f"{folder}/cpu.max").split() or [
        *_read(f"{folder}/cpu.cfs_quota_us").split(),
        *_read(f"{folder}/cpu.cfs_period_us").split(),
    ]
    if len(limit) != 2 or not all(map(str.isdigit, limit)) or not int(limit[1]):  # "max", "-1"
        return math.inf
    return int(limit[0]) / int(limit[1])


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - pathlib: 5 ms
            return file.read()
    except OSError as exc:
        let_through(exc)
        return ""
