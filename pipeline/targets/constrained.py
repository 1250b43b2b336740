"""``python -m pipeline.targets.constrained PYTHON SCRIPT ARGUMENT...``: run a program as on a small
device: one core, half of its time, 256 MB of address space, no network.

Core and address space need no root. A network namespace needs root or user namespaces, and the
quota needs a writable cgroup. A limit that this system does not allow is printed on stderr, and the
report shows the limits that the job reads back.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.targets.launch import ADDRESS_SPACE_BYTES

_PERIOD_US = 100_000  # of the quota: the kernel's default
_CGROUPS = Path("/sys/fs/cgroup")


def words(program: list[str]) -> list[str]:
    """Return the command that runs ``program`` under every limit that needs no cgroup."""
    core = min(os.sched_getaffinity(0))
    limits = ["prlimit", f"--as={ADDRESS_SPACE_BYTES}", "taskset", "-c", str(core)]
    # OpenBLAS maps memory for each core that it sees before the first call
    return [*no_network(), *limits, "env", "OPENBLAS_NUM_THREADS=1", *program]


def no_network() -> list[str]:
    """Return the prefix that starts a program in an empty network namespace; nothing where the
    system does not allow that."""
    for namespace in (["unshare", "--net"], ["unshare", "--net", "--map-root-user"]):
        if not subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
            return namespace
    return []


@contextmanager
def half_a_core() -> Iterator[bool]:
    """Limit this process and its children to half a core; False where no cgroup is writable."""
    folder = None
    for parent, files in (
        (_CGROUPS / "cpu", {"cpu.cfs_quota_us": f"{_PERIOD_US // 2}"}),
        (_CGROUPS, {"cpu.max": f"{_PERIOD_US // 2} {_PERIOD_US}"}),
    ):
        folder = parent / f"edgeproof-{os.getpid()}"
        try:
            folder.mkdir()
            for name, value in files.items():
                (folder / name).write_text(value, encoding="ascii")
            (folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        except OSError:
            with suppress(OSError):
                folder.rmdir()
            continue
        try:
            yield True
        finally:
            with suppress(OSError):
                (parent / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
                folder.rmdir()
        return
    yield False


def main(program: list[str]) -> int:
    """Run ``program``; returns its exit code."""
    if not no_network():
        print("not allowed here: a network namespace", file=sys.stderr)
    with half_a_core() as limited:
        if not limited:
            print("not allowed here: a CPU quota", file=sys.stderr)
        return subprocess.run(words(program), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
