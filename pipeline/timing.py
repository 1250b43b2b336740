"""How fast is a callable from images to probabilities, and how much memory does it take? Takes
PyTorch, ONNX, the packaged predictor or a lambda alike; numpy and the standard library only.
Knows neither variants nor verdicts: it measures, others judge.

Machines are shared, so: candidates take turns in short slices and a disturbance hits all of them;
ratios are taken within a round; medians are used throughout; CPU time stands beside wall time.
"""

from __future__ import annotations

import gc
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from runtime.spec import ModelSpec

Images = NDArray[np.uint8]  # [N, height, width, channels]
Run = Callable[[Images], Any]  # images -> probabilities; the answer is not looked at
OnStep = Callable[[str, int, int], None]  # (name, slices done, slices in all)

# A percentile is claimed only when at least so many samples lie beyond it: 100 for p90, 1000 for
# p99. MLPerf Inference asks more (1,024 queries for single-stream p90, 24,576 for a bound at 99 %
# confidence); ours stay point estimates and say their n.
_BEYOND = 10
_MIN_BATCH_TURNS = 3  # a median of fewer is none
_POOL_IMAGES = 256  # different images in turn; copied, so that no disk read is timed


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
    """What :func:`measure_all` found for one candidate."""

    latency: Latency  # at batch 1
    cpu_ms: float  # CPU time of an image at batch 1: median over rounds, threads added up
    images_per_second: float  # at ``batch``: median over rounds
    batch: int  # images in each call of the throughput measurement
    rounds: tuple[Round, ...]  # in the order of measurement, the same rounds for all candidates


@dataclass(frozen=True)
class Process:
    """What a fresh process pays; medians over ``n`` processes, files in the disk cache."""

    cold_start_ms: float  # from the first import to the first answer; the interpreter is running
    rss_mb: float | None  # resident after the first answers; None: unknown on this system
    peak_rss_mb: float | None  # the most that was ever resident
    n: int


@dataclass(frozen=True)
class Ratio:
    """How many times as fast; ``low`` to ``high`` is a 95 % interval for the median."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Clock:
    """Where time is read, so that a test can bring its own."""

    wall_ns: Callable[[], int] = time.perf_counter_ns
    cpu_ns: Callable[[], int] = time.process_time_ns


@dataclass(frozen=True)
class TimingOptions:
    """How long to look."""

    seconds: float = 3.0  # for each candidate, at batch 1 and, if it is another, at ``batch``
    batch: int = 32  # images in a call when throughput is measured
    slice_seconds: float = 0.05  # a turn: long enough for warm caches, short against disturbances
    warmup: int = 20  # calls before anything is timed, then a tenth of it at each turn
    min_n: int = 30  # calls at batch 1, however long they take


@dataclass
class _Samples:
    """What has been collected of one candidate so far."""

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


def measure_latency(
    run: Run,
    images: Images,
    *,
    seconds: float = 3.0,
    batch: int = 1,
    warmup: int = 20,
    min_n: int = 30,
    clock: Clock = Clock(),
) -> Latency:
    """Time one callable on different images [N, h, w, c] in turn for about ``seconds``."""
    batches = _batches(images, batch)
    _warm(run, batches, warmup)
    with _no_garbage_collection():
        samples = _slice(run, batches, 0, round(seconds * 1e9), min_n, clock)
    return latency_of(samples, batch)


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
    the same neighbour. Raises PipelineError when there is nothing to run or nothing to run it on.
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
    start = len(samples.wall_ns)  # goes on with the next image of the pool
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
    """How many times as fast ``other`` is as ``base``; both from one :func:`measure_all`.

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


def _median_rank(n: int) -> int:
    """The largest k with P(at most k of n fall below the median) <= 2.5 %, or 0."""
    below, rank = 0.0, 0
    for k in range(n // 2):
        below += math.comb(n, k) / 2**n
        if below > 0.025:
            break
        rank = k
    return rank


# --- a fresh process ------------------------------------------------------------------------

# The clock starts before numpy is imported. The process is isolated (-I), so that neither the
# environment nor the current folder changes what it imports: ``paths`` are the caller's.
_HEAD = """
import json, sys, time
request = json.load(sys.stdin)
sys.path[:] = request["paths"]
start = time.perf_counter_ns()
"""
_LOAD_PREDICTOR = """
from runtime import Predictor
from runtime.spec import ModelSpec
preprocess = request["preprocess"]
if preprocess is not None:
    with open(preprocess, "rb") as file:
        preprocess = file.read()
with open(request["model"], "rb") as file:
    model = file.read()
options = request["options"]
if options["thresholds"] is not None:
    options["thresholds"] = tuple(options["thresholds"])
run = Predictor.from_parts(ModelSpec.from_dict(request["spec"]), preprocess, model, **options)
"""
_LOAD_FUNCTION = """
import importlib
run = getattr(importlib.import_module(request["module"]), request["function"])(**request["options"])
"""
_TAIL = """
import numpy
images = numpy.arange(numpy.prod(request["shape"])).astype("uint8").reshape(request["shape"])
run(images)
cold = time.perf_counter_ns() - start
for _ in range(request["answers"]):
    run(images)
def resident():
    try:
        with open("/proc/self/status") as file:
            rows = dict(line.split(":", 1) for line in file)
        return [int(rows[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM")]
    except (OSError, KeyError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return [None, None]
    unit = 1 if sys.platform == "darwin" else 1024
    return [None, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit]
rss, peak = resident()
print(json.dumps({"cold_ns": cold, "rss": rss, "peak": peak}))
"""


def measure_process(
    spec: ModelSpec,
    model: Path,
    *,
    preprocess: Path | None = None,
    thresholds: Sequence[float] | None = None,
    variant: str = "fp32",
    portable: bool = True,
    device: str = "cpu",
    threads: int | None = None,
    repeats: int = 3,
    answers: int = 20,
) -> Process:
    """Cold start and memory of the shipped predictor (numpy and onnxruntime only).

    ``model`` and ``preprocess`` are ONNX files. Raises PipelineError when the process fails.
    """
    options = {
        "thresholds": None if thresholds is None else list(thresholds),
        "variant": variant,
        "portable": portable,
        "device": device,
        "threads": threads,
    }
    request = {
        "spec": spec.to_dict(),
        "model": str(model),
        "preprocess": None if preprocess is None else str(preprocess),
        "shape": [1, *spec.shape],
        "options": options,
        "answers": answers,
    }
    return _measure_script(_HEAD + _LOAD_PREDICTOR + _TAIL, request, repeats)


def measure_function_process(
    function: str,
    options: Mapping[str, Any],
    shape: Sequence[int],
    *,
    repeats: int = 3,
    answers: int = 20,
) -> Process:
    """Cold start and memory of anything else, such as the network in PyTorch.

    ``function`` is "module:name"; it is called in a fresh process with ``options`` (JSON values)
    and returns a callable, which then takes uint8 images of ``shape`` [1, h, w, c].
    """
    module, _, name = function.partition(":")
    request = {
        "module": module,
        "function": name,
        "options": dict(options),
        "shape": [int(size) for size in shape],
        "answers": answers,
    }
    return _measure_script(_HEAD + _LOAD_FUNCTION + _TAIL, request, repeats)


def _measure_script(script: str, request: dict[str, Any], repeats: int) -> Process:
    text = json.dumps({**request, "paths": _import_paths()})
    rows = [_run_script(script, text) for _ in range(max(repeats, 1))]
    return Process(
        cold_start_ms=statistics.median(row["cold_ns"] for row in rows) / 1e6,
        rss_mb=_median_mb([row["rss"] for row in rows]),
        peak_rss_mb=_median_mb([row["peak"] for row in rows]),
        n=len(rows),
    )


def _median_mb(sizes: Sequence[int | None]) -> float | None:
    known = [size for size in sizes if size is not None]
    return statistics.median(known) / 1e6 if known else None


def _import_paths() -> list[str]:
    """Where this process finds modules, so that the fresh one finds the same."""
    return [path or str(Path.cwd()) for path in sys.path]


def _run_script(script: str, request: str) -> dict[str, Any]:
    command = [sys.executable, "-I", "-c", script]
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise PipelineError(f"the fresh process that is timed did not finish: {exc}.") from exc
    if done.returncode != 0:
        last = "\n".join(done.stderr.strip().splitlines()[-5:]) or "no message"
        raise PipelineError(
            f"the fresh process that is timed ended with exit code {done.returncode}:\n{last}"
        )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# --- for the report -------------------------------------------------------------------------


def to_dict(timing: Timing, process: Process | None = None) -> dict[str, Any]:
    """One flat row with units in its names, as measurements.json and the report carry it."""
    latency = asdict(timing.latency)
    del latency["batch"]  # always 1 here; the row's ``batch`` is that of the throughput
    row = {
        **latency,
        "cpu_ms": timing.cpu_ms,
        "images_per_second": timing.images_per_second,
        "batch": timing.batch,
    }
    if process is not None:
        row |= {key: value for key, value in asdict(process).items() if key != "n"}
    return row
