"""Child processes of tests. Each gets Ctrl-C as at a terminal, whatever shell the tests run in, and
a session of its own that is killed when the test ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PATIENCE = 600  # seconds for anything to happen: an emulated or busy machine is 30 times as slow
MARK = "EDGEPROOF_TESTS"  # in the environment of whatever a run of the tests starts
SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]
_GRACE = 10  # seconds in which what was asked to end may end
# helpers of multiprocessing, which end with the process that they belong to
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
_started: list[subprocess.Popen[Any]] = []


@contextmanager
def ctrl_c_works() -> Iterator[None]:
    """SIGINT interrupts, here and in children started here: a shell without job control has it
    ignored in whatever runs in its background, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def start(*command: object, **options: Any) -> subprocess.Popen[Any]:
    """Start a command as ``subprocess.Popen`` does; the end of the test kills its whole group."""
    with ctrl_c_works():
        process = subprocess.Popen(
            [str(word) for word in command], start_new_session=True, **options
        )
    _started.append(process)
    return process


def start_script(name: str, *words: object, **options: Any) -> subprocess.Popen[Any]:
    """Start a script of this folder with the product of this checkout."""
    return start(sys.executable, SUPPORT / name, *words, env=environment(), **options)


def environment() -> dict[str, str]:
    """Return the environment in which Python imports the product of this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def end_all() -> None:
    """Kill whatever still runs of the groups that were started."""
    while _started:
        process = _started.pop()
        with suppress(ProcessLookupError):  # of the whole group nothing is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def exit_codes(processes: Sequence[BaseProcess]) -> list[int | None]:
    """Run processes of multiprocessing side by side to their end; those that hang are killed."""
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(PATIENCE)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[Any] | None = None) -> None:
    """Return as soon as ``condition`` holds, or once ``process`` has ended by itself."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and (process is None or process.poll() is None):
        assert time.monotonic() < deadline, f"it did not happen in {PATIENCE} s"
        time.sleep(0.005)


def left_behind(mark: str) -> dict[int, str]:
    """The processes that a run of the tests has started and that outlive it: id -> the test that
    started it and its command. Empty where there is no ``/proc``."""
    deadline = time.monotonic() + _GRACE
    while (processes := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return processes


def kill(process: int) -> None:
    """End a process that may have ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _marked(mark: str) -> dict[int, str]:
    processes = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has just ended, or is someone else's
            continue
        variables = dict(word.partition(b"=")[::2] for word in words)
        if variables.get(MARK.encode()) != mark.encode() or int(folder.name) == os.getpid():
            continue
        if command and not any(helper in command for helper in _HELPERS):  # a zombie has none
            test = variables.get(b"PYTEST_CURRENT_TEST", b"before the first test").decode()
            processes[int(folder.name)] = f"{test}: {command[:200]}"
    return processes
