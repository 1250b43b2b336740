"""The contract of the model that a recipe builds, from the recipe and the data at hand."""

from __future__ import annotations

from pipeline.datasets.info import DatasetInfo
from pipeline.recipe import Recipe
from runtime.spec import ModelSpec


def spec_of(recipe: Recipe, info: DatasetInfo) -> ModelSpec:
    """Size, color and white level of the recipe's pixels, task and labels of its data."""
    size = recipe.preprocess
    return ModelSpec(
        name=recipe.name,
        task=info.task,
        height=size.height,
        width=size.width,
        channels=size.channels,
        labels=info.labels,
        white_level=size.white_level,
    )
