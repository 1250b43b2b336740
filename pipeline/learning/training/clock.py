"""The clock of a training: times summed over resumes, the time limit, and when to save."""

from __future__ import annotations

import time

from pipeline.learning.distributed.world import World
from pipeline.recipe import TrainOptions


class Clock:
    """Starts when it is made. Several processes share the clock of the first one."""

    def __init__(self, options: TrainOptions, world: World) -> None:
        self.limit_used = 0.0  # the share of ``max_minutes`` that is over; 0 without a limit
        self._options, self._world = options, world
        self._cpu_before = self._wall_before = 0.0  # seconds of the processes before this one
        self._cpu_start, self._wall_start = time.process_time(), time.perf_counter()
        self._saved_at = self._wall_start

    def cpu_seconds(self) -> float:
        """CPU time of all threads of all processes, summed over resumes; an exchange."""
        return self._cpu_before + self._world.total(time.process_time() - self._cpu_start)

    @property
    def wall_seconds(self) -> float:
        """Wall time, summed over resumes."""
        return self._wall_before + time.perf_counter() - self._wall_start

    def resume(self, cpu_seconds: float, wall_seconds: float) -> None:
        """Continue from the times of an earlier process."""
        self._cpu_before, self._wall_before = cpu_seconds, wall_seconds

    def check_limit(self) -> None:
        """Update ``limit_used``; an exchange where there is a limit."""
        if self._options.max_minutes is not None:
            share = self.wall_seconds / (60 * self._options.max_minutes)
            self.limit_used = self._world.agree_number(share)

    def save_is_due(self) -> bool:
        """Whether ``checkpoint_seconds`` are over since the last save; an exchange."""
        due = time.perf_counter() - self._saved_at >= self._options.checkpoint_seconds
        return bool(self._world.agree_number(due))

    def saved(self) -> None:
        """Restart the time to the next save."""
        self._saved_at = time.perf_counter()
