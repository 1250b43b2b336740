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
import select
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.processes import Place

# Everybody reads what everybody wrote, so the work of each grows with their number.
MOST_PROCESSES = 8
# Looking again and again beats being woken, which takes as long as an exchange; but whoever waits
# longer than this waits for a checkpoint or a loaded machine, and leaves the core to others.
LOOKING_SECONDS = 0.002
_MEETING_SECONDS = 60.0  # to connect, once everybody has said that it listens
_RANK = struct.Struct("<i")

T = TypeVar("T")
Gather = Callable[[Any], list[Any]]  # everybody's value, by rank; an exchange


def can_share(place: Place, device: torch.device) -> bool:
    """Whether these processes may exchange gradients through memory; else gloo or nccl does."""
    return (
        1 < place.size <= MOST_PROCESSES
        and place.local_size == place.size
        and device.type == "cpu"
        and hasattr(os, "memfd_create")  # Linux
    )


class SharedMean:
    """Means over processes of arrays of float32 numbers. Everything is an exchange: all processes
    have to call it, in the same order."""

    def __init__(
        self, place: Place, memory: mmap.mmap, others: list[socket.socket], limit_s: float
    ) -> None:
        """Use ``meet``; ``limit_s``: how long to wait for another process before giving up."""
        self._place, self._others, self._limit_s = place, others, limit_s
        # in turns, as a slow reader may still read what was written last
        self._places = torch.frombuffer(memory, dtype=torch.float32).view(2, place.size, -1)
        self._turn = 0

    @classmethod
    def meet(cls, place: Place, floats: int, gather: Gather, limit_s: float) -> SharedMean | None:
        """For arrays of at most ``floats`` numbers; None for all where one of the processes finds
        that its system does not allow it."""
        size = 4 * 2 * place.size * floats
        file = _attempt(partial(_memory_file, size if place.first else 0))
        with tempfile.TemporaryDirectory(dir=_short_folder()) as folder:
            address = str(Path(folder) / "socket")
            listener = _attempt(partial(_listen, address))
            addresses = gather(None if listener is None or file is None else address)
            if None in addresses or listener is None or file is None:
                return None
            others = _attempt(partial(_connect, place, listener, addresses))
            if not all(gather(others is not None)) or others is None:
                return None
        memory = _attempt(partial(_share, place, file, size, others))
        if not all(gather(memory is not None)) or memory is None:
            return None
        for other in others:
            other.setblocking(False)
        return cls(place, memory, others, limit_s)

    def average(self, values: Tensor) -> None:
        """Make ``values`` [N], float32, the mean of everybody's; the same bits everywhere.

        Raises torch's DistError, as its own exchanges do, when another process is gone.
        """
        self._turn = 1 - self._turn
        places = self._places[self._turn, :, : len(values)]  # (processes, N)
        places[self._place.rank].copy_(values)
        try:
            for other in self._others:
                other.send(b"+")  # at most two bytes are ever under way
            for other in self._others:
                _wait_for(other, self._limit_s)
        except OSError as exc:
            raise dist.DistError(f"the connection to it broke: {exc}") from exc
        torch.mean(places, dim=0, out=values)

    def averaged(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """What DistributedDataParallel calls for each bucket of gradients in place of gloo."""
        self.average(bucket.buffer())
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done


def _wait_for(other: socket.socket, limit_s: float) -> None:
    """Take the byte that the other process sends once it has written."""
    until = time.perf_counter() + LOOKING_SECONDS
    while True:
        try:
            if not other.recv(1):
                raise ConnectionResetError("it has ended")
            return
        except BlockingIOError:
            if time.perf_counter() < until:
                os.sched_yield()
                continue
        waiting = select.poll()
        waiting.register(other, select.POLLIN)
        if not waiting.poll(1000 * limit_s):
            raise TimeoutError(f"nothing came from it for {limit_s / 60:g} minutes")


# --- how they meet ------------------------------------------------------------------------------


def _attempt(step: Callable[[], T]) -> T | None:
    """What the step returns; None where the system refuses, in a container's sandbox for one."""
    try:
        return step()
    except OSError:
        return None


def _short_folder() -> str | None:
    """Where sockets may have names: TMPDIR is often too long for that, 107 bytes."""
    return "/tmp" if os.access("/tmp", os.W_OK) else None  # a folder of its own in it


def _memory_file(size: int) -> int:
    """Memory that has no name, so a process that is killed leaves nothing behind."""
    file = os.memfd_create("gradients")
    os.truncate(file, size)
    return file


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.settimeout(_MEETING_SECONDS)
    listener.bind(address)
    listener.listen(MOST_PROCESSES)
    return listener


def _connect(place: Place, listener: socket.socket, addresses: list[str]) -> list[socket.socket]:
    """A socket to every other process, by rank: each calls those before it."""
    found: dict[int, socket.socket] = {}
    for rank in range(place.rank):
        found[rank] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found[rank].settimeout(_MEETING_SECONDS)
        found[rank].connect(addresses[rank])  # is done before the other one accepts
        found[rank].sendall(_RANK.pack(place.rank))
    with listener:
        for _ in range(place.rank + 1, place.size):
            caller, _ = listener.accept()
            caller.settimeout(_MEETING_SECONDS)
            (rank,) = _RANK.unpack(caller.recv(_RANK.size, socket.MSG_WAITALL))
            found[rank] = caller
    return [found[rank] for rank in sorted(found)]


def _share(place: Place, file: int, size: int, others: list[socket.socket]) -> mmap.mmap:
    """The first process's memory in all of them; ``file`` is closed."""
    if place.first:
        for other in others:
            socket.send_fds(other, [b"+"], [file])
    else:
        os.close(file)
        _, (file,), _, _ = socket.recv_fds(others[0], 1, 1)
    try:
        return mmap.mmap(file, size)
    finally:
        os.close(file)
