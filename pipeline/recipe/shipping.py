"""The rules of bundle and wheel, applied to a recipe before anything runs."""

from __future__ import annotations

from exporters.errors import ExportError
from exporters.package.wheel_fields import check_fields
from pipeline.errors import RecipeError
from pipeline.recipe.options import Recipe
from runtime.errors import PredictorError
from runtime.manifest import PREPROCESS_NAME, Default, FileEntry, Manifest, Variant
from runtime.spec import ModelSpec


def check_what_ships(
    recipe: Recipe, origin: str = "", spec: ModelSpec | None = None, license: str | None = None
) -> None:
    """Hold the recipe's words against the rules of bundle and wheel, which are written last.

    ``spec`` and ``license`` are those of the data once it is there. Raises RecipeError.
    """
    size, labels = recipe.preprocess, recipe.data.labels
    if labels is None:
        labels = recipe.data.attributes
    if labels is None:
        labels = ("unknown until the data is there",)
    package = recipe.package
    id_ = "fp32"
    try:
        spec = spec or ModelSpec(
            recipe.name, "multi-class", size.height, size.width, size.channels, labels
        )
        thresholds = (0.5,) * len(spec.labels) if spec.task == "multi-label" else None
        files = dict.fromkeys((PREPROCESS_NAME, id_), FileEntry("0" * 64, 0))
        Manifest(
            model_version=package.model_version,
            spec=spec,
            files=files,
            variants=(Variant(id_, id_, id_, False, 0.0, thresholds),),
            defaults=(Default("cpu", id_, "not measured here"),),
            devices=package.devices,
            provenance={"recipe": recipe.model_dump(mode="json")},
        ).check()
        check_fields(
            recipe.name,
            package.model_version,
            recipe.summary,
            package.license or license or recipe.data.license,
        )
    except (ExportError, PredictorError) as exc:
        raise RecipeError(f"{origin}: {exc}" if origin else str(exc)) from exc
