"""The mean of gradients through shared memory: real processes, whatever their pace, and one that
dies in the middle."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import socket
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import children
import pytest
import torch
import torch.distributed as dist

from pipeline.learning.distributed import shared_memory
from pipeline.learning.distributed.shared_memory import MOST_PROCESSES, SharedMean, can_share
from pipeline.processes import Place

pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="not run: only Linux shares memory without a name"
)
LONGEST = 5_000
CPU = torch.device("cpu")
# forked from a server that has imported torch once, which takes longer than all that is tested
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pipeline.learning.distributed.shared_memory", "pytest"])


class Folder:
    """What ``World.gather`` does, by files: values of all ranks."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder, self.place, self.calls = folder, place, 0

    def gather(self, value: Any) -> list[Any]:
        """JSON values."""
        self.calls += 1
        files = [self.folder / f"{self.calls}.{rank}" for rank in range(self.place.size)]
        own = files[self.place.rank]
        aside = own.with_name(own.name + ".partial")
        aside.write_text(json.dumps(value), encoding="utf-8")
        aside.rename(own)
        while not all(file.exists() for file in files):
            time.sleep(0.01)
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def values_of(rank: int, turn: int) -> torch.Tensor:
    """Of lengths that change from turn to turn, the same for all ranks."""
    length = 1 + turn * 37 % LONGEST
    return torch.rand(length, generator=torch.Generator().manual_seed(1000 * turn + rank))


def at_its_own_pace(folder: Path, rank: int, size: int, turns: int, dies_at: int) -> None:
    """One process of the tests; leaves all means, or what was raised."""
    place = Place(rank, size, rank, size)
    mean = SharedMean.meet(place, LONGEST, Folder(folder, place).gather, children.PATIENCE)
    assert mean is not None
    pace, found = random.Random(rank), []
    try:
        for turn in range(turns):
            if rank == 0 and turn == dies_at:
                os._exit(1)
            if pace.random() < 0.1:
                time.sleep(pace.random() / 30)  # past LOOKING_SECONDS as well
            values = values_of(rank, turn)
            mean.average(values)
            found.append(values)
    except dist.DistError as exc:
        (folder / f"raised.{rank}").write_text(str(exc), encoding="utf-8")
        sys.exit(1)
    torch.save(found, folder / f"found.{rank}")


def run(
    folder: Path, size: int, turns: int, dies_at: int = -1, context: BaseContext = PROCESSES
) -> list[int | None]:
    """Exit codes by rank."""
    processes = [
        context.Process(target=at_its_own_pace, args=(folder, rank, size, turns, dies_at))
        for rank in range(size)
    ]
    return children.exit_codes(processes)


def test_means_are_right_and_have_the_same_bits_everywhere(tmp_path: Path) -> None:
    assert run(tmp_path, size=3, turns=300) == [0, 0, 0]
    found = [torch.load(tmp_path / f"found.{rank}") for rank in range(3)]
    for turn in range(300):
        expected = torch.stack([values_of(rank, turn) for rank in range(3)]).mean(0)
        torch.testing.assert_close(found[0][turn], expected)
        assert torch.equal(found[0][turn], found[1][turn])
        assert torch.equal(found[0][turn], found[2][turn])


def test_one_that_dies_is_noticed_by_all(tmp_path: Path) -> None:
    assert run(tmp_path, size=3, turns=300, dies_at=150) == [1, 1, 1]
    for rank in (1, 2):
        said = (tmp_path / f"raised.{rank}").read_text()
        assert said.startswith("the connection to it broke: ")


@pytest.mark.parametrize("refused", ["memfd_create", "bind", "mmap"])
def test_where_one_process_must_not_share_none_does(tmp_path: Path, refused: str) -> None:
    """As in a container whose sandbox refuses a system call."""
    processes = [
        PROCESSES.Process(target=meets_in_a_sandbox, args=(tmp_path, rank, refused if rank else ""))
        for rank in range(2)
    ]
    assert children.exit_codes(processes) == [0, 0]


def meets_in_a_sandbox(folder: Path, rank: int, refused: str) -> None:
    """Ends well when there is nothing to share."""

    place = Place(rank, 2, rank, 2)
    gather = Folder(folder, place).gather
    calls = {"memfd_create": (os, "memfd_create"), "bind": (shared_memory, "_listen")}
    calls["mmap"] = (shared_memory.mmap, "mmap")
    with ExitStack() as stack:
        if refused:
            owner, name = calls[refused]
            stack.enter_context(patch.object(owner, name, side_effect=PermissionError(refused)))
        mean = SharedMean.meet(place, LONGEST, gather, children.PATIENCE)
    sys.exit(mean is not None)


def test_a_long_name_of_the_temporary_folder_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    own = multiprocessing.get_context("spawn")  # the server keeps the variables that it began with
    assert run(tmp_path, size=2, turns=3, context=own) == [0, 0]
    assert list(long.iterdir()) == []


def test_whoever_waits_long_does_not_use_the_core() -> None:
    here, there = socket.socketpair()
    here.setblocking(False)
    late = threading.Timer(1.0, there.send, (b"+",))
    late.start()
    before = time.process_time()
    shared_memory._wait_for(here, 60)
    assert time.process_time() - before < 0.5
    late.join()


def test_waiting_ends_some_time() -> None:
    here, _there = socket.socketpair()
    here.setblocking(False)
    with pytest.raises(TimeoutError, match=r"nothing came from it for 0\.001 minutes"):
        shared_memory._wait_for(here, 0.06)


def test_who_can_share() -> None:
    two = Place(0, 2, 0, 2)
    assert can_share(two, CPU)
    assert not can_share(Place(), CPU)  # alone
    assert not can_share(replace(two, size=4), CPU)  # two machines
    assert not can_share(two, torch.device("cuda"))
    many = MOST_PROCESSES + 1
    assert not can_share(Place(0, many, 0, many), CPU)
    assert can_share(Place(0, many - 1, 0, many - 1), CPU)


def test_other_systems_exchange_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert not can_share(Place(0, 2, 0, 2), CPU)
