"""``fp32.onnx``, images of the train split and the validation split -> the variants that pay."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.engine.stage import Context, Stage
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    import onnx

    from exporters.options import Int8Options
    from exporters.quantize.activation_ranges import ActivationStatistics
    from exporters.search.result import SearchResult
    from exporters.search.subject import Subject
    from exporters.search.trial import Speed, Trial
    from exporters.search.trial_evaluation import ValidationData
    from pipeline.datasets.arrays import Dataset
    from runtime.spec import ModelSpec

SEARCH_NAME = "search"  # folder of the trials; models that were not chosen are removed at the end
_SECONDS = 0.4  # each of two candidates is timed in a trial: enough to tell 2 % apart


def run(context: Context) -> dict[str, Any]:
    """Search, then keep one ``<id>.onnx`` for each chosen variant, fp32 among them."""
    from exporters.graph import onnx_file
    from exporters.quantize.fp16_from_fp32 import fp16_from_fp32
    from exporters.search.search import search
    from exporters.search.search_log import SearchLog
    from pipeline.datasets.arrays import open_dataset

    recipe = context.recipe
    dataset = open_dataset(context.inputs["data"])
    fp32 = onnx_file.load(context.inputs["export"] / "fp32.onnx")
    spec = onnx_file.spec_of(fp32)
    log = SearchLog(context.out / SEARCH_NAME)
    result = search(
        _subject(context, dataset, fp32, spec),
        recipe.quantize.int8,
        recipe.quantize.search,
        log,
        fp16=partial(fp16_from_fp32, fp32, spec) if recipe.quantize.fp16 else None,
        on_step=lambda activity, done, total: context.observer.step(
            "quantize: variants", done, total, activity
        ),
    )
    for name in result.chosen:
        shutil.copyfile(log.path(name), context.out / f"{name}.onnx")
    log.discard_models()
    if result.incomplete:
        context.observer.note(
            f"the search ended at its limit of {recipe.quantize.search.minutes:g} minutes; not "
            f"tried or not finished: {', '.join(result.untried)}"
        )
    by_id = {trial.id: trial for trial in result.trials}
    return {
        "headline": _headline(result),
        "variants": [_entry(by_id[name]) for name in result.chosen],
        "search": asdict(result),
        "spec": spec.to_dict(),
    }


def _subject(context: Context, dataset: Dataset, fp32: onnx.ModelProto, spec: ModelSpec) -> Subject:
    import numpy as np

    from exporters.evaluate.generated_images import extreme_images
    from exporters.graph import onnx_file
    from exporters.quantize.calibration import spread
    from exporters.quantize.int8_from_fp32 import shipped
    from exporters.search.sensitivity import IMAGES
    from exporters.search.subject import Subject
    from exporters.search.trial_evaluation import ValidationData
    from runtime.spec import INPUT_NAME

    options = context.recipe.quantize.search
    count = min(len(dataset.val), options.validation_images)
    data = ValidationData.of_fp32(
        onnx_file.to_bytes(fp32),
        spec,
        dataset.val.images[:count],
        dataset.val.labels[:count],
        context.recipe.gate,
    )
    samples = np.asarray(spread(dataset.val.images, IMAGES))
    extremes = np.concatenate([samples[:16], extreme_images(spec.shape)])
    return Subject(
        model=fp32,
        statistics=_statistics(context, dataset, fp32),
        samples={INPUT_NAME: samples},
        extremes={INPUT_NAME: extremes},
        finish=lambda model, name: shipped(model, spec, name),
        assess=data.assess,
        assess_quickly=data.first(options.sensitivity_images).assess_quickly,
        time=partial(_time, onnx_file.to_bytes(fp32), data, options.threads),
        fine_tune=partial(_fine_tune, context, dataset, spec),
    )


def _statistics(context: Context, dataset: Dataset, model: onnx.ModelProto) -> ActivationStatistics:
    """Of calibration images from the train split, drawn by the recipe's seed."""
    from exporters.quantize.activation_ranges import ActivationStatistics
    from exporters.quantize.calibration import ImageReader, choose

    images = dataset.train.images
    count = context.recipe.quantize.calibration_images
    chosen = choose(len(images), count, context.recipe.seed)
    return ActivationStatistics(model, ImageReader(images, chosen))


def _time(
    fp32: bytes, data: ValidationData, threads: int, model: bytes, variant: str, portable: bool
) -> Speed:
    """Beside FP32 in turns, each by the predictor that ships."""
    from exporters.search.trial import Speed
    from pipeline.timing import TimingOptions, decisive_speedup, measure_all, speed_ratio

    with (
        data.predictor(fp32, "fp32", portable=False, threads=threads) as base,
        data.predictor(model, variant, portable=portable, threads=threads) as candidate,
    ):
        found = measure_all(
            {"base": base, "candidate": candidate},
            data.images,
            TimingOptions(seconds=_SECONDS, batch=1),
        )
    timed = found["candidate"]
    return Speed(
        timed.latency.p50_ms,
        decisive_speedup(found["base"], timed, threads),
        speed_ratio(found["base"], timed, of="cpu").value,
    )


def _fine_tune(
    context: Context, dataset: Dataset, spec: ModelSpec, options: Int8Options
) -> tuple[onnx.ModelProto, ActivationStatistics]:
    """The network after quantization-aware fine-tuning, as FP32 file, with its statistics."""
    from exporters.errors import QuantizeError
    from exporters.export.onnx_from_torch import onnx_from_torch
    from pipeline.errors import TrainError
    from pipeline.learning.quantization_aware.fine_tuning import fine_tune
    from pipeline.learning.training.checkpoint import load_checkpoint

    recipe = context.recipe
    try:
        tuned = fine_tune(
            load_checkpoint(context.inputs["train"] / "checkpoint.pt"),
            dataset,
            recipe.train,
            recipe.quantize.search.fine_tune,
            64 if options.reduce_range else 127,
            recipe.seed,
            lambda progress: context.observer.step(
                "quantize: fine-tuning", progress.step, progress.steps
            ),
        )
    except TrainError as exc:  # a network that cannot be traced, say: the search goes on
        raise QuantizeError(f"fine-tuning failed: {exc}") from exc
    model = onnx_from_torch(tuned.network, spec, recipe.export)
    return model, _statistics(context, dataset, model)


def _entry(trial: Trial) -> dict[str, Any]:
    return {
        "id": trial.id,
        "precision": trial.precision,
        "portable": trial.portable,
        "reason": trial.portability,
    }


def _headline(result: SearchResult) -> str:
    by_id = {trial.id: trial for trial in result.trials}
    told = ", ".join(
        f"{name} {by_id[name].size_bytes / 1024:,.0f} KiB {by_id[name].speedup:.2f}x"
        for name in result.chosen
    )
    return f"{len(result.trials)} forms tried in {result.seconds:.0f} s: {told}"


def _outside(_: Recipe) -> dict[str, str]:
    """A search is decided by what this machine's CPU runs fastest."""
    from pipeline.hardware import detect

    return {"cpu": detect().cpu}


STAGE = Stage(
    "quantize",
    "search the FP16 and INT8 variants that pay, and check that they are what was asked for",
    run,
    inputs=("data", "train", "export"),
    sections=("quantize", "gate", "train", "export", "seed"),
    sources=(
        "pipeline/stages/quantize.py",
        "pipeline/learning",
        "pipeline/user_code.py",
        "pipeline/processes.py",
        "pipeline/datasets/arrays.py",
        "pipeline/datasets/info.py",
        "pipeline/timing.py",
        "pipeline/hardware.py",
        "exporters",
        "runtime",
    ),
    libraries=("numpy", "torch", "onnx", "onnxscript", "onnxruntime"),
    outside=_outside,
    resumable=True,
)
