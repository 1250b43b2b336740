"""Variants, figures and verdicts -> ``bundle.zip``, the model's own wheel, the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import reports
from pipeline.engine.stage import Context, Stage
from pipeline.stages.sources import EXPORTED, SEARCHED

if TYPE_CHECKING:
    from pipeline.datasets.arrays import Dataset
    from pipeline.report.model import Report


def run(context: Context) -> reports.PackageReport:
    """Write everything that leaves this machine."""
    from pipeline.datasets.arrays import open_dataset
    from pipeline.engine.digests import file_sha256
    from pipeline.packaging import Parts, package, warnings

    inputs = context.inputs
    dataset = open_dataset(inputs["data"])
    parts = Parts(
        recipe=context.recipe,
        spec=context.report(reports.ValidateReport).spec,
        dataset=dataset,
        preprocess=(inputs["data"] / "preprocess.onnx").read_bytes(),
        variants=context.report(reports.BenchmarkReport).ships,
        model=lambda name: (inputs["quantize"] / f"{name}.onnx").read_bytes(),
        checkpoint_sha256=file_sha256(inputs["train"] / "checkpoint.pt"),
        report=_report(context, dataset),
    )
    for warning in warnings(parts.report):
        context.observer.note(warning)
    return package(context.out, parts, context.observer.step)


def _report(context: Context, dataset: Dataset) -> Report:
    from pipeline.report.assemble import Run, assemble
    from pipeline.report.model import StageRow
    from pipeline.validation.saved_answers import read_probabilities

    stages = context.finished.items()
    return assemble(
        Run(
            recipe=context.recipe,
            dataset=dataset,
            probabilities=read_probabilities(context.inputs["validate"]),
            train=context.report(reports.TrainReport),
            quantize=context.report(reports.QuantizeReport),
            validate=context.report(reports.ValidateReport),
            benchmark=context.report(reports.BenchmarkReport),
            stages=tuple(StageRow(name, s.seconds, s.finished) for name, s in stages),
        )
    )


STAGE = Stage(
    "package",
    "write the bundle, the model's wheel and the report",
    reports.PackageReport,
    run,
    inputs=("data", "train", "export", "quantize", "validate", "benchmark"),
    sections=("name", "description", "seed", "preprocess", "package"),
    sources=(
        *("pipeline/stages/package.py", "pipeline/packaging.py", "pipeline/report"),
        *("pipeline/datasets", "pipeline/hardware.py", "pipeline/engine/digests.py"),
        *("pipeline/learning/training/results.py", "pipeline/timing/values.py"),
        *("pipeline/validation/saved_answers.py", *EXPORTED, *SEARCHED),
        *("exporters/evaluate", "exporters/package"),
        "runtime",
    ),
    libraries=("numpy", "onnxruntime", "matplotlib", "jinja2"),
    publish=("bundle.zip", "bundles", "dist", "report.json", "report.html"),
)
