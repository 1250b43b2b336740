"""float_layers.py: a layer that is float in the file is float when it runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest
from int8_variant import int8_from_fp32

from exporters.errors import QuantizeError
from exporters.graph import onnx_file
from exporters.graph.quantized import quantized_weights
from exporters.graph.walk import Graph
from exporters.options import Int8Options
from exporters.quantize.float_layers import integer_layers, is_barrier, verify_running
from exporters.search.sensitivity import layer_noise

LAYERS = [
    *(("digits", kept) for kept in (("Conv_0",), ("Conv_1",), ("Conv_2",), ("Gemm_0",))),
    *(("faces", kept) for kept in (("Conv_0",), ("Conv_1",), ("Gemm_0",), ("Gemm_1",))),
    ("digits", ("Conv_0", "Conv_2")),
    ("faces", ("Conv_1", "Gemm_0")),
]


def kept_in_float(case: Any, layers: tuple[str, ...]) -> onnx.ModelProto:
    options = dataclasses.replace(Int8Options(), exclude_nodes=layers)
    return int8_from_fp32(case.model, case.spec, options, case.images, calibration_images=48)


def without_barriers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same file as the quantizer alone writes it."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in [node for node in result.graph.node if is_barrier(node)]:
        for user in result.graph.node:
            for index, name in enumerate(user.input):
                if name == node.output[0]:
                    user.input[index] = node.input[0]
        result.graph.node.remove(node)
    return result


@pytest.mark.parametrize(("which", "layers"), LAYERS)
def test_float_layers_run_in_float(which: str, layers: tuple[str, ...], request: Any) -> None:
    case = request.getfixturevalue(which)
    variant = kept_in_float(case, layers)
    graph = Graph(variant)
    assert {node.name for node in graph.constant_layers()} == set(layers)
    assert integer_layers(variant) == len(quantized_weights(graph))


@pytest.mark.parametrize(("which", "layers"), LAYERS)
def test_the_barrier_changes_no_bit(which: str, layers: tuple[str, ...], request: Any) -> None:
    case = request.getfixturevalue(which)
    variant = kept_in_float(case, layers)
    with_it, without = (
        onnx_file.run(onnx_file.session(model, optimized=False), case.images)
        for model in (variant, without_barriers(variant))
    )
    np.testing.assert_array_equal(with_it, without)


@pytest.mark.parametrize(("which", "layer"), [("digits", "Conv_2"), ("faces", "Gemm_0")])
def test_a_float_layer_that_runs_on_integers_is_an_error(
    which: str, layer: str, request: Any
) -> None:
    case = request.getfixturevalue(which)
    variant = without_barriers(kept_in_float(case, (layer,)))
    with pytest.raises(QuantizeError, match=rf"3 layers are .* runs 4 on integers.*'{layer}'"):
        verify_running(variant, "int8-mixed")


def test_a_file_without_float_layers_needs_no_barrier(faces: Any) -> None:
    variant = int8_from_fp32(
        faces.model, faces.spec, Int8Options(), faces.images, calibration_images=48
    )
    assert not any(is_barrier(node) for node in variant.graph.node)


def test_noise_of_a_float_layer_counts_the_rounding_behind_it(digits: Any) -> None:
    """Conv_2 keeps its weights; what it puts out is rounded to 8 bits behind the barrier."""
    rows = layer_noise(
        digits.model, kept_in_float(digits, ("Conv_2",)), {"images": digits.images[:8]}
    )
    row = next(row for row in rows if row.node == "Conv_2")
    assert row.weight_sqnr_db == 200.0
    assert 10 < row.sqnr_db < 60
