"""SUMMARY

    from PACKAGE import Predictor

    with Predictor() as p:
        print(p.predict("image.png"))

The model is stored in this package; ``Predictor`` opens it, or any other bundle. It is imported on
first use, since it needs onnxruntime: install DISTRIBUTION[cpu] or DISTRIBUTION[gpu].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime import (
    PredictorError as PublicNames,
)

if TYPE_CHECKING:
    from ._predictor import Predictor as Predictor

__version__ = "VERSION"

__all__ = [
    "PublicNames",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name == "Predictor":
        from ._predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
