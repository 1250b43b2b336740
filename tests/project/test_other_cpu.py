"""The tests of the runtime and of quantization on a CPU of the other kind: with VNNI, which adds up
8-bit products exactly, and with AVX2 alone, where sums of two may stop at 16 bits. The rest of this
run is on the CPU at hand; the other kind is emulated where an emulator has it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import children
import pytest
from numpy._core import _multiarray_umath

from pipeline.targets import launch
from pipeline.targets import table as targets
from runtime.cpu import cpu_target

pytestmark = pytest.mark.full
ROOT = Path(__file__).resolve().parents[2]
TESTS = (
    "tests/runtime",
    *(f"tests/exporters/{room}" for room in ("quantize", "search", "explain", "foreign")),
)
# what shows nothing of the CPU and cannot be shown by an emulator: test -> why
BEYOND_EMULATION = {
    "tests/runtime/test_life.py::test_threads_that_cannot_start_are_refused": (
        "the emulator keeps a limit of address space from its guest"
    ),
}
# features of a Haswell that the emulator lacks: it says so to stderr, which tests look at
QUIETLY = ",-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm"
HOURS = 3


def test_on_a_cpu_without_vnni(tmp_path: Path) -> None:
    if cpu_target() == "x86_64-avx2":
        pytest.skip("not run twice: this CPU has no VNNI, all other tests ran on it")
    (target,) = (row for row in targets.TARGETS if row.name == "x86_64-avx2")
    if reason := targets.missing(target):
        pytest.skip(f"not run: {reason}")
    emulator = launch.emulator(target, tmp_path / "cpu")
    emulator[emulator.index("-cpu") + 1] += QUIETLY
    python = [*emulator, sys.executable]
    seen = subprocess.run(
        [*python, "-c", "from runtime.cpu import cpu_target; print(cpu_target())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == target.name
    words = ["-m", "pytest", "-p", "emulated", "-p", "no:cacheprovider", "-ra"]
    words += ["--basetemp", str(tmp_path / "t")]
    for name in BEYOND_EMULATION:
        words += ["--deselect", name]
    process = children.start(
        *(*python, *words, *TESTS),
        cwd=ROOT,
        env={
            **os.environ,
            "EMULATOR": shlex.join(emulator),
            # numpy's own AVX2: its masked loads end qemu 7 in a segmentation fault
            "NPY_DISABLE_CPU_FEATURES": " ".join(_multiarray_umath.__cpu_dispatch__),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, _ = process.communicate(timeout=HOURS * 3600)
    print(output)
    shutil.rmtree(tmp_path / "t", ignore_errors=True)
    assert process.returncode == 0, output[-8000:]


def test_on_a_cpu_with_vnni() -> None:
    if cpu_target() == "x86_64-vnni":
        pytest.skip("not run twice: this CPU has VNNI, all other tests ran on it")
    pytest.skip("not run: this CPU has no VNNI, and qemu emulates none (its -cpu max neither)")
