"""activation_ranges.py: every method's range on distributions with a known answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_variant import int8_from_fp32
from numpy.typing import NDArray
from onnx import TensorProto, helper

from exporters.errors import QuantizeError
from exporters.graph.walk import Graph
from exporters.options import Int8Options
from exporters.quantize.activation_ranges import (
    ActivationStatistics,
    Histogram,
    least_squares_range,
)
from exporters.quantize.calibration import ImageReader


def identity(values: NDArray[np.float32]) -> ActivationStatistics:
    """Statistics of a Relu's input and output, which are ``values`` [n, k]."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], "Relu_0")],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", values.shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", values.shape[1]])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return ActivationStatistics(model, ImageReader(values, np.arange(len(values)), name="x"))


def normal_with_outlier(outlier: float, images: int = 100) -> NDArray[np.float32]:
    values = np.random.default_rng(0).normal(size=(images, 1000)).astype(np.float32)
    values[7, 7] = outlier
    return values


def test_minmax_is_the_true_range_and_includes_zero() -> None:
    values = np.linspace(2, 5, 100, dtype=np.float32).reshape(10, 10)
    assert identity(values).ranges("minmax")["x"] == (0.0, 5.0)
    assert identity(-values).ranges("minmax")["x"] == (-5.0, 0.0)


@pytest.mark.parametrize(
    ("method", "outlier", "images"),
    [
        ("percentile", 500.0, 100),
        # clipping one value by 500 is dearer than rounding fewer than a million others coarsely
        ("mse", 500.0, 2000),
        ("entropy", 40.0, 100),  # one at 500 would leave four bins for all the rest
    ],
)
def test_one_outlier_does_not_stretch_the_range(method: Any, outlier: float, images: int) -> None:
    statistics = identity(normal_with_outlier(outlier, images))
    assert statistics.ranges("minmax")["x"][1] == outlier
    assert statistics.ranges(method)["x"][1] < 0.5 * outlier


def test_percentile_keeps_the_share_that_was_asked_for() -> None:
    values = np.linspace(-1, 1, 100_000, dtype=np.float32).reshape(100, 1000)
    low, high = identity(values).ranges("percentile", 90.0)["x"]
    assert (low, high) == pytest.approx((-0.9, 0.9), abs=0.003)


def test_least_squares_range_of_a_normal_distribution() -> None:
    """8 bits of a normal distribution are best cut near four deviations (Nagel et al.: between
    3.9 and 4.1 for 8 bits)."""
    edges = np.linspace(-8, 8, 2049)
    centers = (edges[:-1] + edges[1:]) / 2
    counts = np.rint(1e9 * np.exp(-centers * centers / 2)).astype(np.int64)
    low, high = least_squares_range(Histogram(counts, edges, -8.0, 8.0))
    assert high == pytest.approx(4.0, abs=0.35)
    assert low == pytest.approx(-4.0, abs=0.35)


def test_least_squares_range_keeps_a_flat_distribution_whole() -> None:
    edges = np.linspace(-2, 2, 2049)
    flat = Histogram(np.full(2048, 10), edges, -2.0, 2.0)
    assert least_squares_range(flat) == pytest.approx((-2, 2), abs=0.05)


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_a_constant_activation_has_a_finite_range(value: float, method: Any) -> None:
    low, high = identity(np.full((4, 8), value, np.float32)).ranges(method)["x"]
    assert np.isfinite([low, high]).all()
    assert low <= min(value, 0) + 0.01 and high >= max(value, 0) - 0.01


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_every_method_stays_within_the_true_range(seed: int, scale: float) -> None:
    values = np.random.default_rng(seed).normal(size=(8, 64)).astype(np.float32) * scale
    statistics = identity(np.asarray(values, np.float32))
    true_low, true_high = statistics.ranges("minmax")["x"]
    slack = 0.02 * (true_high - true_low)  # a bin
    for method in ("percentile", "mse", "entropy"):
        low, high = statistics.ranges(method)["x"]  # type: ignore[arg-type]
        assert true_low - slack <= low <= 0 <= high <= true_high + slack


def test_histograms_count_every_value_of_every_batch() -> None:
    values = normal_with_outlier(30.0)
    histogram = identity(values).histograms["x"]
    assert histogram.counts.sum() == values.size
    assert (histogram.lowest, histogram.highest) == (values.min(), values.max())
    assert histogram.clipped(-40, 40) == 0
    assert histogram.clipped(-1, 1) == pytest.approx((np.abs(values) > 1).mean(), abs=0.02)


def test_a_model_that_cannot_run_is_an_error() -> None:
    statistics = identity(np.zeros((2, 3), np.float32))
    statistics.reader = ImageReader(np.zeros((2, 5), np.float32), np.arange(2), name="x")
    with pytest.raises(QuantizeError, match=r"(?s)cannot be calibrated.*Got: 5 Expected: 3"):
        statistics.ranges("minmax")


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_the_range_reaches_the_file(digits: Any, method: Any) -> None:
    """The scale of every activation is that of its method, not of onnxruntime's own look."""
    options = Int8Options(calibration=method)
    variant = int8_from_fp32(
        digits.model, digits.spec, options, digits.images, calibration_images=48
    )
    chosen = np.sort(np.random.default_rng(0).choice(96, size=48, replace=False))
    statistics = ActivationStatistics(digits.model, ImageReader(digits.images, chosen))
    ranges, graph = statistics.ranges(method), Graph(variant)
    checked = 0
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear" and node.input[1] == f"{node.input[0]}_scale":
            low, high = ranges[node.input[0]]
            scale = graph.array(node.input[1])
            assert scale is not None
            assert float(scale) == pytest.approx((high - low) / 255, rel=1e-5)
            checked += 1
    assert checked >= 3


def test_same_statistics_same_bytes(digits: Any) -> None:
    options = Int8Options(calibration="mse", bias_correction=True)
    one, two = (
        int8_from_fp32(
            digits.model, digits.spec, options, digits.images, calibration_images=48, seed=4
        )
        for _ in range(2)
    )
    assert one == two
    other = dataclasses.replace(options, bias_correction=False)
    assert (
        int8_from_fp32(
            digits.model, digits.spec, other, digits.images, calibration_images=48, seed=4
        )
        != one
    )
    assert isinstance(one, onnx.ModelProto)
