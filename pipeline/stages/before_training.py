"""Checks between data and training: each rule of a later stage that depends only on the recipe and
the data, by the code of that stage. They decide no result, so no fingerprint includes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.engine.stage import Context
from pipeline.errors import GateError, RecipeError
from pipeline.recipe import Recipe, check_what_ships

if TYPE_CHECKING:
    from pipeline.datasets.arrays import Dataset
    from runtime.spec import ModelSpec


def check(context: Context) -> None:
    """Try the network, and check recipe and data by the rules of the stages ahead; raises
    RecipeError or GateError."""
    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.networks.network_check import check_network
    from pipeline.stages.model_spec import spec_of

    recipe = context.recipe
    dataset = open_dataset(context.inputs["data"])
    spec = spec_of(recipe, dataset.info)
    if "quantize" in context.ahead:
        _enough_to_calibrate(recipe, dataset)
    if "validate" in context.ahead:
        _enough_to_judge(recipe, dataset, spec)
    if "package" in context.ahead:
        check_what_ships(recipe, spec=spec, license=dataset.info.license)
        _some_to_test_devices(recipe, dataset)
    for note in check_network(recipe.network, spec, recipe.train):
        context.observer.note(note)


def _enough_to_calibrate(recipe: Recipe, dataset: Dataset) -> None:
    from exporters.errors import QuantizeError
    from exporters.quantize.calibration import choose

    try:
        choose(len(dataset.train), recipe.quantize.calibration_images, recipe.seed)
    except QuantizeError as exc:
        raise RecipeError(f"[quantize]: {exc}") from exc


def _enough_to_judge(recipe: Recipe, dataset: Dataset, spec: ModelSpec) -> None:
    from exporters.evaluate.gates import too_few_images
    from exporters.evaluate.tasks import label_task

    task = label_task(spec.task)
    too_few = too_few_images(task, recipe.gate, len(dataset.test), len(spec.labels))
    if too_few is not None:
        raise GateError(
            f"the test split is too small for the gate: {too_few}, so not even the fp32 export "
            "could pass. Nothing was trained. Give more test images, or set gate.margin_points to "
            "a margin that so few can show."
        )


def _some_to_test_devices(recipe: Recipe, dataset: Dataset) -> None:
    from pipeline.datasets.drawn.golden import model_pixels, raw_images

    package = recipe.package
    raw = raw_images(recipe.preprocess, dataset, package.golden_raw)
    if not raw and not len(model_pixels(dataset, package.golden_images)):
        raise RecipeError(
            f"package.golden_raw = {package.golden_raw} and package.golden_images = "
            f"{package.golden_images} leave no image for a device to test itself with, since the "
            "data may not be passed on. Set package.golden_raw=1."
        )
