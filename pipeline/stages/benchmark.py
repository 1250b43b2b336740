"""Speed and memory of PyTorch and of every variant that passed; then the default variant of each
kind of device."""

from __future__ import annotations

from pipeline.engine.stage import Context, Stage
from pipeline.recipe import Recipe
from pipeline.reports import BenchmarkReport, ValidateReport
from pipeline.stages.sources import DATA, EXPORTED, LEARNING, SEARCHED


def run(context: Context) -> BenchmarkReport:
    """Time the variants that passed on images of the test split."""
    from pipeline.benchmarking import Contestants, benchmark
    from pipeline.datasets.arrays import open_dataset

    recipe, inputs, validated = context.recipe, context.inputs, context.report(ValidateReport)
    contestants = Contestants(
        spec=validated.spec,
        images=open_dataset(inputs["data"]).test.images,
        checkpoint=inputs["train"] / "checkpoint.pt",
        variants=validated.passed,
        models={v.id: inputs["quantize"] / f"{v.id}.onnx" for v in validated.passed},
        options=recipe.benchmark,
    )
    return benchmark(contestants, recipe.gate, context.observer)


def _outside(_: Recipe) -> dict[str, str]:
    """The machine: moved to another one, a benchmark is not fresh."""
    from pipeline.hardware import detect

    here = detect()
    return {"cpu": here.cpu, "cores": str(here.cores), "gpu": here.gpu or "none"}


STAGE = Stage(
    "benchmark",
    "time the variants that passed, choose the default of each kind of device",
    BenchmarkReport,
    run,
    inputs=("data", "train", "quantize", "validate"),
    sections=("benchmark", "gate"),
    sources=(
        *("pipeline/stages/benchmark.py", "pipeline/benchmarking.py"),
        *("pipeline/hardware.py", "pipeline/timing"),
        *(*DATA, *LEARNING, *EXPORTED),
        *("exporters/evaluate", "exporters/package/defaults.py", *SEARCHED),
        "runtime",
    ),
    libraries=("numpy", "torch", "onnxruntime"),
    outside=_outside,
)
