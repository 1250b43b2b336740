"""Speeds and memory, as values. Loads no numpy."""

from __future__ import annotations

from dataclasses import dataclass

from exporters.options import Strict


@dataclass(frozen=True)
class Latency:
    """Wall time of one call, nearest-rank percentiles: each is a value that occurred."""

    p50_ms: float
    p90_ms: float | None  # None: fewer than 100 calls
    p99_ms: float | None  # None: fewer than 1000 calls
    mean_ms: float
    n: int  # calls that were timed
    batch: int  # images in each call


@dataclass(frozen=True)
class Round:
    """One candidate's turn in one round, both numbers for batch 1."""

    p50_ms: float  # wall time of a call
    cpu_ms: float  # CPU time of an image, all threads of the process together


@dataclass(frozen=True)
class Timing:
    """Result of :func:`pipeline.timing.measure.measure_all` for one candidate."""

    latency: Latency  # at batch 1
    cpu_ms: float  # CPU time of an image at batch 1: median over rounds, threads added up
    images_per_second: float  # at ``batch``: median over rounds
    batch: int  # images in each call of the throughput measurement
    rounds: tuple[Round, ...]  # in the order of measurement, the same rounds for all candidates


@dataclass(frozen=True)
class Process:
    """Cost of a fresh process; medians over ``n`` processes, files in the disk cache."""

    cold_start_ms: float  # from the first import to the first answer; the interpreter is running
    rss_mb: float | None  # resident after the first answers; None: unknown on this system
    peak_rss_mb: float | None  # the most that was ever resident
    n: int


@dataclass(frozen=True)
class Ratio:
    """A ratio of speeds; ``low`` to ``high`` is a 95 % interval for the median."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Speed(Strict):
    """The summary of a :class:`Timing` that reports carry. Latency is at batch 1."""

    p50_ms: float
    p90_ms: float | None  # None: fewer than 100 calls
    p99_ms: float | None  # None: fewer than 1000 calls
    mean_ms: float
    n: int  # calls that were timed
    cpu_ms: float | None = None  # CPU time of an image, all threads added up
    images_per_second: float | None = None  # at ``batch``
    batch: int | None = None
    cold_start_ms: float | None = None  # fresh process, from the first import to the first answer
    rss_mb: float | None = None  # resident after the first answers
    peak_rss_mb: float | None = None
    threads: int | None = None

    @classmethod
    def of(
        cls, timing: Timing, process: Process | None = None, threads: int | None = None
    ) -> Speed:
        """Summarize a timing, and the cost of a fresh process where that was measured."""
        latency = timing.latency
        return cls(
            p50_ms=latency.p50_ms,
            p90_ms=latency.p90_ms,
            p99_ms=latency.p99_ms,
            mean_ms=latency.mean_ms,
            n=latency.n,
            cpu_ms=timing.cpu_ms,
            images_per_second=timing.images_per_second,
            batch=timing.batch,
            cold_start_ms=process.cold_start_ms if process else None,
            rss_mb=process.rss_mb if process else None,
            peak_rss_mb=process.peak_rss_mb if process else None,
            threads=threads,
        )


@dataclass(frozen=True)
class Speedup(Strict):
    """Speed over that of FP32 in the same rounds; the interval is at 95 %."""

    value: float
    low: float | None = None
    high: float | None = None
    cpu_value: float | None = None  # the same in CPU time
