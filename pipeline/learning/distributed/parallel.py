"""What changes when several processes train one network: each takes its share of every batch, and
torch's DistributedDataParallel makes their gradients one. With a single process everything here
passes its input through. Knows nothing of who starts the processes, of stages or of files.

All processes draw the same order from the same seed, so a batch is the same whatever their number;
augmentation is drawn by each for its own share. Weights, optimizer and averaged weights are equal
everywhere. Statistics of batch norm are not: on the CPU each process normalises by its own share,
and before anybody looks, running statistics are averaged over processes, which makes them those of
all images at the price of one exchange an epoch (DistributedDataParallel's own way, copying those
of the first process at every step, costs more and uses fewer images). On GPUs SyncBatchNorm, which
refuses the CPU, normalises by the whole batch.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
from pipeline.learning.distributed.shared_memory import SharedMean, can_share
from pipeline.learning.networks.networks import PixelNetwork
from pipeline.processes import Place

T = TypeVar("T")
# A process may validate or write a checkpoint while others wait for it; one that died is noticed at
# once, by its closed connection or by the launcher.
EXCHANGE_MINUTES = 30.0


@dataclass(frozen=True)
class World:
    """The processes that train together, seen by one of them. Every method but ``share`` and
    ``part`` is an exchange: all processes have to call it."""

    place: Place

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.place.first

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.place.size

    def share(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part of the indices of a batch, [N] -> [N / size]."""
        each = len(chosen) // self.size
        return chosen[self.place.rank * each : (self.place.rank + 1) * each]

    def part(self, split: Split) -> Split:
        """This process's part of a split, without a copy; parts differ by one image at most."""
        ends = [len(split) * i // self.size for i in (self.place.rank, self.place.rank + 1)]
        mine = slice(*ends)
        return replace(
            split, images=split.images[mine], labels=split.labels[mine], ids=split.ids[mine]
        )

    def agree(self, value: T) -> T:
        """What the first process says; the others' ``value`` is ignored."""
        if self.size == 1:
            return value
        told: list[Any] = [value if self.first else None]
        dist.broadcast_object_list(told, src=0)
        return cast("T", told[0])

    def agree_number(self, value: float) -> float:
        """The same of a number, in a third of the time."""
        if self.size == 1:
            return value
        told = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(told, src=0)
        return float(told)

    def gather(self, value: T) -> list[T]:
        """Everyone's value, by rank."""
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

    def normalising_together(self, network: PixelNetwork, device: torch.device) -> PixelNetwork:
        """The network with batch norm over whole batches where that is possible, on GPUs."""
        if self.size == 1 or device.type != "cuda":
            return network
        convert: Callable[[nn.Module], Any] = nn.SyncBatchNorm.convert_sync_batchnorm
        return cast("PixelNetwork", convert(network))

    def logits_of(self, network: PixelNetwork) -> Callable[[Tensor], Tensor]:
        """The network's ``logits``; what flows back through them is averaged over processes."""
        if self.size == 1:
            return network.logits
        device = next(network.parameters()).device
        on_gpu = device.type == "cuda"
        with warnings.catch_warnings():
            # torch 2.14 has a new name for broadcast_buffers, which 2.9 does not know
            warnings.simplefilter("ignore", FutureWarning)
            logits = DistributedDataParallel(
                _Logits(network),
                device_ids=[self.place.local_rank] if on_gpu else None,
                broadcast_buffers=False,  # see the head of this file
                gradient_as_bucket_view=True,  # gradients stand in memory once
            )
        if can_share(self.place, device):
            floats = sum(p.numel() for p in network.parameters() if p.requires_grad)
            mean = SharedMean.meet(self.place, floats, self.gather, 60 * EXCHANGE_MINUTES)
            if mean is not None:
                # a lambda, since torch refuses annotations that are strings
                logits.register_comm_hook(mean, lambda mean, bucket: mean.averaged(bucket))
        _rehearse(logits, network)
        return logits


ALONE = World(Place())


class _Logits(nn.Module):
    """DistributedDataParallel knows ``forward`` alone."""

    def __init__(self, network: PixelNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network.logits(pixels)


def _rehearse(logits: nn.Module, network: PixelNetwork) -> None:
    """One backward pass that leaves no trace but the order in which gradients are exchanged.

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
    found = []
    for network in networks:
        trained = {name for name, _ in network.named_parameters()}
        state = network.state_dict()
        found += [v for k, v in state.items() if k not in trained and v.is_floating_point()]
    return found


@contextmanager
def joined(place: Place) -> Iterator[World]:
    """Meet the other processes, as the launcher's environment says; part at the end.

    Raises TrainError when this machine has fewer GPUs than processes, and when another process
    is lost.
    """
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        if place.local_size > torch.cuda.device_count():
            raise TrainError(
                f"{place.local_size} processes on a machine with {torch.cuda.device_count()} GPUs; "
                "expected at most one process for each. Start fewer, or hide the GPUs "
                "(CUDA_VISIBLE_DEVICES=) to train on the CPU."
            )
        torch.cuda.set_device(place.local_rank)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    with lost_ones_are_named(place):
        dist.init_process_group(
            backend,
            store=_meeting_point(),
            rank=place.rank,
            world_size=place.size,
            timeout=timedelta(minutes=EXCHANGE_MINUTES),
        )
        try:
            yield World(place)
        finally:
            if not on_gpu or sys.exc_info()[0] is None:  # nccl would wait for those that are lost
                dist.destroy_process_group()
                # DistributedDataParallel keeps the group, and its threads, until it is collected.
                # A worker aborted at exit once, as a thread does that wants Python's lock then.
                gc.collect()


def _meeting_point() -> Any:
    """The store where the processes of this attempt tell each other their addresses.

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
def lost_ones_are_named(place: Place) -> Iterator[None]:
    """Say in words what a broken connection means."""
    try:
        yield
    except (dist.DistError, RuntimeError) as exc:
        text = str(exc)
        if not isinstance(exc, dist.DistError) and not ("gloo" in text or "NCCL" in text):
            raise
        raise LostError(
            f"process {place.rank} of {place.size} lost another one ({text.splitlines()[0]:.200}). "
            "That one's own message, or the launcher's, says why. Run the same command again: it "
            "goes on from the last checkpoint."
        ) from exc
