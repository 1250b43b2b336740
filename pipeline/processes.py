"""The rank of this process among those that train together. Loads no torch: the command line asks
before anything heavy is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import RecipeError

_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


@dataclass(frozen=True)
class ProcessRank:
    """One process among ``size``. Ranks count from 0; ``local`` ones those of this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Return whether it is the one that writes files and prints."""
        return self.rank == 0


def launched_process(environment: Mapping[str, str] = os.environ) -> ProcessRank:
    """This process's rank as torchrun, or a launcher with the same variables, has set it; alone
    without a launcher. Raises RecipeError unless the variables are numbers."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return ProcessRank()
    values = {name: environment.get(name, default) for name, default in _VARIABLES.items()}
    try:
        return ProcessRank(*map(int, values.values()))
    except ValueError as exc:
        text = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise RecipeError(
            f"the environment has {text}, as if a launcher had started this process; expected "
            "whole numbers. Start it with torchrun, or unset RANK and WORLD_SIZE."
        ) from exc


def check_processes(processes: int) -> None:
    """Raise RecipeError unless each process can have a core of its own."""
    from runtime.cpu import usable_threads  # loads numpy

    if processes > (cores := usable_threads()):
        raise RecipeError(
            f"--nproc {processes}, but this process may use {cores} core{'s' * (cores > 1)}; "
            f"expected at most one process for each. Use --nproc {cores}."
        )


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
