"""Where trials run: the one seam between a sweep and the machines that do its work.

A job is the words of one ``pipeline`` command, and where its output goes; whatever can run these
words with the trial's folder at hand can be an executor. Here that is this machine. A cluster's
engine such as Ray would be a second class with the same two methods: ``submit`` starts
``ray.remote(run_words).remote(job)`` and keeps the reference, ``results`` hands out what
``ray.wait(references)`` returns; its workers need the same packages and a folder that all of them
share, since what was finished is read from there (``artifacts`` and, for the data, ``data.root``).
Nothing else of a sweep knows where a job runs."""

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

_PATIENCE_S = 60.0  # for a trial that was told to stop, which first finishes its checkpoint


@dataclass(frozen=True)
class Job:
    """One command of a trial."""

    name: str  # tells jobs of one sweep apart
    words: tuple[str, ...]  # what follows "pipeline": ("run", "train", "--recipe", ...)
    log: Path  # standard output and errors, of the last time only


@dataclass(frozen=True)
class Finished:
    """A job that has ended, well or not."""

    job: Job
    exit_code: int


class Executor(Protocol):
    """Runs jobs, in whatever order and place."""

    def submit(self, job: Job) -> None:
        """Take a job on; returns at once."""

    def results(self) -> Iterator[Finished]:
        """Each job as it ends. More may be submitted meanwhile; the iteration ends when none is
        left."""


class LocalProcesses:
    """So many jobs at a time, each in a process of its own on this machine.

    The cores that this process may use are dealt out among them, so that "as many threads as there
    are cores" means those of one trial, and neighbours do not take turns on one core. Used as a
    context manager: at its end, and so after Ctrl-C, what still runs is interrupted as Ctrl-C does
    and waited for.
    """

    def __init__(self, parallel: int = 1) -> None:
        if parallel < 1:
            raise ValueError(f"parallel is {parallel}; expected at least 1.")
        self._idle = deque(_shares(_cores(), parallel))
        self._waiting: deque[Job] = deque()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ended: SimpleQueue[tuple[Finished, tuple[int, ...]]] = SimpleQueue()

    def submit(self, job: Job) -> None:
        """Start the job, or keep it until another one ends."""
        self._waiting.append(job)
        self._start()

    def results(self) -> Iterator[Finished]:
        """Each job as it ends."""
        while self._running or self._waiting:
            finished, cores = self._ended.get()
            del self._running[finished.job.name]
            self._idle.append(cores)
            yield finished  # before the next one starts: what this one unlocks is submitted first
            self._start()

    def _start(self) -> None:
        while self._waiting and self._idle:
            self._launch(self._waiting.popleft(), self._idle.popleft())

    def _launch(self, job: Job, cores: tuple[int, ...]) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("wb") as log:
            # a session of its own: Ctrl-C reaches it once, through close(), not twice
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.sweep.child", *job.words],
                stdin=subprocess.PIPE,  # ends with this process, however that ends
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if cores and hasattr(os, "sched_setaffinity"):
            with suppress(OSError):  # it has ended already
                os.sched_setaffinity(process.pid, cores)  # long before it starts threads
        self._running[job.name] = process

        def wait() -> None:
            code = process.wait()
            if process.stdin is not None:
                process.stdin.close()
            self._ended.put((Finished(job, code), cores))

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
    return []  # unknown, as on macOS: nothing is dealt out


def _shares(cores: Sequence[int], parallel: int) -> list[tuple[int, ...]]:
    """The cores dealt out; with more jobs than cores, each has one that it shares."""
    if not cores:
        return [()] * parallel
    return [tuple(cores[i::parallel]) or (cores[i % len(cores)],) for i in range(parallel)]
