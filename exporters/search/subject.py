"""The model that is searched, and the callables that judge, time and fine-tune its variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from exporters.evaluate.parity_values import Assessment
from exporters.options import Int8Options
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.search.trial import Speed


@dataclass(frozen=True)
class Subject:
    """The model that is searched, and the judgment of its candidates."""

    model: onnx.ModelProto  # FP32
    statistics: ActivationStatistics  # of this very model, on images of the train split
    samples: dict[str, NDArray[Any]]  # a few real inputs by name, to look into layers
    extremes: dict[str, NDArray[Any]]  # real and extreme inputs, to look for saturation
    finish: Callable[[onnx.ModelProto, str], onnx.ModelProto]  # a quantized model as it ships
    assess: Callable[[bytes, str, bool], Assessment]  # file, id, portable -> on validation data
    # file -> (loss, SQNR in dB) on fewer validation data; for layers one at a time
    assess_quickly: Callable[[bytes], tuple[float, float]]
    time: Callable[[bytes, str, bool], Speed]  # file, id, portable
    # scheme -> the FP32 model after quantization-aware fine-tuning, with its statistics
    fine_tune: Callable[[Int8Options], tuple[onnx.ModelProto, ActivationStatistics]] | None = None
    float_nodes: tuple[str, ...] = ()  # that cannot be quantized, and stay float in every variant
