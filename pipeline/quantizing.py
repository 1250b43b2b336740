"""The network of a recipe as the subject of a search: how its candidates are calibrated, judged,
timed and fine-tuned. Independent of artifact folders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx

from exporters.errors import QuantizeError
from exporters.evaluate.generated_images import extreme_images
from exporters.export.onnx_from_torch import onnx_from_torch
from exporters.graph import onnx_file
from exporters.options import Int8Options
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.quantize.calibration import ImageReader, choose, spread
from exporters.quantize.int8_from_fp32 import shipped
from exporters.search.result import SearchResult
from exporters.search.sensitivity import IMAGES
from exporters.search.subject import Subject
from exporters.search.trial import Speed
from exporters.search.trial_evaluation import ValidationData
from pipeline.datasets.arrays import Dataset
from pipeline.errors import TrainError
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.quantization_aware.fine_tuning import fine_tune
from pipeline.recipe import Recipe
from pipeline.timing.measure import TimingOptions, time_model
from runtime.spec import INPUT_NAME, ModelSpec

_SECONDS = 0.4  # each of two candidates is timed in a trial: enough to resolve 2 %
OnStep = Callable[[str, int, int], None]  # (task, steps done, steps in all)


def subject(
    fp32: onnx.ModelProto,
    dataset: Dataset,
    recipe: Recipe,
    load_network: Callable[[], PixelNetwork],
    on_step: OnStep,
) -> Subject:
    """The model of a search. Judged on the validation split, calibrated on the train split;
    ``load_network`` gives the trained network to fine-tune."""
    spec, options = onnx_file.spec_of(fp32), recipe.quantize.search
    count = min(len(dataset.val), options.validation_images)
    data = ValidationData.of_fp32(
        onnx_file.to_bytes(fp32),
        spec,
        dataset.val.images[:count],
        dataset.val.labels[:count],
        recipe.gate,
    )
    samples = np.asarray(spread(dataset.val.images, IMAGES))
    extremes = np.concatenate([samples[:16], extreme_images(spec.shape)])
    return Subject(
        model=fp32,
        statistics=statistics(fp32, dataset, recipe),
        samples={INPUT_NAME: samples},
        extremes={INPUT_NAME: extremes},
        finish=lambda model, name: shipped(model, spec, name),
        assess=data.assess,
        assess_quickly=data.first(options.sensitivity_images).assess_quickly,
        time=partial(time_trial, onnx_file.to_bytes(fp32), data, options.threads),
        fine_tune=partial(fine_tuned, load_network, dataset, spec, recipe, on_step),
    )


def statistics(model: onnx.ModelProto, dataset: Dataset, recipe: Recipe) -> ActivationStatistics:
    """Activation statistics on calibration images of the train split, drawn by the recipe's
    seed."""
    images = dataset.train.images
    chosen = choose(len(images), recipe.quantize.calibration_images, recipe.seed)
    return ActivationStatistics(model, ImageReader(images, chosen))


def time_trial(
    fp32: bytes, data: ValidationData, threads: int, model: bytes, variant: str, portable: bool
) -> Speed:
    """Time a candidate next to FP32 in turns, each by the predictor that ships."""
    with (
        data.predictor(fp32, "fp32", portable=False, threads=threads) as base,
        data.predictor(model, variant, portable=portable, threads=threads) as candidate,
    ):
        options = TimingOptions(seconds=_SECONDS, batch=1)
        return time_model(base, candidate, data.images, threads, options)


def fine_tuned(
    load_network: Callable[[], PixelNetwork],
    dataset: Dataset,
    spec: ModelSpec,
    recipe: Recipe,
    on_step: OnStep,
    options: Int8Options,
) -> tuple[onnx.ModelProto, ActivationStatistics]:
    """The network after quantization-aware fine-tuning, as FP32 model, with its statistics.

    Raises QuantizeError where it cannot be fine-tuned, such as a network that cannot be traced:
    the search then continues without.
    """
    try:
        tuned = fine_tune(
            load_network(),
            dataset,
            recipe.train,
            recipe.quantize.search.fine_tune,
            64 if options.reduce_range else 127,
            recipe.seed,
            lambda progress: on_step("quantize: fine-tuning", progress.step, progress.steps),
        )
    except TrainError as exc:
        raise QuantizeError(f"fine-tuning failed: {exc}") from exc
    model = onnx_from_torch(tuned.network, spec, recipe.export)
    return model, statistics(model, dataset, recipe)


def headline(result: SearchResult) -> str:
    """The candidates that were chosen, with their sizes and speeds."""
    chosen = ", ".join(
        f"{trial.id} {trial.size_bytes / 1024:,.0f} KiB {trial.speedup:.2f}x"
        for trial in result.chosen_trials
    )
    return f"{len(result.trials)} candidates tried in {result.seconds:.0f} s: {chosen}"
