"""Where this process stands among those that train together. Knows nothing of torch: the command
line asks before anything heavy is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import RecipeError


@dataclass(frozen=True)
class Place:
    """One process among ``size``. Ranks count from 0; ``local`` ones those of this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """The one that writes files and talks to people."""
        return self.rank == 0


def launched_place(environment: Mapping[str, str] = os.environ) -> Place:
    """What torchrun, or another launcher with the same variables, says of this process; the only
    one of its run when nothing does."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return Place()
    defaults = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    found = {name: environment.get(name, default) for name, default in defaults.items()}
    try:
        return Place(*map(int, found.values()))
    except ValueError as exc:
        told = ", ".join(f"{name}={value!r}" for name, value in found.items())
        raise RecipeError(
            f"a launcher seems to have started this process, but {told}; expected whole numbers. "
            "Start it with torchrun, or unset RANK and WORLD_SIZE."
        ) from exc


def check_batch(batch_size: int, processes: int) -> None:
    """Raise RecipeError unless a batch can be divided evenly among the processes."""
    if batch_size % processes == 0 and batch_size >= 2 * processes:
        return
    fitting = max(2, round(batch_size / processes)) * processes
    raise RecipeError(
        f"train.batch_size = {batch_size} is the batch of all processes together and cannot be "
        f"divided evenly, at least 2 images each, among {processes}. Set "
        f"train.batch_size={fitting}, or choose another number of processes."
    )
