"""The command that runs a job on a target, and its run. The report shows the command, and it can be
run again by hand."""

from __future__ import annotations

import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import TargetError
from pipeline.targets.table import Target, environment

_TAIL = 500  # characters of a failed target's output
# Emulators and browsers take seconds; a target that hangs must not block the whole report.
TIMEOUT_SECONDS = 600.0
_running: set[subprocess.Popen[bytes]] = set()
ADDRESS_SPACE_BYTES = 256 << 20  # of the constrained target


@dataclass(frozen=True)
class Run:
    """One finished target."""

    command: str
    seconds: float  # of the check, not of a device


def command(target: Target, job_folder: Path, target_folder: Path) -> list[str]:
    """Return the command that runs a job on a target, and write the files that the target needs."""
    here = (str(job_folder), str(target_folder))
    if target.runner == "browser":
        words = [sys.executable, "-m", "pipeline.targets.browser", *here]
        return [*words, str(_folder(target)), f"--threads={target.threads}"]
    if target.runner == "node":
        return ["node", str(job_folder / "node_job.mjs"), str(_folder(target)), *here]
    script = [str(job_folder / "onnx_job.py"), *here]
    if target.environment == "arm64":
        return [*_arm64(target), *script]
    python = sys.executable
    if target.environment is not None:
        python = str(_folder(target) / "bin/python")
    if target.constrained:
        return [sys.executable, "-m", "pipeline.targets.constrained", python, *script]
    if target.cpu is not None:
        return [*emulator(target, job_folder / "cpus" / target.name), python, *script]
    return [python, *script]


def emulator(target: Target, folder: Path) -> list[str]:
    """Return the prefix that runs a command of this machine on an emulated x86-64 CPU, whose
    /proc/cpuinfo is written to ``folder``."""
    assert target.cpu is not None
    words = ["qemu-x86_64-static", "-cpu", target.cpu, "-L", str(_prefix(target, folder))]
    return [*(["env", *target.variables] if target.variables else []), *words]


def run(target: Target, job_folder: Path, target_folder: Path) -> Run:
    """Run a job; raises TargetError with the end of the target's output when it does not finish."""
    words = command(target, job_folder, target_folder)
    started = time.monotonic()
    # One group, so that a browser's or an emulator's children end with it.
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=_environment(target),
        start_new_session=True,
    )
    _running.add(process)
    try:
        _, output = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as exc:
        raise TargetError(
            f"{target.name} did not finish in {TIMEOUT_SECONDS:.0f} s. Run it by hand: "
            f"{shlex.join(words)}"
        ) from exc
    finally:
        _kill(process)
        _running.discard(process)
    if process.returncode:
        text = _plain(output.decode(errors="replace"))
        raise TargetError(f"{target.name} ended with code {process.returncode}: {text}")
    return Run(shlex.join(words), time.monotonic() - started)


def stop() -> None:
    """End every running target, as after Ctrl-C, which does not reach them."""
    for process in list(_running):
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(target: Target) -> dict[str, str]:
    """Return the variables of this process without those that would mislead another Python."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    if target.constrained or target.runner == "browser":  # they start a module of this package
        kept["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    return kept


def _folder(target: Target) -> Path:
    assert target.environment is not None
    return environment(target.environment).folder


def _arm64(target: Target) -> list[str]:
    assert target.cpu is not None
    shared = _folder(target) / "prefix"
    prefix = _folder(target) / "cpus" / target.cpu
    _prefix(target, prefix)
    for part in shared.iterdir():  # usr, lib and so on: one copy for all CPUs
        link = prefix / part.name
        if not link.is_symlink():
            with suppress(FileExistsError):
                link.symlink_to(part)
    return [
        *("env", f"PYTHONHOME={prefix}/usr", f"PYTHONPATH={prefix}/site"),
        *("qemu-aarch64-static", "-cpu", target.cpu, "-L", str(prefix)),
        f"{prefix}/usr/bin/python3",
    ]


def _prefix(target: Target, folder: Path) -> Path:
    """Write the folder with ``/proc/cpuinfo`` of the emulated CPU. With the real one, numpy and
    onnxruntime would choose kernels of the host: an ARM process would crash, and an x86 one would
    behave like the host."""
    text = target.cpuinfo
    if platform.machine() == "x86_64" and target.machine == "x86_64":
        text = f"vendor_id : GenuineIntel\nmodel name : {target.cpu}\n{text}"
    block = "processor : 0\n" + text + "\n\n"
    (folder / "proc").mkdir(parents=True, exist_ok=True)
    (folder / "proc/cpuinfo").write_text(block, encoding="utf-8")
    return folder


def _plain(text: str) -> str:
    """Return the end of an output, without colors."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()[-_TAIL:] or "it printed nothing"
