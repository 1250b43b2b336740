"""The cost of single scales and ranges of an INT8 file."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from faults import constant, in_file, report
from int8_variant import int8_from_fp32
from onnx import numpy_helper
from pets import CLASSES, World

from exporters.options import Int8Options
from pipeline.cli.main import cli


def test_a_measured_loss_stands_beside_the_verdict(world: World) -> None:
    words = ["compare", world.path("fp32.onnx"), world.path("int8.onnx")]
    done = CliRunner().invoke(cli, [*words, "--data", world.path("images.npz")])
    assert done.exit_code == 0 and "within tolerance" in done.output
    measured = done.output.partition("measured:")[2]
    for word in ("same answers", "SNR", "accuracy", "points", "noisiest layer"):
        assert word in measured


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("tensor", "factor", "said"),
    [
        ("Conv_1.weight_scale", 1.05, r"Conv_1.* all its weights are 1\.05\d* times"),
        ("Conv_2.weight_scale", 1.05, r"Conv_2.* all its weights are 1\.05 times"),
        ("Gemm_0.weight_scale", 1.05, r"Gemm_0.* all its weights are 1\.0\d+ times"),
        ("Conv_0.weight_scale", 2, r"Conv_0.* all its weights are (2|1\.999) times"),
        ("relu_0_scale", 0.5, r"Conv_0.* its result is cut off at 0 to 7\.\d+ \([\d.]+ % of it"),
        ("relu_1_scale", 0.5, r"Conv_1.* its result is cut off at 0 to 18\.\d+"),
        ("Conv_2.bias_quantized_scale", 2, r"Conv_2.* its bias differ"),
        ("globalaveragepool_0_scale", 0.5, r"GlobalAveragePool_0.* its result is cut off at 0 to"),
        ("mul_0_scale", 0.5, r"Mul_0.* its result is cut off at -1\.\d+ to 1\.\d+"),
    ],
)
def test_a_scale_or_a_range_that_is_off_is_named_with_its_cost(
    world: World, tensor: str, factor: float, said: str, swapped: bool
) -> None:
    plant = in_file(lambda g: constant(g, tensor, lambda v: v * np.float32(factor)), "int8")
    sides = [world.path("fp32.onnx"), plant(world)]
    found = world.compare(*(sides[::-1] if swapped else sides))
    assert not found.passed
    cost = next(row for row in found.damages if row.costly)
    side = "A" if swapped else "B"
    assert cost.side == side and cost.without_db > cost.snr_db + 1
    assert re.search(rf"{said}.*SNR of [\d.]+ dB, and [\d.]+ dB with that", report(found))
    assert "batch norm" not in report(found)


def test_a_scale_that_is_read_otherwise_than_it_was_rounded_is_named(world: World) -> None:
    def change(graph: onnx.GraphProto) -> None:
        (scale,) = (t for t in graph.initializer if t.name == "relu_1_scale")
        other = numpy_helper.to_array(scale) * np.float32(1.1)
        graph.initializer.append(numpy_helper.from_array(np.asarray(other), "other"))
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[1] == "relu_1_scale":
                node.input[1] = "other"

    found = world.compare(world.path("fp32.onnx"), in_file(change, "int8")(world))
    assert "its result is read with 1.1 times the scale it was rounded with" in report(found)


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
@pytest.mark.parametrize("corrected", [False, True])
def test_no_calibration_is_taken_for_a_fault(world: World, method: Any, corrected: bool) -> None:
    options = Int8Options(calibration=method, bias_correction=corrected)
    model = int8_from_fp32(world.fp32, CLASSES, options, world.images, calibration_images=64)
    found = world.compare(world.path("fp32.onnx"), world.save("healthy.onnx", model))
    assert found.passed and not found.damages, report(found)
