"""One side of a comparison: a reference network, an ONNX file, a variant of a bundle, any function
from images to probabilities, or recorded outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.parity import Model
from exporters.foreign.model_inputs import InputSpec
from runtime import ModelSpec, Predictor

if TYPE_CHECKING:
    import onnx
    from torch import nn


@dataclass(frozen=True)
class ModelForm:
    """One side of a comparison; None stands for what this side does not have."""

    name: str  # as given on the command line
    precision: str = "fp32"  # read from the model itself; the strictest where nothing shows it
    model: Model | None = None  # None: recorded outputs
    takes: InputSpec | None = None  # the input of a foreign file; None: uint8 pixels [n, h, w, c]
    spec: ModelSpec | None = None
    graph: onnx.ModelProto | None = None
    network: nn.Module | None = None
    preprocess: onnx.ModelProto | None = None
    thresholds: tuple[float, ...] | None = None
    outputs: NDArray[np.float32] | None = None  # recorded, [n, labels]
    golden: tuple[NDArray[np.uint8], ...] = ()  # images before preprocessing

    def __enter__(self) -> ModelForm:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sessions of a predictor."""
        if isinstance(self.model, Predictor):
            self.model.close()
