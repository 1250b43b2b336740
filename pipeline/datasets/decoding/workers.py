"""Worker processes: how many are worthwhile, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from typing import Any, TypeVar

from runtime.cpu import usable_threads

Progress = Callable[[int, int], None]  # (images done, images in all)

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def workers_for(images: int, worthwhile_from: int, workers: int | None) -> int:
    """Return ``workers``, or for None every usable core, but one for fewer images than
    ``worthwhile_from``."""
    if workers is not None:
        return workers
    return usable_threads() if images >= worthwhile_from else 1


def _no_setup() -> None:
    """Prepare nothing before a worker's first task."""


def run_in_processes(
    function: Callable[[_Task], _Result],
    tasks: Sequence[_Task],
    workers: int,
    initializer: Callable[..., None] = _no_setup,
    arguments: tuple[Any, ...] = (),
) -> Generator[_Result, None, None]:
    """Yield ``function`` of every task, in whatever order they finish.

    With one worker, this process does the work. Otherwise each worker first calls
    ``initializer(*arguments)``, and all of these must be picklable. When the caller stops early, by
    an exception, Ctrl-C or closing the iterator, running tasks are finished and the others dropped;
    when the calling process is killed, its workers end too.
    Raises concurrent.futures.process.BrokenProcessPool when a worker dies.
    """
    if workers == 1:
        initializer(*arguments)
        yield from map(function, tasks)
        return
    # "spawn": a fork of a process that runs threads (torch's, onnxruntime's) may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(initializer, arguments)
    ) as pool:
        jobs = [pool.submit(function, task) for task in tasks]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(initializer: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # Ctrl-C reaches every process of a terminal; the parent alone decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    initializer(*arguments)


def _end_with_parent() -> None:
    """End this worker when its parent is killed; otherwise it would wait for tasks forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
