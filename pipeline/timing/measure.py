"""Time callables from images to probabilities side by side: PyTorch, ONNX, the packaged predictor
or a lambda.

Machines are shared. Candidates therefore take turns in short slices, so that a disturbance hits all
of them; ratios are taken within a round; medians are used throughout; CPU time is measured next to
wall time.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exporters.search import trial
from pipeline.errors import PipelineError
from pipeline.timing.values import Latency, Ratio, Round, Speedup, Timing

Images = NDArray[np.uint8]  # [N, height, width, channels]
Run = Callable[[Images], Any]  # images -> probabilities; the answer is not looked at
OnStep = Callable[[str, int, int], None]  # (name, slices done, slices in all)

# A percentile is claimed only when at least so many samples exceed it: 100 for p90, 1000 for
# p99. MLPerf Inference asks more (1,024 queries for single-stream p90, 24,576 for a bound at 99 %
# confidence); ours are point estimates with their n.
_BEYOND = 10
_MIN_BATCH_TURNS = 3  # for a median
_POOL_IMAGES = 256  # different images in turn; copied, so that no disk read is timed


@dataclass(frozen=True)
class Clock:
    """The sources of time, which a test can replace."""

    wall_ns: Callable[[], int] = time.perf_counter_ns
    cpu_ns: Callable[[], int] = time.process_time_ns


@dataclass(frozen=True)
class TimingOptions:
    """Durations and sizes of a measurement."""

    seconds: float = 3.0  # for each candidate, at batch 1 and, if it is another, at ``batch``
    batch: int = 32  # images in a call when throughput is measured
    slice_seconds: float = 0.05  # a turn: long enough for warm caches, short against disturbances
    warmup: int = 20  # calls before anything is timed, then a tenth of it at each turn
    min_n: int = 30  # calls at batch 1, however long they take


@dataclass
class _Samples:
    """Measurements of one candidate so far."""

    wall_ns: list[int] = field(default_factory=list)  # of each call at batch 1
    rounds: list[Round] = field(default_factory=list)
    images_per_second: list[float] = field(default_factory=list)  # of each turn
    batch_ns: int = 0  # spent on throughput


def latency_of(samples_ns: Sequence[int], batch: int) -> Latency:
    """Percentiles of wall times in nanoseconds, at least one of them."""
    ordered = sorted(samples_ns)
    return Latency(
        p50_ms=_percentile(ordered, 0.50) / 1e6,
        p90_ms=_claimed(ordered, 0.90),
        p99_ms=_claimed(ordered, 0.99),
        mean_ms=statistics.fmean(ordered) / 1e6,
        n=len(ordered),
        batch=batch,
    )


def _percentile(ordered: Sequence[int], share: float) -> int:
    # the tiny number keeps 0.99 * 1000 = 990.0000000000001 from becoming rank 991
    return ordered[max(math.ceil(share * len(ordered) - 1e-9), 1) - 1]


def _claimed(ordered: Sequence[int], share: float) -> float | None:
    if round(len(ordered) * (1 - share), 6) < _BEYOND:
        return None
    return _percentile(ordered, share) / 1e6


def measure_all(
    runs: Mapping[str, Run],
    images: Images,
    options: TimingOptions = TimingOptions(),
    *,
    on_step: OnStep | None = None,
    clock: Clock = Clock(),
) -> dict[str, Timing]:
    """Time several callables side by side, in rounds in which each has one turn.

    ``images`` are uint8 [N, h, w, c]; every candidate sees the same ones in the same order. The
    order of candidates turns round from one round to the next, so that none always runs behind
    the same neighbor. Raises PipelineError when there is nothing to run or nothing to run it on.
    """
    if not runs:
        raise PipelineError("no candidate to time; expected at least one callable.")
    ones, many = _batches(images, 1), _batches(images, options.batch)
    for run in runs.values():
        _warm(run, ones, options.warmup)
        if options.batch > 1:
            _warm(run, many, max(options.warmup // 10, 1))
    samples = {name: _Samples() for name in runs}
    rounds = max(round(options.seconds / options.slice_seconds), 1)
    turns = list(_turns(list(runs), rounds))
    with _no_garbage_collection():
        for done, name in enumerate(turns, start=1):
            _turn(runs[name], samples[name], ones, many, rounds, options, clock)
            if on_step is not None:
                on_step(name, done, len(turns))
    return {name: _timing(samples[name], options.batch) for name in runs}


def _turns(names: list[str], rounds: int) -> Iterator[str]:
    """Every name once in each round, forwards and backwards by turns."""
    for number in range(rounds):
        yield from names if number % 2 == 0 else reversed(names)


def _turn(
    run: Run,
    samples: _Samples,
    ones: list[Images],
    many: list[Images],
    rounds: int,
    options: TimingOptions,
    clock: Clock,
) -> None:
    """One slice at batch 1, then one of throughput; a few untimed calls warm the caches again."""
    slice_ns = round(options.seconds * 1e9 / rounds)
    warm = max(options.warmup // 10, 1)
    _warm(run, ones, warm)
    start = len(samples.wall_ns)  # continues with the next image of the pool
    cpu = clock.cpu_ns()
    calls = _slice(run, ones, start, slice_ns, math.ceil(options.min_n / rounds), clock)
    cpu = clock.cpu_ns() - cpu
    samples.wall_ns += calls
    samples.rounds.append(Round(_percentile(sorted(calls), 0.5) / 1e6, cpu / len(calls) / 1e6))
    if options.batch == 1:  # throughput is that of the calls just made
        samples.images_per_second.append(len(calls) * 1e9 / max(sum(calls), 1))
        return
    enough = len(samples.images_per_second) >= _MIN_BATCH_TURNS
    if enough and samples.batch_ns > options.seconds * 1e9:
        return  # one batch of a slow candidate takes longer than a slice: its time is spent
    _warm(run, many, 1)
    calls = _slice(run, many, 0, slice_ns, 1, clock)
    samples.batch_ns += sum(calls)
    samples.images_per_second.append(len(calls) * options.batch * 1e9 / max(sum(calls), 1))


def _timing(samples: _Samples, batch: int) -> Timing:
    return Timing(
        latency=latency_of(samples.wall_ns, 1),
        cpu_ms=statistics.median(turn.cpu_ms for turn in samples.rounds),
        images_per_second=statistics.median(samples.images_per_second),
        batch=batch,
        rounds=tuple(samples.rounds),
    )


def _batches(images: Images, batch: int) -> list[Images]:
    """Contiguous batches from the first images, repeated where there are too few."""
    if len(images) == 0:
        raise PipelineError("no image to time with; expected uint8 [N, h, w, c] with N >= 1.")
    pool = np.array(images[:_POOL_IMAGES])
    count = max(len(pool) // batch, 1)
    index = np.arange(count * batch) % len(pool)
    return [pool[part] for part in np.split(index, count)]


def _warm(run: Run, batches: Sequence[Images], calls: int) -> None:
    for number in range(calls):
        run(batches[number % len(batches)])


def _slice(
    run: Run, batches: Sequence[Images], start: int, duration_ns: int, min_n: int, clock: Clock
) -> list[int]:
    """Wall nanoseconds of calls for ``duration_ns``, and of at least ``min_n`` calls."""
    now, count = clock.wall_ns, len(batches)
    samples: list[int] = []
    end = now() + duration_ns
    number, after = start, 0
    while len(samples) < min_n or after < end:
        images = batches[number % count]
        before = now()
        run(images)
        after = now()
        samples.append(after - before)
        number += 1
    return samples


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collections would land in whichever call is running, as in :mod:`timeit`."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def speed_ratio(base: Timing, other: Timing, *, of: Literal["wall", "cpu"] = "wall") -> Ratio:
    """Speed of ``other`` over that of ``base``; both from one :func:`measure_all`.

    The median of the ratios within each round, and the order statistics that hold the true
    median with 95 % confidence whatever the noise looks like (sign test). With fewer than six
    rounds that is the whole range and less sure.
    """
    pairs = zip(base.rounds, other.rounds, strict=True)
    if of == "wall":
        ratios = sorted(first.p50_ms / max(second.p50_ms, 1e-9) for first, second in pairs)
    else:
        ratios = sorted(first.cpu_ms / max(second.cpu_ms, 1e-9) for first, second in pairs)
    rank = _median_rank(len(ratios))
    return Ratio(statistics.median(ratios), ratios[rank], ratios[-1 - rank])


def decisive_speedup(base: Timing, other: Timing, threads: int) -> float:
    """The one number that a search decides by.

    One thread computes for as long as it has the core, so that its CPU time is its wall time on a
    quiet machine. (On a busy one 14 times was measured by the wall where 3.6 is right.) Several
    threads wait for each other, which only the wall clock sees.
    """
    return speed_ratio(base, other, of="cpu" if threads == 1 else "wall").value


def speedup(base: Timing, other: Timing) -> Speedup:
    """Speed of ``other`` over that of ``base``: wall time with its interval, and CPU time."""
    wall, cpu = speed_ratio(base, other), speed_ratio(base, other, of="cpu")
    return Speedup(wall.value, wall.low, wall.high, cpu.value)


def time_model(
    fp32: Run, candidate: Run, images: NDArray[Any], threads: int, options: TimingOptions
) -> trial.Speed:
    """Time a candidate of a search next to the FP32 model, in turns; both run at ``threads``."""
    timings = measure_all({"fp32": fp32, "candidate": candidate}, images, options)
    base, other = timings["fp32"], timings["candidate"]
    return trial.Speed(
        other.latency.p50_ms,
        decisive_speedup(base, other, threads),
        speed_ratio(base, other, of="cpu").value,
    )


def _median_rank(n: int) -> int:
    """The largest k with P(at most k of n fall below the median) <= 2.5 %, or 0."""
    below, rank = 0.0, 0
    for k in range(n // 2):
        below += math.comb(n, k) / 2**n
        if below > 0.025:
            break
        rank = k
    return rank
