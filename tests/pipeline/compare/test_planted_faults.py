"""No alarm for healthy pairs; every planted fault is named, and nothing else is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from faults import (
    CAUSES,
    FAULTS,
    report,
)
from int8_variant import int8_from_fp32
from pets import ATTRIBUTES, CLASSES, EXPORT, OPTIONS, World, settled

from exporters.explain.causes import image_causes
from exporters.export.onnx_from_torch import onnx_from_torch
from exporters.export.resize_graph import resize_graph
from exporters.graph import onnx_file
from exporters.options import Int8Options
from pipeline.compare.measure import compare
from pipeline.errors import DataError
from pipeline.learning.networks.build import build_network
from runtime import ModelSpec


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("checkpoint.pt", "fp32.onnx"),
        ("checkpoint.pt", "fp16.onnx"),
        ("checkpoint.pt", "int8.onnx"),
        ("fp32.onnx", "int8.onnx"),
        ("fp16.onnx", "int8.onnx"),
        ("checkpoint.pt", "checkpoint.pt"),
    ],
)
def test_a_healthy_pair_raises_no_alarm(world: World, a: str, b: str) -> None:
    result = world.compare(world.path(a), world.path(b))
    assert result.passed and result.first_layer is None
    assert result.causes == ()
    assert len(result.layers) == 5  # three convolutions, one Gemm, the probabilities


def test_every_layer_is_named_by_both_sides(world: World) -> None:
    result = world.compare(world.path("checkpoint.pt"), world.path("fp32.onnx"))
    assert [row.a for row in result.layers] == [
        *("conv2d", "conv2d_1", "conv2d_2", "linear", "probabilities")
    ]
    assert [row.b for row in result.layers] == [
        *("Conv_0", "Conv_1", "Conv_2", "Gemm_0", "probabilities")
    ]


@pytest.mark.parametrize(("name", "plant", "expected"), FAULTS, ids=[f[0] for f in FAULTS])
def test_a_planted_fault_is_named_and_nothing_else_is(
    world: World, name: str, plant: Callable[[World], str], expected: str
) -> None:
    result = world.compare(world.path("checkpoint.pt"), plant(world))
    printed = report(result)
    assert re.search(expected, printed), printed
    assert result.passed == (name == "a dead filter of an 8-bit file"), printed
    assert len(result.damages) == ("8-bit" in name), printed  # what quantization costs
    wrong = [cause for cause, faults in CAUSES.items() if cause in printed and name not in faults]
    assert not wrong, printed


def half_as_bright(images: Any) -> Any:
    return (255 * (images / 255.0) ** 1.5 + 0.5).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (half_as_bright, "B answers as A does when its images are given with a gamma of 0.6"),
        (
            lambda x: np.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)), "edge")[:, :-1],
            "shifted by -1 rows and 0 columns",
        ),
        (lambda x: x[..., [1, 2, 0]], r"color channels in the order \[2, 0, 1\]"),
        (lambda x: 255 - x, r"inverted \(255 - x\)"),
    ],
)
def test_a_model_without_layers_is_given_changed_images(
    world: World, change: Callable[[Any], Any], expected: str
) -> None:
    session = onnx_file.session(world.fp32)
    images = world.images[:16].copy()
    if "shifted" in expected:  # it loses nothing where the edge is empty
        images[:, :3] = images[:, -3:] = images[:, :, :3] = images[:, :, -3:] = 90
    printed = list(
        image_causes(
            lambda x: onnx_file.run(session, x),
            lambda x: onnx_file.run(session, np.ascontiguousarray(change(x))),
            images,
            closed=True,
        )
    )
    assert len(printed) == 1 and re.search(expected, printed[0]), printed


@pytest.mark.parametrize(
    "fault", ["one altered weight", "wrong activation", "wrong pooling", "dropped bias"]
)
def test_two_files_show_it_as_well(world: World, fault: str) -> None:
    (plant,) = (f[1] for f in FAULTS if f[0] == fault)
    result = world.compare(world.path("fp32.onnx"), plant(world))
    words = {
        "one altered weight": "Conv_1: 1 of 1,728 weights differ",
        "wrong activation": "Relu_1 is a Relu in A and a LeakyRelu in B",
        "wrong pooling": "MaxPool_0 is a MaxPool in A and an AveragePool in B",
        "dropped bias": "Conv_2: its bias differs in 16 of 16 channels",
    }
    assert words[fault] in report(result)
    assert result.first_layer is not None


def test_a_saturating_variant_is_named_whatever_this_cpu_does(world: World) -> None:
    full_range = Int8Options("int8-u8s8", reduce_range=False)
    risky = world.save(
        "fault.onnx",
        int8_from_fp32(world.fp32, CLASSES, full_range, world.images, calibration_images=64),
    )
    result = world.compare(world.path("fp32.onnx"), risky)
    assert re.search(r"B is not portable: Conv_\d: [^;]*255 \* \d+ > 32767", report(result))


def test_a_resize_without_antialias_is_named(world: World) -> None:
    plain = resize_graph(16, 16, "rgb")
    for node in plain.graph.node:
        for entry in node.attribute:
            if entry.name == "antialias":
                entry.i = 0
    result = world.compare(
        world.bundle("a.zip", fp32=world.fp32),
        world.bundle("b.zip", fp32=world.fp32, preprocess=plain),
    )
    expected = report(result)
    assert re.search(r"preprocess.onnx: \w+: antialias is 1 in A and 0 in B", expected), expected
    assert re.search(r"preprocess\.onnx .*golden image 0 by up to \d+", expected)


def test_other_thresholds_and_labels_are_named(world: World) -> None:
    thresholds = (0.5, 0.5, 0.5, 0.5)
    network = settled(build_network(OPTIONS, ATTRIBUTES))
    graph = onnx_from_torch(network, ATTRIBUTES, EXPORT)
    a = world.bundle("a.zip", ATTRIBUTES, fp32=graph, thresholds=thresholds)
    b = world.bundle("b.zip", ATTRIBUTES, fp32=graph, thresholds=(0.5, 0.2, 0.5, 0.5))
    np.savez(world.folder / "attributes.npz", images=world.images)
    data = world.folder / "attributes.npz"
    with pytest.raises(DataError, match=r"\(120,\).*\(120, 4\)"):
        world.compare(a, b)
    result = compare(a, b, data)
    assert result.difference.max_abs == 0
    assert not result.passed
    assert "the threshold of dog is 0.5 in A and 0.2 in B" in result.causes
    names = ModelSpec("pets", "multi-label", 16, 16, 3, ("dog", "cat", "owl", "bee"))
    c = world.bundle("c.zip", names, fp32=graph, thresholds=thresholds)
    result = compare(a, c, data)
    assert not result.passed
    assert "the labels are cat, dog, owl, bee in A and dog, cat, owl, bee in B" in result.causes
