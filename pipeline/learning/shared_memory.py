"""The mean of gradients over a few processes of one machine, through memory that they share.

Why not gloo, which does the rest: its exchange passes through sockets and threads of its own, and
on cores that are all busy with training each hand-over waits for a core. CONTRIBUTING.md has the
figures.

Everybody writes into a place of its own, tells the others by a byte, and reads all places. The byte
goes through a socket, which orders memory on every processor and breaks when its owner dies.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.processes import Place

# Everybody reads what everybody wrote, so the work of each grows with their number.
MOST_PROCESSES = 8
# Looking again and again beats being woken, which takes as long as an exchange; but whoever waits
# longer than this waits for a checkpoint or a loaded machine, and leaves the core to others.
LOOKING_SECONDS = 0.02


def can_share(place: Place, device: torch.device) -> bool:
    """Whether these processes can exchange gradients through memory; else gloo or nccl does."""
    return (
        1 < place.size <= MOST_PROCESSES
        and place.local_size == place.size
        and device.type == "cpu"
        and hasattr(os, "memfd_create")  # Linux
    )


class SharedMean:
    """Means over processes of arrays of at most ``floats`` float32 numbers. Everything is an
    exchange: all processes have to call it, in the same order."""

    def __init__(self, place: Place, floats: int, gather: Callable[[Any], list[Any]]) -> None:
        """``gather`` returns everybody's value, by rank."""
        self._place = place
        self._others = _meet(place, gather)
        shape = (2, place.size, floats)  # in turns, as a slow reader may still read the last one
        self._memory = _shared_bytes(place, 4 * shape[0] * shape[1] * shape[2], self._others)
        self._places = torch.frombuffer(self._memory, dtype=torch.float32).view(shape)
        self._turn = 0

    def average(self, values: Tensor) -> None:
        """Make ``values`` [N], float32, the mean of everybody's; the same bits everywhere.

        Raises torch's DistError, as its own exchanges do, when another process is gone.
        """
        self._turn = 1 - self._turn
        places = self._places[self._turn, :, : len(values)]  # (processes, N)
        places[self._place.rank].copy_(values)
        try:
            for other in self._others.values():
                other.send_bytes(b"+")
            for other in self._others.values():
                _wait_for(other)
        except (EOFError, OSError) as exc:
            raise dist.DistError("its connection broke") from exc
        torch.mean(places, dim=0, out=values)

    def averaged(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """What DistributedDataParallel calls for each bucket of gradients in place of gloo."""
        self.average(bucket.buffer())
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done


def _wait_for(other: Connection) -> None:
    """Take the byte that the other process sends once it has written."""
    until = time.perf_counter() + LOOKING_SECONDS
    while not other.poll():
        if time.perf_counter() > until:
            break
        os.sched_yield()
    other.recv_bytes()


def _meet(place: Place, gather: Callable[[Any], list[Any]]) -> dict[int, Connection]:
    """A connection to every other process, by rank: each calls those before it."""
    with Listener(family="AF_UNIX", backlog=place.size) as listener:  # in a folder of this user's
        addresses = gather(listener.address)
        found: dict[int, Connection] = {}
        for rank in range(place.rank):
            found[rank] = Client(addresses[rank])
            found[rank].send(place.rank)
        for _ in range(place.rank + 1, place.size):
            connection = listener.accept()
            found[connection.recv()] = connection
    return dict(sorted(found.items()))


def _shared_bytes(place: Place, size: int, others: dict[int, Connection]) -> mmap.mmap:
    """Memory of the first process that all others see as well; it has no name, so a process that
    is killed leaves nothing behind."""
    if place.first:
        file = os.memfd_create("gradients")
        os.truncate(file, size)
        for other in others.values():
            reduction.send_handle(other, file, None)
    else:
        file = reduction.recv_handle(others[0])
    try:
        return mmap.mmap(file, size)
    finally:
        os.close(file)
