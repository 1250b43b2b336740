"""The checkpoint against every candidate on the test split, through the predictor that ships; then
the gate. Thresholds come from the validation split; the test split is read here alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.engine.stage import Context, Elsewhere, Stage
from pipeline.recipe import Recipe
from pipeline.reports import ExportReport, QuantizeReport, TrainReport, ValidateReport
from pipeline.stages.sources import DATA, EXPORTED, LEARNING, SEARCHED

if TYPE_CHECKING:
    from pipeline.validation.candidates import Opened
    from runtime.spec import ModelSpec


def run(context: Context) -> ValidateReport:
    """Compare, then judge; raises GateError when fp32 itself does not pass."""
    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.training.checkpoint import load_checkpoint
    from pipeline.validation.baseline import Validated
    from pipeline.validation.saved_answers import write_answers
    from pipeline.validation.validate import report_of, validate

    recipe, inputs = context.recipe, context.inputs
    dataset = open_dataset(inputs["data"])
    network = load_checkpoint(inputs["train"] / "checkpoint.pt")
    other = None
    if "baseline" in inputs:
        other = Validated(inputs["baseline"], context.report(ValidateReport, "baseline"))
    trials = context.report(QuantizeReport).search.chosen_trials
    opened = _opened(context, network.spec)
    validation = validate(network, dataset, trials, opened, recipe, other, context.observer)
    write_answers(context.out, dataset.test, validation.reference, validation.forms)
    parameters = context.report(TrainReport).result.parameters
    cost = context.report(ExportReport).multiply_adds
    return report_of(validation, network, dataset, recipe, parameters, cost)


def _opened(context: Context, spec: ModelSpec) -> Opened:
    """Return a function that opens a candidate as it ships."""
    from runtime import Predictor

    preprocess = (context.inputs["data"] / "preprocess.onnx").read_bytes()
    return lambda trial: Predictor.from_parts(
        spec,
        preprocess,
        context.inputs["quantize"] / f"{trial.id}.onnx",
        variant=trial.id,
        portable=trial.portable,
    )


def _borrows(recipe: Recipe) -> dict[str, Elsewhere]:
    if recipe.baseline is None:
        return {}
    return {"baseline": Elsewhere(recipe.baseline, "validate", optional=True)}


STAGE = Stage(
    "validate",
    "compare PyTorch with every variant on the test split, then judge",
    ValidateReport,
    run,
    inputs=("data", "train", "export", "quantize"),
    sections=("gate", "baseline"),
    sources=(
        *("pipeline/stages/validate.py", "pipeline/validation"),
        *(*DATA, *LEARNING, *EXPORTED, *SEARCHED),
        "exporters/evaluate",
        "runtime",
    ),
    libraries=("numpy", "torch", "onnxruntime"),
    borrows=_borrows,
)
