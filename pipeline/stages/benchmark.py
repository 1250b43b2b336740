"""Latency, throughput, cold start and memory of PyTorch and of every variant that passed, side by
side; then the default variant of each kind of device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.engine.stage import Context, Stage
from pipeline.errors import GateError
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from exporters.evaluate.parity_values import Check
    from pipeline.timing import Run, Timing
    from runtime.spec import ModelSpec

EAGER = "PyTorch eager"


def run(context: Context) -> dict[str, Any]:
    """Time everything in turns at the recipe's number of threads, hold it against the recipe's
    bounds, and choose defaults among what may ship; the report holds the rows."""
    from exporters.package.defaults import choose_defaults
    from pipeline.hardware import detect
    from pipeline.timing import to_dict
    from runtime.cpu import cpu_target

    passed = [row for row in context.reports["validate"]["variants"] if row["passed"]]
    timings = _time(context, "cpu", [row["id"] for row in passed])
    processes = _processes(context, [row["id"] for row in passed])
    threads = context.recipe.benchmark.threads
    rows = {
        name: {**to_dict(timing, processes[name]), "threads": threads}
        for name, timing in timings.items()
    }
    bounds = _bounds(context, rows)
    ships = _ships(context, passed, bounds)
    measured = {cpu_target(): _measured(ships, timings)}
    # fp32 as well, which speeds are told against, even where it is out of bounds
    names = dict.fromkeys(("fp32", *(row["id"] for row in ships)))
    cuda = _cuda_timings(context, list(names))
    if isinstance(cuda, dict):
        measured["cuda"] = _measured(ships, cuda)
    defaults = choose_defaults(measured)
    here = next(row for row in defaults if row.target == cpu_target())
    return {
        "headline": f"default here ({here.target}): {here.variant}, {here.reason}",
        "hardware": detect().to_dict(),
        "target": cpu_target(),
        "rows": rows,
        "reference": EAGER,
        "speedups": {name: _speedup(timings, name) for name in timings},
        "cuda": cuda if isinstance(cuda, str) else {n: to_dict(t) for n, t in cuda.items()},
        "bounds": {name: [asdict(check) for check in checks] for name, checks in bounds.items()},
        "ships": [row["id"] for row in ships],
        "defaults": [asdict(row) for row in defaults],
    }


def _bounds(context: Context, rows: dict[str, dict[str, Any]]) -> dict[str, tuple[Check, ...]]:
    """Each variant against the recipe's bounds of size, latency and memory."""
    from exporters.evaluate.gates import within_bounds

    return {
        name: within_bounds(
            context.recipe.gate,
            size_bytes=(context.inputs["quantize"] / f"{name}.onnx").stat().st_size,
            latency_ms=row["p50_ms"],
            memory_mb=row["rss_mb"],
        )
        for name, row in rows.items()
        if name != EAGER
    }


def _ships(
    context: Context, passed: list[dict[str, Any]], bounds: dict[str, tuple[Check, ...]]
) -> list[dict[str, Any]]:
    """The variants within their bounds; raises GateError when none is."""
    broken = {
        name: [check.text for check in checks if not check.passed]
        for name, checks in bounds.items()
    }
    for name, texts in broken.items():
        if texts:
            context.observer.note(f"{name} is not packaged: {'; '.join(texts)}")
    ships = [row for row in passed if not broken[row["id"]]]
    if not ships:
        told = "; ".join(f"{name}: {', '.join(texts)}" for name, texts in broken.items())
        raise GateError(
            f"no variant keeps the bounds of the recipe on this machine: {told}. Raise the bounds "
            "in [gate], or make the network smaller."
        )
    return ships


def _time(context: Context, device: str, variants: list[str]) -> dict[str, Timing]:
    from pipeline.timing import TimingOptions, measure_all

    spec, images = _spec_and_images(context)
    options = context.recipe.benchmark
    with ExitStack() as stack:
        runs: dict[str, Run] = {}
        if device == "cpu":
            runs[EAGER] = stack.enter_context(_eager(_checkpoint(context), options.threads))
        for name in variants:
            opened = _predictor(context, spec, name, device, options.threads)
            runs[name] = stack.enter_context(opened)
        return measure_all(
            runs,
            images,
            TimingOptions(seconds=options.seconds, batch=options.batch),
            on_step=lambda name, done, total: context.observer.step(
                f"benchmark: {device}", done, total, name
            ),
        )


def _cuda_timings(context: Context, variants: list[str]) -> dict[str, Timing] | str:
    """Timings on the GPU, or in words why there are none."""
    from runtime import DeviceError

    try:
        return _time(context, "cuda", variants)
    except DeviceError as exc:
        return f"not measured here: {exc}"


def _predictor(context: Context, spec: ModelSpec, name: str, device: str, threads: int) -> Any:
    from runtime import Predictor

    model = context.inputs["quantize"] / f"{name}.onnx"
    return Predictor.from_parts(
        spec,
        None,
        model,
        variant=name,
        portable=_portable(context, name),
        device=device,
        threads=threads,
    )


def _portable(context: Context, name: str) -> bool:
    """Decides which INT8 kernels a bundle would run."""
    rows = {row["id"]: row for row in context.reports["quantize"]["variants"]}
    return bool(rows[name]["portable"])


def _spec_and_images(context: Context) -> tuple[ModelSpec, Any]:
    from pipeline.datasets.arrays import open_dataset
    from runtime.spec import ModelSpec

    spec = ModelSpec.from_dict(context.reports["validate"]["spec"])
    return spec, open_dataset(context.inputs["data"]).test.images


def _checkpoint(context: Context) -> Path:
    return context.inputs["train"] / "checkpoint.pt"


@contextmanager
def _eager(checkpoint: Path, threads: int) -> Iterator[Run]:
    """The network in PyTorch with so many threads; torch's own setting comes back afterwards."""
    import torch

    before = torch.get_num_threads()
    try:
        yield open_eager(str(checkpoint), threads)
    finally:
        torch.set_num_threads(before)


def open_eager(checkpoint: str, threads: int) -> Callable[[Any], Any]:
    """The network in PyTorch as a callable from images to probabilities; also called by name in
    a fresh process, to measure cold start and memory."""
    import torch

    from pipeline.learning.training.checkpoint import load_checkpoint

    torch.set_num_threads(threads)
    network = load_checkpoint(Path(checkpoint)).to(memory_format=torch.channels_last)

    def answer(images: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return answer


def _processes(context: Context, variants: list[str]) -> dict[str, Any]:
    """Cold start and memory of each candidate in a process of its own."""
    from pipeline.timing import measure_function_process, measure_process

    spec, _ = _spec_and_images(context)
    threads, total = context.recipe.benchmark.threads, len(variants) + 1
    options = {"checkpoint": str(_checkpoint(context).resolve()), "threads": threads}
    function = f"{__name__}:{open_eager.__name__}"
    found = {EAGER: measure_function_process(function, options, (1, *spec.shape))}
    context.observer.step("benchmark: cold starts", 1, total, EAGER)
    for number, name in enumerate(variants, start=2):
        model = (context.inputs["quantize"] / f"{name}.onnx").resolve()
        found[name] = measure_process(
            spec, model, variant=name, portable=_portable(context, name), threads=threads
        )
        context.observer.step("benchmark: cold starts", number, total, name)
    return found


def _measured(passed: list[dict[str, Any]], timings: dict[str, Timing]) -> list[Any]:
    from exporters.package.defaults import Measured

    return [
        Measured(
            id=row["id"],
            precision=row["precision"],
            portable=row["portable"],
            p50_ms=timings[row["id"]].latency.p50_ms,
            speedup=_speedup(timings, row["id"])["value"],
        )
        for row in passed
    ]


def _speedup(timings: dict[str, Timing], name: str) -> dict[str, float]:
    """How many times as fast as fp32, in wall time with its interval, and in CPU time."""
    from pipeline.timing import speed_ratio

    wall = speed_ratio(timings["fp32"], timings[name])
    cpu = speed_ratio(timings["fp32"], timings[name], of="cpu")
    return {"value": wall.value, "low": wall.low, "high": wall.high, "cpu_value": cpu.value}


def _outside(_: Recipe) -> dict[str, str]:
    """A benchmark belongs to one machine: moved to another, it is not fresh."""
    from pipeline.hardware import detect

    here = detect()
    return {"cpu": here.cpu, "cores": str(here.cores), "gpu": here.gpu or "none"}


STAGE = Stage(
    "benchmark",
    "time the variants that passed, choose the default of each kind of device",
    run,
    inputs=("data", "train", "quantize", "validate"),
    sections=("benchmark", "gate"),
    sources=(
        "pipeline/stages/benchmark.py",
        "pipeline/hardware.py",
        "pipeline/timing.py",
        "pipeline/learning",
        "pipeline/user_code.py",
        "pipeline/datasets/arrays.py",
        "pipeline/datasets/info.py",
        "exporters",
        "runtime",
    ),
    libraries=("numpy", "torch", "onnxruntime"),
    outside=_outside,
)
