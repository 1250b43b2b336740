"""Runs the processes of a sweep's trials on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Protocol, Self

_PATIENCE_S = 60.0  # for an interrupted trial, which first finishes its checkpoint


@dataclass(frozen=True)
class TrialProcess:
    """One ``pipeline`` command of a trial."""

    name: str  # distinct within a sweep
    words: tuple[str, ...]  # arguments of "pipeline": ("run", "train", "--recipe", ...)
    log: Path  # standard output and errors of the last time


@dataclass(frozen=True)
class Finished:
    """A process that has ended, well or not."""

    process: TrialProcess
    exit_code: int


class Executor(Protocol):
    """Runs processes in any order, here or elsewhere."""

    def submit(self, process: TrialProcess) -> None:
        """Accept a process; returns at once."""

    def results(self) -> Iterator[Finished]:
        """Each process as it ends. More may be submitted meanwhile; the iteration ends when none is
        left."""


class LocalProcesses:
    """Runs ``parallel`` processes at a time on this machine.

    The cores that this process may use are divided among them, so that "as many threads as there
    are cores" means those of one trial, and neighbors do not take turns on one core. Used as a
    context manager: at its end, and so after Ctrl-C, running processes are interrupted as Ctrl-C
    does and waited for.
    """

    def __init__(self, parallel: int = 1) -> None:
        if parallel < 1:
            raise ValueError(f"parallel is {parallel}; expected at least 1.")
        self._idle = deque(_shares(_cores(), parallel))
        self._waiting: deque[TrialProcess] = deque()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ended: SimpleQueue[tuple[Finished, tuple[int, ...]]] = SimpleQueue()

    def submit(self, process: TrialProcess) -> None:
        """Start the process, or keep it until another one ends."""
        self._waiting.append(process)
        self._start()

    def results(self) -> Iterator[Finished]:
        """Each process as it ends."""
        while self._running or self._waiting:
            finished, cores = self._ended.get()
            del self._running[finished.process.name]
            self._idle.append(cores)
            yield finished  # before the next one starts: what this one unlocks is submitted first
            self._start()

    def _start(self) -> None:
        while self._waiting and self._idle:
            self._launch(self._waiting.popleft(), self._idle.popleft())

    def _launch(self, trial: TrialProcess, cores: tuple[int, ...]) -> None:
        trial.log.parent.mkdir(parents=True, exist_ok=True)
        with trial.log.open("wb") as log:
            # a session of its own: Ctrl-C reaches it once, through close(), not twice
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.sweep.child", *trial.words],
                stdin=subprocess.PIPE,  # ends with this process, however that ends
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if cores and hasattr(os, "sched_setaffinity"):
            with suppress(OSError):  # it has ended already
                os.sched_setaffinity(process.pid, cores)  # long before it starts threads
        self._running[trial.name] = process

        def wait() -> None:
            code = process.wait()
            if process.stdin is not None:
                process.stdin.close()
            self._ended.put((Finished(trial, code), cores))

        threading.Thread(target=wait, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._waiting.clear()
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self._running.values():
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._running.clear()


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return []  # unknown, as on macOS: the processes share all cores


def _shares(cores: Sequence[int], parallel: int) -> list[tuple[int, ...]]:
    """Cores of each of ``parallel`` processes; with more processes than cores, each shares one."""
    if not cores:
        return [()] * parallel
    return [tuple(cores[i::parallel]) or (cores[i % len(cores)],) for i in range(parallel)]
