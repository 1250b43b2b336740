"""Training in the processes that torchrun started. ``--nproc N`` starts torchrun on this machine;
on several machines the user starts it.

Every process runs the same command line. The first one runs the stages and prints; the others
``follow`` it: they wait until it starts a training, and join that. A process that fails or is
killed ends the training of all. The same command then continues from ``resume.pt``; ``torchrun
--max-restarts`` does that by itself. Independent of stages.
"""

from __future__ import annotations

import logging
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pipeline.datasets.arrays import open_dataset
from pipeline.errors import Interrupted, LostError, PipelineError, TrainError
from pipeline.learning.distributed.world import ALONE, World, connected, lost_processes_named, meet
from pipeline.learning.training.distillation import open_scores
from pipeline.learning.training.fit import fit
from pipeline.learning.training.results import StepProgress, TrainResult
from pipeline.processes import ProcessRank
from pipeline.recipe import DistillOptions, NetworkOptions, TrainOptions
from runtime.spec import ModelSpec

_WAITING_DAYS = 30  # the first process may decode images, or quantize
_PRINTED = "printed"  # key of the store: the first process has printed what failed
_PRINTING_SECONDS = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def launch(words: Sequence[str], processes: int) -> int:
    """Run ``python -m pipeline`` with these ``words`` in ``processes`` processes of torchrun.

    Returns the exit code: that of the first process, or of the one that failed. Raises TrainError
    when a process was killed. Ctrl-C and SIGTERM end all processes.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # else torchrun sets 1, for the other stages as well, and prints a warning
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    # signals that the shell has made this process ignore, as nohup does, end no worker either
    handled = [s.name for s in _SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    logging.disable()  # torchrun's tracebacks; processes print what failed
    options = [f"--nproc-per-node={processes}", f"--signals-to-handle={','.join(handled)}"]
    try:
        torchrun.main(["--standalone", *options, "-m", "--", "pipeline", *words])
    except SignalException as exc:
        if exc.sigval == signal.SIGINT:
            return Interrupted.exit_code  # the first process has printed the command that resumes
        signal.signal(exc.sigval, signal.SIG_DFL)
        os.kill(os.getpid(), exc.sigval)
    except ChildFailedError as exc:
        return exit_code(exc.failures, processes)
    return 0


def exit_code(failures: dict[int, Any], processes: int) -> int:
    """The exit code of processes that failed, by rank; raises TrainError for a killed one."""
    stopped = -signal.SIGTERM  # by torchrun, because another one failed
    for rank, failure in failures.items():
        if failure.exitcode < 0 and (failure.exitcode != stopped or len(failures) == 1):
            cause = "Out of memory? Then use fewer processes. "
            raise TrainError(
                f"process {rank} of {processes} was killed by {failure.signal_name()}, and the "
                f"others were stopped. {cause if failure.exitcode == -signal.SIGKILL else ''}"
                "Run the same command again: it continues from the last checkpoint."
            )
    return max(int(failure.exitcode) for failure in failures.values())


@dataclass(frozen=True)
class Training:
    """One training, in a form that travels to other processes and machines: they have to see the
    same files under the same names."""

    data: Path  # folder of a finished data stage
    spec: ModelSpec
    network: NetworkOptions
    train: TrainOptions
    seed: int
    folder: Path
    distill: DistillOptions | None = None  # the teacher's scores are in ``folder``

    def run(
        self,
        world: World = ALONE,
        on_step: Callable[[StepProgress], None] | None = None,
    ) -> TrainResult:
        """Train as one process of a world."""
        return fit(
            open_dataset(self.data),
            self.spec,
            self.network,
            self.train,
            self.seed,
            self.folder,
            on_step,
            None if self.distill is None else open_scores(self.folder, self.distill),
            world,
        )


def train_together(
    training: Training, on_step: Callable[[StepProgress], None] | None = None
) -> TrainResult:
    """Train with all processes of torchrun, or alone without it.

    Raises what ``fit`` raises, here or in another process, and LostError when one has ended.
    """
    group = _Group.current
    if group is None:
        return training.run(on_step=on_step)
    group.broadcast(training)
    with lost_processes_named(group.world):
        return training.run(group.world, on_step)


class _Group:
    """The processes of torchrun, which have met, and a connection in which they can wait long."""

    current: _Group | None = None  # in the first process

    def __init__(self, world: World) -> None:
        self.world = world
        self._waiting: Any = dist.new_group(backend="gloo", timeout=timedelta(days=_WAITING_DAYS))

    def broadcast(self, training: Training | None) -> Training | None:
        """The training that the first process starts; None when there are no more."""
        values = [training]
        with lost_processes_named(self.world):
            dist.broadcast_object_list(values, src=0, group=self._waiting)
        return values[0]


@contextmanager
def leading(process: ProcessRank) -> Iterator[None]:
    """In this block ``train_together`` trains with the processes that ``follow`` this one.

    When the block fails, the connections that break with this process end the others.
    """
    world = meet(process)
    with connected(world):
        _Group.current = _Group(world)
        try:
            yield
            _Group.current.broadcast(None)
        except BaseException:
            with suppress(dist.DistError):  # torchrun may be gone
                world.store.set(_PRINTED, "")
            raise
        finally:
            _Group.current = None


def follow(process: ProcessRank) -> None:
    """Join each training that the first process starts, until there are no more, or until the
    first process has printed why it ends.

    Raises LostError when the first process was killed.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once, also while it waits for another
    world = meet(process)
    try:
        with connected(world):
            group = _Group(world)
            while (training := group.broadcast(None)) is not None:
                _join(training, world)
    except Exception:
        # The connections are closed, so that the first process raises what is in the store. As soon
        # as this one ends with an error torchrun ends the first one, too.
        with suppress(dist.DistError):
            world.store.wait([_PRINTED], timedelta(seconds=_PRINTING_SECONDS))
            return
        raise


def _join(training: Training, world: World) -> None:
    """Train; what fails here is left for the first process to raise."""
    try:
        with lost_processes_named(world):
            training.run(world)
    except PipelineError as exc:
        if not isinstance(exc, LostError):
            world.report_failure(str(exc))
        raise
    except Exception as exc:
        frame = traceback.extract_tb(exc.__traceback__)[-1]
        world.report_failure(
            f"process {world.process.rank} of {world.size} failed with {type(exc).__name__}: "
            f"{exc} ({frame.filename}, line {frame.lineno})"
        )
        raise
