"""``fp32.onnx``, images of the train split and the validation split -> the candidates that pay."""

from __future__ import annotations

import shutil
from functools import partial

from pipeline.engine.stage import Context, Stage
from pipeline.recipe import Recipe
from pipeline.reports import QuantizeReport
from pipeline.stages.sources import DATA, EXPORTED, LEARNING

SEARCH_NAME = "search"  # folder of the trials; models that were not chosen are removed at the end


def run(context: Context) -> QuantizeReport:
    """Search, then keep one ``<id>.onnx`` for each chosen candidate, fp32 among them."""
    from exporters.graph import onnx_file
    from exporters.quantize.fp16_from_fp32 import fp16_from_fp32
    from exporters.search.search import search
    from exporters.search.search_log import SearchLog
    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.training.checkpoint import load_checkpoint
    from pipeline.quantizing import headline, subject

    recipe, inputs, step = context.recipe, context.inputs, context.observer.step
    dataset = open_dataset(inputs["data"])
    fp32 = onnx_file.load(inputs["export"] / "fp32.onnx")
    spec, log = onnx_file.spec_of(fp32), SearchLog(context.out / SEARCH_NAME)
    load_network = partial(load_checkpoint, inputs["train"] / "checkpoint.pt")
    result = search(
        subject(fp32, dataset, recipe, load_network, step),
        recipe.quantize.int8,
        recipe.quantize.search,
        log,
        fp16=partial(fp16_from_fp32, fp32, spec) if recipe.quantize.fp16 else None,
        on_step=lambda activity, done, total: step("quantize: variants", done, total, activity),
    )
    for name in result.chosen:
        shutil.copyfile(log.path(name), context.out / f"{name}.onnx")
    log.discard_models()
    if result.incomplete:
        context.observer.note(
            f"the search ended at its limit of {recipe.quantize.search.minutes:g} minutes; not "
            f"tried or not finished: {', '.join(result.untried)}"
        )
    return QuantizeReport(headline=headline(result), spec=spec, search=result)


def _outside(_: Recipe) -> dict[str, str]:
    """The CPU, whose speeds decide the search."""
    from pipeline.hardware import detect

    return {"cpu": detect().cpu}


STAGE = Stage(
    "quantize",
    "search the FP16 and INT8 variants that pay, and check that they are what was asked for",
    QuantizeReport,
    run,
    inputs=("data", "train", "export"),
    sections=("quantize", "gate", "train", "export", "seed"),
    sources=(
        *("pipeline/stages/quantize.py", "pipeline/quantizing.py"),
        *("pipeline/timing", "pipeline/hardware.py"),
        *(*DATA, *LEARNING, *EXPORTED),
        *("exporters/evaluate", "exporters/export", "exporters/quantize", "exporters/search"),
        "runtime",
    ),
    libraries=("numpy", "torch", "onnx", "onnxscript", "onnxruntime"),
    outside=_outside,
    resumable=True,
)
