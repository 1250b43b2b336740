"""bias_correction.py: means come back, and nothing but biases changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from exporters.graph import onnx_file
from exporters.options import Int8Options
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.quantize.bias_correction import with_corrected_biases
from exporters.quantize.calibration import ImageReader
from exporters.quantize.int8_from_fp32 import quantize


def reader(case: Any) -> ImageReader:
    return ImageReader(case.images, np.arange(64))


def quantized(case: Any, options: Int8Options) -> onnx.ModelProto:
    return quantize(case.model, options, ActivationStatistics(case.model, reader(case)))


def means(model: onnx.ModelProto, tensor: str, images: Any) -> Any:
    seen = onnx_file.with_inner_outputs(model, [tensor])
    values = onnx_file.session(seen, optimized=False).run([tensor], {"images": images})[0]
    return values.mean(axis=tuple(i for i in range(values.ndim) if i != 1))


@pytest.mark.parametrize("which", ["digits", "faces"])
def test_mean_outputs_move_to_those_of_the_float_model(which: str, request: Any) -> None:
    case = request.getfixturevalue(which)
    before = quantized(case, Int8Options(per_channel=False))  # coarse, so that there is a shift
    after = with_corrected_biases(case.model, before, reader(case))
    images = case.images[:64]
    for node in case.model.graph.node:
        if node.op_type != "Conv":
            continue
        inner = {n.name: n.output[0] for n in before.graph.node}[node.name]
        expected = means(case.model, node.output[0], images)
        shift = [np.abs(means(m, inner, images) - expected).max() for m in (before, after)]
        assert shift[1] < 0.35 * shift[0] + 1e-4


def test_only_biases_change(digits: Any) -> None:
    before = quantized(digits, Int8Options())
    after = with_corrected_biases(digits.model, before, reader(digits))
    old = {t.name: t for t in before.graph.initializer}
    changed = [t for t in after.graph.initializer if t != old[t.name]]
    assert changed and all(t.data_type == TensorProto.INT32 for t in changed)
    assert list(before.graph.node) == list(after.graph.node)


def test_extreme_shifts_stay_within_32_bits(digits: Any) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(digits.model)
    for tensor in model.graph.initializer:
        if tensor.name == "Conv_1.bias":  # a float model whose means lie far away
            values = numpy_helper.to_array(tensor) + np.float32(1e9)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    after = with_corrected_biases(model, quantized(digits, Int8Options()), reader(digits))
    for tensor in after.graph.initializer:
        if tensor.data_type == TensorProto.INT32:
            assert np.isfinite(numpy_helper.to_array(tensor)).all()
