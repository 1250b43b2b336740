"""What to build: a recipe is a TOML file, read into frozen values. ``load`` reads one; unknown keys
are refused with the nearest known name. Loads neither torch nor numpy."""

from pipeline.recipe.loading import load, shipped_names
from pipeline.recipe.options import (
    HOW_FAST,
    SWEEPS,
    AcrossSplits,
    Activation,
    AugmentOptions,
    BenchmarkOptions,
    Conv,
    DataOptions,
    DistillOptions,
    Dropout,
    EdgeOptions,
    Layer,
    Linear,
    NetworkOptions,
    Pool,
    PreprocessOptions,
    Recipe,
    TrainOptions,
)
from pipeline.recipe.renamed_keys import RENAMED, RenamedKeyWarning, current_key
from pipeline.recipe.shipping import check_what_ships

__all__ = [
    "HOW_FAST", "RENAMED", "SWEEPS", "AcrossSplits", "Activation", "AugmentOptions",
    "BenchmarkOptions", "Conv", "DataOptions", "DistillOptions", "Dropout", "EdgeOptions", "Layer",
    "Linear", "NetworkOptions", "Pool", "PreprocessOptions", "Recipe", "RenamedKeyWarning",
    "TrainOptions", "check_what_ships", "current_key", "load", "shipped_names",
]  # fmt: skip
