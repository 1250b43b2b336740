"""The processes that train one network together: each takes its share of every batch, and torch's
DistributedDataParallel averages their gradients. A single process passes everything through.
Independent of how the processes are started, of stages and of files.

All processes draw the same order from the same seed, so a batch is the same whatever their number;
each draws the augmentation of its own share. Weights, optimizer and averaged weights are equal in
all processes. Statistics of batch norm are not: on the CPU each process normalizes by its own
share. Running statistics are averaged over processes once an epoch, before validation, which makes
them those of all images. (DistributedDataParallel's own way, copying those of the first process at
every step, costs more and uses fewer images.) On GPUs SyncBatchNorm, which refuses the CPU,
normalizes by the whole batch.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from pipeline.datasets.arrays import Split
from pipeline.errors import LostError, TrainError
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.processes import ProcessRank

T = TypeVar("T")
# A process may validate or write a checkpoint while others wait for it; one that died is noticed at
# once, by its closed connection or by the launcher.
EXCHANGE_MINUTES = 30.0
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_FAILURE = "failure"  # key of the store: why a process other than the first one ends


@dataclass(frozen=True)
class World:
    """The processes that train together, seen by one of them. ``agree``, ``agree_number``,
    ``gather``, ``total`` and ``average`` are exchanges: all processes have to call them."""

    process: ProcessRank
    store: Any = None  # torch's, of keys and values that all processes see

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.process.first

    @property
    def size(self) -> int:
        """The number of processes."""
        return self.process.size

    def share(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part of the indices of a batch, [N] -> [N / size]."""
        each = len(indices) // self.size
        return indices[self.process.rank * each : (self.process.rank + 1) * each]

    def part(self, split: Split) -> Split:
        """This process's part of a split, without a copy; parts differ by one image at most."""
        start, stop = (len(split) * (self.process.rank + i) // self.size for i in (0, 1))
        return replace(
            split,
            images=split.images[start:stop],
            labels=split.labels[start:stop],
            ids=split.ids[start:stop],
        )

    def agree(self, value: T) -> T:
        """The first process's ``value``; that of the others is ignored."""
        if self.size == 1:
            return value
        values: list[Any] = [value if self.first else None]
        dist.broadcast_object_list(values, src=0)
        return cast("T", values[0])

    def agree_number(self, value: float) -> float:
        """The same of a number, in a third of the time."""
        if self.size == 1:
            return value
        number = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(number, src=0)
        return float(number)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def total(self, value: float) -> float:
        """The sum over processes."""
        return sum(self.gather(value))

    def average(self, networks: Iterable[nn.Module]) -> None:
        """Make running statistics (floating-point buffers that are saved) means over processes."""
        if self.size == 1:
            return
        for tensor in statistics_of(networks):
            dist.all_reduce(tensor)
            tensor /= self.size

    def normalizing_together(self, network: PixelNetwork, device: torch.device) -> PixelNetwork:
        """The network with batch norm over whole batches where that is possible, on GPUs."""
        if self.size == 1 or device.type != "cuda":
            return network
        convert: Callable[[nn.Module], Any] = nn.SyncBatchNorm.convert_sync_batchnorm
        return cast("PixelNetwork", convert(network))

    def logits_of(self, network: PixelNetwork) -> Callable[[Tensor], Tensor]:
        """The network's ``logits``; gradients through them are averaged over processes."""
        if self.size == 1:
            return network.logits
        on_gpu = next(network.parameters()).device.type == "cuda"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            logits = DistributedDataParallel(
                _Logits(network),
                device_ids=[self.process.local_rank] if on_gpu else None,
                broadcast_buffers=False,  # see the head of this file
                gradient_as_bucket_view=True,  # gradients are in memory once
            )
        _rehearse(logits, network)
        return logits

    def report_failure(self, message: str) -> None:
        """Say why this process is about to end; the first process raises it."""
        if not self.first:
            self.store.set(_FAILURE, message)

    def reported_failure(self) -> str | None:
        """The reason that another process has reported."""
        with suppress(dist.DistError):  # the store may be gone, too
            if self.store.check([_FAILURE]):
                return str(self.store.get(_FAILURE).decode())
        return None


ALONE = World(ProcessRank())


class _Logits(nn.Module):
    """``logits`` as ``forward``, which is all that DistributedDataParallel calls."""

    def __init__(self, network: PixelNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network.logits(pixels)


def _rehearse(logits: nn.Module, network: PixelNetwork) -> None:
    """One backward pass that changes nothing but the order in which gradients are exchanged.

    DistributedDataParallel finds a better one in its first step. Sums of three or more numbers
    depend on it, so that a resumed run would differ from an unbroken one by a rounding.
    """
    device = next(network.parameters()).device
    before = {key: value.clone() for key, value in network.state_dict().items()}
    devices = [device] if device.type == "cuda" else []
    was_training = network.training
    with torch.random.fork_rng(devices=devices):
        pixels = torch.zeros((2, *network.spec.shape), device=device)
        logits.train()
        logits(pixels).sum().backward()
    network.load_state_dict(before)
    network.zero_grad(set_to_none=True)
    network.train(was_training)


def statistics_of(networks: Iterable[nn.Module]) -> list[Tensor]:
    """Floating-point buffers that belong to a checkpoint: running statistics of batch norm."""
    statistics = []
    for network in networks:
        trained = {name for name, _ in network.named_parameters()}
        state = network.state_dict()
        statistics += [v for k, v in state.items() if k not in trained and v.is_floating_point()]
    return statistics


def meet(process: ProcessRank) -> World:
    """The world of this process, as the launcher's environment says; not connected yet.

    Raises TrainError when this machine has fewer GPUs than processes.
    """
    if torch.cuda.is_available():
        if process.local_size > torch.cuda.device_count():
            raise TrainError(
                f"{process.local_size} processes on a machine with {torch.cuda.device_count()} "
                "GPUs; expected at most one process for each. Start fewer, or hide the GPUs "
                "(CUDA_VISIBLE_DEVICES=) to train on the CPU."
            )
        torch.cuda.set_device(process.local_rank)
    _end_with_launcher()
    return World(process, _meeting_point())


def _end_with_launcher() -> None:
    """Let Linux end this process with its parent: torchrun, killed, would leave it running."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def connected(world: World) -> Iterator[None]:
    """In this block exchanges work. Raises LostError when another process has ended, and TrainError
    when that one has reported why."""
    on_gpu = torch.cuda.is_available()
    with lost_processes_named(world):
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=world.store,
            rank=world.process.rank,
            world_size=world.size,
            timeout=timedelta(minutes=EXCHANGE_MINUTES),
        )
        try:
            yield
        finally:
            if not on_gpu or sys.exc_info()[0] is None:  # nccl would wait for those that are lost
                dist.destroy_process_group()
                # DistributedDataParallel keeps the group, and its threads, until it is collected.
                # A worker aborted at exit once, as a thread does that wants Python's lock then.
                gc.collect()


def _meeting_point() -> Any:
    """The store in which the processes of this attempt publish their addresses.

    torch's elastic launcher keeps one store over its restarts, in which a quick process finds
    addresses of the attempt before (pytorch issue 135712): so attempts get a prefix. Agents of
    several machines count restarts differently; docs/scale.md says what to set there.
    """
    store, _, _ = next(rendezvous("env://"))
    one_machine = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if one_machine else "0"
    # public, but torch's types do not list it
    return dist.PrefixStore(f"attempt-{attempt}", store)  # type: ignore[attr-defined]


@contextmanager
def lost_processes_named(world: World) -> Iterator[None]:
    """Raise TrainError with the reason that another process reported instead of the error of a
    broken connection, or LostError where it reported none."""
    try:
        yield
    except (dist.DistError, RuntimeError) as exc:
        text = str(exc)
        if not isinstance(exc, dist.DistError) and not ("gloo" in text or "NCCL" in text):
            raise
        if world.first and (reason := world.reported_failure()) is not None:
            raise TrainError(reason) from exc
        raise LostError(
            f"process {world.process.rank} of {world.size} lost another one "
            f"({text.splitlines()[0]:.200}). The message of that one, or of the launcher, says "
            "why. Run the same command again: it continues from the last checkpoint."
        ) from exc
