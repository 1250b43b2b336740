"""Checkpoint -> ``fp32.onnx``: pixels in, probabilities out."""

from __future__ import annotations

from pipeline.engine.stage import Context, Stage
from pipeline.reports import ExportReport
from pipeline.stages.sources import DATA, EXPORTED, LEARNING


def run(context: Context) -> ExportReport:
    """Write ``fp32.onnx``, proved against the checkpoint and its exported program at several batch
    sizes."""
    from exporters.export.export_guards import guard_export
    from exporters.export.onnx_from_torch import onnx_from_torch
    from exporters.graph import onnx_file
    from exporters.graph.multiply_adds import multiply_adds
    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.training.checkpoint import load_checkpoint
    from pipeline.stages.model_spec import spec_of

    info = open_dataset(context.inputs["data"]).info
    network = load_checkpoint(context.inputs["train"] / "checkpoint.pt")
    spec, options = spec_of(context.recipe, info), context.recipe.export
    model = onnx_from_torch(network, spec, options)
    guards = guard_export(model, network, spec, options.batch_sizes)
    onnx_file.save(model, context.out / "fp32.onnx")
    summary = onnx_file.summary(model)
    cost = multiply_adds(model)
    headline = (
        f"opset {summary.opset}, IR {summary.ir_version}, {summary.size_bytes / 1024:,.0f} KiB"
        + ("" if cost is None else f", {cost / 1e6:,.2f} million multiply-adds an image")
    )
    return ExportReport(headline, summary, cost, guards)


STAGE = Stage(
    "export",
    "turn the checkpoint into ONNX, pixels in and probabilities out",
    ExportReport,
    run,
    inputs=("data", "train"),
    sections=("name", "preprocess", "export"),
    sources=(
        *("pipeline/stages/export.py", "pipeline/stages/model_spec.py"),
        *(*DATA, *LEARNING, *EXPORTED),
        *("exporters/evaluate/generated_images.py", "exporters/export"),
        "runtime",
    ),
    libraries=("numpy", "torch", "onnx", "onnxscript", "onnxruntime"),
)
