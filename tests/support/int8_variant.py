"""One static INT8 variant of an exported network, from images to the finished file."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.options import Int8Options
from exporters.quantize import calibration
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.quantize.int8_from_fp32 import quantize, shipped
from runtime.spec import ModelSpec


def int8_from_fp32(
    model: onnx.ModelProto,
    spec: ModelSpec,
    options: Int8Options,
    images: NDArray[np.uint8],
    *,
    calibration_images: int = 512,
    seed: int = 0,
) -> onnx.ModelProto:
    chosen = calibration.choose(len(images), calibration_images, seed)
    statistics = ActivationStatistics(model, calibration.ImageReader(images, chosen))
    return shipped(quantize(model, options, statistics), spec, options.id)
