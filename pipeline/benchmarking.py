"""Latency, throughput, cold start and memory of PyTorch and of every variant that passed, side by
side; then the default variant of each kind of device. Independent of artifact folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.gates import within_bounds
from exporters.options import GateOptions
from exporters.package.defaults import Measured, choose_defaults
from pipeline.engine.stage import Observer
from pipeline.errors import GateError
from pipeline.hardware import detect
from pipeline.learning.eager import eager, open_eager
from pipeline.recipe import BenchmarkOptions
from pipeline.reports import BenchmarkReport, JudgedVariant, TimedVariant
from pipeline.timing.fresh_process import measure_function_process, measure_process
from pipeline.timing.measure import Run, TimingOptions, measure_all, speedup
from pipeline.timing.values import Process, Speed, Timing
from runtime import DeviceError, Predictor
from runtime.cpu import cpu_target
from runtime.spec import ModelSpec

EAGER = "PyTorch eager"


@dataclass(frozen=True)
class Contestants:
    """Everything that is timed, and on which images."""

    spec: ModelSpec
    images: NDArray[np.uint8]  # [N, height, width, channels]
    checkpoint: Path  # of the network in PyTorch
    variants: tuple[JudgedVariant, ...]
    models: Mapping[str, Path]  # the file of each variant
    options: BenchmarkOptions


def benchmark(contestants: Contestants, gate: GateOptions, observer: Observer) -> BenchmarkReport:
    """Time everything in turns, hold it against the recipe's bounds, and choose defaults among the
    variants that may ship; raises GateError when there is none."""
    timings, processes = time_all(contestants, observer), start_all(contestants, observer)
    variants = timed_variants(contestants, timings, processes, gate)
    for note in require_one_ships(variants):
        observer.note(note)
    ships = [variant for variant in variants if variant.ships]
    targets = {cpu_target(): measured(ships, timings)}
    # fp32 as well, which speeds are compared with, even where it is out of bounds
    on_cuda = [v.judged for v in variants if v.ships or v.judged.id == "fp32"]
    cuda = time_on_cuda(contestants, on_cuda, observer)
    if isinstance(cuda, dict):
        targets["cuda"] = measured(ships, cuda)
    defaults = choose_defaults(targets)
    here = next(row for row in defaults if row.target == cpu_target())
    return BenchmarkReport(
        headline=f"default here ({here.target}): {here.variant}, {here.reason}",
        hardware=detect(),
        target=cpu_target(),
        reference=Speed.of(timings[EAGER], processes[EAGER], contestants.options.threads),
        variants=variants,
        cuda=cuda if isinstance(cuda, str) else {n: Speed.of(t) for n, t in cuda.items()},
        defaults=defaults,
    )


def time_all(contestants: Contestants, observer: Observer) -> dict[str, Timing]:
    """Time PyTorch and every variant on the CPU, in turns, at the recipe's number of threads."""
    with eager(contestants.checkpoint, contestants.options.threads) as network:
        return _time(contestants, "cpu", contestants.variants, {EAGER: network}, observer)


def time_on_cuda(
    contestants: Contestants, variants: Sequence[JudgedVariant], observer: Observer
) -> dict[str, Timing] | str:
    """Timings on the GPU, or the reason why there are none."""
    try:
        return _time(contestants, "cuda", variants, {}, observer)
    except DeviceError as exc:
        return f"not measured here: {exc}"


def _time(
    contestants: Contestants,
    device: str,
    variants: Sequence[JudgedVariant],
    others: Mapping[str, Run],
    observer: Observer,
) -> dict[str, Timing]:
    options = contestants.options
    with ExitStack() as stack:
        runs = dict(others)
        for variant in variants:
            predictor = Predictor.from_parts(
                contestants.spec,
                None,
                contestants.models[variant.id],
                variant=variant.id,
                portable=variant.trial.portable,
                device=device,
                threads=options.threads,
            )
            runs[variant.id] = stack.enter_context(predictor)
        return measure_all(
            runs,
            contestants.images,
            TimingOptions(seconds=options.seconds, batch=options.batch),
            on_step=lambda name, done, total: observer.step(
                f"benchmark: {device}", done, total, name
            ),
        )


def start_all(contestants: Contestants, observer: Observer) -> dict[str, Process]:
    """Cold start and memory of PyTorch and of every variant, each in a process of its own."""
    spec, threads = contestants.spec, contestants.options.threads
    total = len(contestants.variants) + 1
    options = {"checkpoint": str(contestants.checkpoint.resolve()), "threads": threads}
    function = f"{open_eager.__module__}:{open_eager.__name__}"
    processes = {EAGER: measure_function_process(function, options, (1, *spec.shape))}
    observer.step("benchmark: cold starts", 1, total, EAGER)
    for number, variant in enumerate(contestants.variants, start=2):
        processes[variant.id] = measure_process(
            spec,
            contestants.models[variant.id].resolve(),
            variant=variant.id,
            portable=variant.trial.portable,
            threads=threads,
        )
        observer.step("benchmark: cold starts", number, total, variant.id)
    return processes


def timed_variants(
    contestants: Contestants,
    timings: Mapping[str, Timing],
    processes: Mapping[str, Process],
    gate: GateOptions,
) -> tuple[TimedVariant, ...]:
    """Each variant with its speed, checked against the bounds of size, latency and memory."""
    variants = []
    for judged in contestants.variants:
        name = judged.id
        speed = Speed.of(timings[name], processes[name], contestants.options.threads)
        bounds = within_bounds(
            gate,
            size_bytes=contestants.models[name].stat().st_size,
            latency_ms=speed.p50_ms,
            memory_mb=speed.rss_mb,
        )
        ratio = speedup(timings["fp32"], timings[name])
        variants.append(TimedVariant(judged, speed, ratio, bounds))
    return tuple(variants)


def require_one_ships(variants: Sequence[TimedVariant]) -> list[str]:
    """A note for each variant out of its bounds; raises GateError when none is within them."""
    broken = {
        variant.judged.id: [check.text for check in variant.bounds if not check.passed]
        for variant in variants
    }
    if all(broken.values()):
        reasons = "; ".join(f"{name}: {', '.join(texts)}" for name, texts in broken.items())
        raise GateError(
            f"no variant keeps the bounds of the recipe on this machine: {reasons}. Raise the "
            "bounds in [gate], or make the network smaller."
        )
    refused = {name: "; ".join(texts) for name, texts in broken.items() if texts}
    return [f"{name} is not packaged: {text}" for name, text in refused.items()]


def measured(variants: Sequence[TimedVariant], timings: Mapping[str, Timing]) -> list[Measured]:
    """The variants that may ship, as the choice of defaults takes them."""
    return [
        Measured(
            id=variant.judged.id,
            precision=variant.judged.trial.precision,
            portable=variant.judged.trial.portable,
            p50_ms=timings[variant.judged.id].latency.p50_ms,
            speedup=speedup(timings["fp32"], timings[variant.judged.id]).value,
        )
        for variant in variants
    ]
