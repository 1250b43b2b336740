"""Who trains: this process alone, worker processes that it starts, or all those that torchrun
started. Whichever it is, one process runs the stages and writes; the others only join the training.

``--nproc``  this process starts workers by torch's own elastic launcher, shows their progress and
             trains nothing itself.
torchrun     every process runs the command line; the first goes through the stages, the others
             ``follow`` it: they wait until it has a job for them.

A worker that dies ends the others; the launcher then starts all of them again, and they go on from
``resume.pt``. Knows nothing of stages.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch.distributed as dist

from pipeline.datasets.arrays import open_dataset
from pipeline.errors import LostError, PipelineError, TrainError
from pipeline.learning.distributed.parallel import ALONE, World, joined, lost_ones_are_named
from pipeline.learning.training.distillation import open_answers
from pipeline.learning.training.fit import StepProgress, fit
from pipeline.learning.training.result import TrainResult
from pipeline.processes import Place, launched_place
from pipeline.recipe import DistillOptions, NetworkOptions, TrainOptions
from runtime.spec import ModelSpec

RESTARTS = 3  # a worker killed for its memory would be killed again and again
SECONDS_PER_LOOK = 0.1  # of the progress that workers tell
DAYS_OF_WAITING = 30  # for a first process that decodes images, or that quantizes


@dataclass(frozen=True)
class Job:
    """One training, in a form that travels to other processes and machines: they have to see the
    same files under the same names."""

    data: Path  # folder of a finished data stage
    spec: ModelSpec
    network: NetworkOptions
    train: TrainOptions
    seed: int
    folder: Path
    distill: DistillOptions | None = None  # the teacher's answers lie in ``folder``

    def run(self, world: World, on_step: Callable[[StepProgress], None] | None) -> TrainResult:
        """Train as one process of a world."""
        dataset = open_dataset(self.data)
        teacher = None if self.distill is None else open_answers(self.folder, self.distill)
        return fit(
            dataset,
            self.spec,
            self.network,
            self.train,
            self.seed,
            self.folder,
            on_step,
            teacher,
            world,
        )


def run_job(
    job: Job,
    processes: int = 1,
    on_step: Callable[[StepProgress], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train with ``processes`` workers, or with those of torchrun where it started this one.

    ``note`` is told when workers died and were started again. Raises what ``fit`` raises, and
    TrainError when workers keep dying.
    """
    if _Torchrun.running is not None:
        return _Torchrun.running.run(job, on_step)
    if processes == 1:
        return job.run(ALONE, on_step)
    return _run_workers(job, processes, on_step or (lambda _: None), note or (lambda _: None))


# --- under torchrun ---------------------------------------------------------------------------


class _Torchrun:
    """The processes of torchrun, which have met, and a group in which the others wait long."""

    running: _Torchrun | None = None

    def __init__(self, world: World) -> None:
        self.world = world
        self._waiting: Any = dist.new_group(backend="gloo", timeout=timedelta(days=DAYS_OF_WAITING))

    def tell(self, job: Job | None) -> Job | None:
        """What the first process has for the others to do; None when there is no more."""
        told: list[Job | None] = [job]
        with lost_ones_are_named(self.world.place):
            dist.broadcast_object_list(told, src=0, group=self._waiting)
        return told[0]

    def run(self, job: Job, on_step: Callable[[StepProgress], None] | None) -> TrainResult:
        """Train in the first process and, told so, in the others."""
        self.tell(job)
        with lost_ones_are_named(self.world.place):
            return job.run(self.world, on_step)


@contextmanager
def leading(place: Place) -> Iterator[None]:
    """In this block ``run_job`` trains with the processes that ``follow`` the first one, this.

    When the block fails nothing is said to them: the connections that break with this process end
    them, wherever they are.
    """
    with joined(place) as world:
        _Torchrun.running = _Torchrun(world)
        try:
            yield
            _Torchrun.running.tell(None)
        finally:
            _Torchrun.running = None


def follow(place: Place) -> None:
    """Join each training that the first process starts, until it has no more.

    Raises what ``fit`` raises; LostError when the first process is gone.
    """
    with joined(place) as world:
        torchrun = _Torchrun(world)
        while (job := torchrun.tell(None)) is not None:
            with lost_ones_are_named(place):
                job.run(world, None)


# --- workers of our own -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Failed:
    """What a worker could not do, told by the next one in its place."""

    message: str


def _run_workers(
    job: Job,
    processes: int,
    on_step: Callable[[StepProgress], None],
    note: Callable[[str], None],
) -> TrainResult:
    with tempfile.TemporaryDirectory() as failures, _told(on_step, note) as teller:
        results = _launched(processes, job, teller, Path(failures))
    result = results[0]
    if isinstance(result, _Failed):
        raise TrainError(result.message)
    assert isinstance(result, TrainResult)
    return result


def _launched(processes: int, job: Job, teller: Connection, failures: Path) -> dict[int, Any]:
    """What each worker returns, by rank."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # any free port
        local_addr="localhost",
        max_restarts=RESTARTS,
        start_method="spawn",
    )
    # What this process ignores, as under nohup, must not end its workers either.
    config.signals_to_handle = ",".join(name.name for name in _SIGNALS if not _ignored(name))
    try:
        with _own_signals(), _quiet_launcher():
            results: dict[int, Any] = elastic_launch(config, _work)(job, teller, failures)
    except SignalException as exc:
        if exc.sigval == signal.SIGINT:
            raise KeyboardInterrupt from exc
        os.kill(os.getpid(), exc.sigval)  # as it would have been without workers
        raise
    except ChildFailedError as exc:
        if (failed := _written(failures)) is not None:  # at the last restart
            raise TrainError(failed.message) from exc
        rank, failure = exc.get_first_failure()
        how = f"exit code {failure.exitcode}"
        advice = ""
        if failure.exitcode < 0:
            how = f"signal {failure.signal_name()}"
        if failure.exitcode == -signal.SIGKILL:
            advice = "If the system killed it for its memory, use fewer processes. "
        raise TrainError(
            f"worker {rank} of {processes} was ended by {how}, also after {RESTARTS} restarts; "
            f"others were ended with it. {advice}The same command goes on from the last checkpoint."
        ) from exc
    return results


def _work(job: Job, teller: Connection, failures: Path) -> TrainResult | _Failed:
    """What a worker does. A failure that would only repeat itself is written down and told by the
    worker that the launcher starts in its place."""
    # At once, also while it waits for another process; files appear whole or not at all.
    if not _ignored(signal.SIGINT):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    place = launched_place()
    if (failed := _written(failures)) is not None:
        return failed
    if place.first and (attempt := int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))):
        teller.send(attempt)
    try:
        with joined(place) as world:
            return job.run(world, _Teller(teller) if place.first else None)
    except LostError:
        sys.exit(1)  # whoever was lost is the cause
    except PipelineError as exc:
        _write_down(str(exc), failures, place)
        sys.exit(1)
    except Exception as exc:
        where = traceback.extract_tb(exc.__traceback__)[-1]
        told = f"{type(exc).__name__}: {exc} ({where.filename}, line {where.lineno})"
        _write_down(f"worker {place.rank} of {place.size} failed with {told}", failures, place)
        sys.exit(1)


def _write_down(message: str, failures: Path, place: Place) -> None:
    aside = failures.with_name(f"{failures.name}.{place.rank}")
    aside.write_text(message, encoding="utf-8")
    aside.replace(failures / str(place.rank))


def _written(failures: Path) -> _Failed | None:
    """What the first worker that failed has written down."""
    for file in sorted(failures.iterdir()):
        return _Failed(file.read_text(encoding="utf-8"))
    return None


class _Teller:
    """Sends progress to the process that started the workers, not too often."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._told_at = connection, 0.0

    def __call__(self, progress: StepProgress) -> None:
        now = time.monotonic()
        if now - self._told_at >= SECONDS_PER_LOOK or progress.step == progress.steps:
            self._connection.send(progress)  # small, so a kill leaves no half of it in the pipe
            self._told_at = now


@contextmanager
def _told(
    on_step: Callable[[StepProgress], None], note: Callable[[str], None]
) -> Iterator[Connection]:
    """The end of a pipe into which workers tell their progress, and that they were restarted."""
    reader, writer = multiprocessing.Pipe(duplex=False)

    raised: list[BaseException] = []

    def tell(told: StepProgress | int) -> None:
        if isinstance(told, StepProgress):
            on_step(told)
        else:
            note(
                f"a worker process was lost; all go on from the last checkpoint (restart {told} "
                f"of at most {RESTARTS})"
            )

    def listen() -> None:
        with suppress(EOFError):
            while (told := reader.recv()) is not None:
                if raised:
                    continue  # a pipe that nobody reads would stop the worker that fills it
                try:
                    tell(told)
                except BaseException as exc:
                    raised.append(exc)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield writer
    finally:
        writer.send(None)
        listener.join(timeout=5)
        writer.close()
    if raised:
        raise raised[0]


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def _ignored(name: signal.Signals) -> bool:
    """Whether the shell started this process with a signal ignored."""
    return signal.getsignal(name) is signal.SIG_IGN


@contextmanager
def _own_signals() -> Iterator[None]:
    """Give signal handlers back that the launcher changes to end its workers first."""
    before = {name: signal.getsignal(name) for name in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for name, handler in before.items():
                signal.signal(name, handler)


@contextmanager
def _quiet_launcher() -> Iterator[None]:
    """Keep the launcher's tracebacks off the terminal; errors and notes say what happened."""
    known = logging.root.manager.loggerDict
    noisy = ("torch.distributed.elastic", "torch.multiprocessing")
    names = [name for name in known if name.startswith(noisy)]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
