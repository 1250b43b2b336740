"""`pipeline compare` finds what was broken on purpose, names the layer or the cause, and raises no
alarm where nothing is wrong. The models are small, with random weights, and made in seconds."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper
from pets import ATTRIBUTES, CLASSES, EXPORT, LABELS, OPTIONS, World, settled
from torch import nn

from exporters.explain import causes as diagnose
from exporters.export.onnx_from_torch import onnx_from_torch
from exporters.export.preprocess_graph import resize_graph
from exporters.graph import onnx_file
from exporters.options import TOLERANCES, Int8Options
from exporters.quantize.int8_from_fp32 import int8_from_fp32
from pipeline.cli.main import cli
from pipeline.compare.forms import open_form
from pipeline.compare.measure import compare
from pipeline.compare.precision import precision_of
from pipeline.compare.result import Comparison
from pipeline.datasets.arrays import DatasetInfo, Split, write_info, write_split
from pipeline.errors import DataError, PipelineError
from pipeline.learning.networks.build import build_network
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.recipe import Conv, Linear, NetworkOptions
from runtime import ModelSpec

# --- no false alarm ---------------------------------------------------------------------------


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
    found = world.compare(world.path(a), world.path(b))
    assert found.passed and found.first_layer is None
    assert found.causes == ()
    assert len(found.layers) == 5  # three convolutions, one Gemm, the probabilities


def test_every_layer_is_named_by_both_sides(world: World) -> None:
    found = world.compare(world.path("checkpoint.pt"), world.path("fp32.onnx"))
    assert [row.a for row in found.layers] == [
        *("conv2d", "conv2d_1", "conv2d_2", "linear", "probabilities")
    ]
    assert [row.b for row in found.layers] == [
        *("Conv_0", "Conv_1", "Conv_2", "Gemm_0", "probabilities")
    ]


# --- planted faults ---------------------------------------------------------------------------


class Fault(nn.Module):
    """The network behind a mistake in what it is given."""

    def __init__(
        self, network: PixelNetwork, change: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network(self.change(pixels))


def given(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[World], str]:
    def plant(world: World) -> str:
        model = onnx_from_torch(Fault(world.network, change).eval(), CLASSES, EXPORT)
        return world.save("fault.onnx", model)

    return plant


def changed(**options: Any) -> Callable[[World], str]:
    """The same weights under other options of the network."""

    def plant(world: World) -> str:
        network = build_network(OPTIONS.model_copy(update=options), CLASSES)
        network.load_state_dict(world.network.state_dict())
        return world.save("fault.onnx", onnx_from_torch(network.eval(), CLASSES, EXPORT))

    return plant


def in_network(change: Callable[[PixelNetwork], None]) -> Callable[[World], str]:
    def plant(world: World) -> str:
        network = load_checkpoint(Path(world.path("checkpoint.pt")))
        change(network)
        return world.save("fault.onnx", onnx_from_torch(network.eval(), CLASSES, EXPORT))

    return plant


def in_file(
    change: Callable[[onnx.GraphProto], None], name: str = "fp32"
) -> Callable[[World], str]:
    def plant(world: World) -> str:
        model = onnx.ModelProto()
        model.CopyFrom(getattr(world, name))
        change(model.graph)
        return world.save("fault.onnx", model)

    return plant


def constant(graph: onnx.GraphProto, name: str, change: Callable[[Any], Any]) -> None:
    (tensor,) = (t for t in graph.initializer if t.name == name)
    values = change(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def alter_one(values: Any) -> Any:
    values.reshape(-1)[100] += 0.5 if values.dtype == np.float32 else 40
    return values


def another_operator(graph: onnx.GraphProto, old: str, new: str, **attributes: Any) -> None:
    node = next(node for node in graph.node if node.name == old)
    node.op_type = new
    del node.attribute[:]
    node.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in attributes.items())


def another_epsilon(network: PixelNetwork) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.05


def without_batch_norm(network: PixelNetwork) -> None:
    norm = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    norm.running_mean.zero_()
    norm.running_var.fill_(1)
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)


def another_order(graph: onnx.GraphProto) -> None:
    for part in ("weight", "bias"):
        constant(graph, f"Gemm_0.{part}", lambda values: values[[1, 0, 3, 2]])


def shifted(pixels: torch.Tensor) -> torch.Tensor:
    """A crop that begins one row too low."""
    return torch.cat([pixels[:, 1:], pixels[:, -1:]], dim=1)


def int8_weights(graph: onnx.GraphProto) -> str:
    return next(
        t.name
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4
    )


def rolled(pixels: torch.Tensor) -> torch.Tensor:
    """The channels green, blue, red."""
    return pixels[..., [1, 2, 0]]


def with_gamma(exponent: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda pixels: 255 * (pixels.to(torch.float32) / 255) ** exponent


def moved(pixels: torch.Tensor) -> torch.Tensor:
    """A crop that begins two columns too far to the right."""
    return torch.cat([pixels[:, :, 2:], pixels[:, :, -1:], pixels[:, :, -1:]], dim=2)


def brighter(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels.to(torch.float32) + 20).clamp(max=255)


def before(kind: str, *more: str, **constants: Any) -> Callable[[onnx.GraphProto], None]:
    """One more operator in front of the softmax; its other inputs are constants."""

    def change(graph: onnx.GraphProto) -> None:
        (last,) = (node for node in graph.node if node.op_type == "Softmax")
        for name, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        node = onnx.helper.make_node(kind, [last.input[0], *constants], ["changed"], name=kind)
        last.input[0] = "changed"
        graph.node.insert(len(graph.node) - 1, node)

    return change


def without_the_mean(graph: onnx.GraphProto) -> None:
    """Logits less their mean over the batch: an image alone has no answer of its own."""
    (last,) = (node for node in graph.node if node.op_type == "Softmax")
    nodes = [
        onnx.helper.make_node("ReduceMean", [last.input[0], "axes"], ["mean"], name="mean"),
        onnx.helper.make_node("Sub", [last.input[0], "mean"], ["changed"], name="less"),
    ]
    graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
    last.input[0] = "changed"
    for node in nodes:
        graph.node.insert(len(graph.node) - 1, node)


def noisy(graph: onnx.GraphProto) -> None:
    (last,) = (node for node in graph.node if node.op_type == "Softmax")
    nodes = [
        onnx.helper.make_node("RandomNormalLike", [last.input[0]], ["noise"], name="noise"),
        onnx.helper.make_node("Add", [last.input[0], "noise"], ["changed"], name="add"),
    ]
    last.input[0] = "changed"
    for node in nodes:
        graph.node.insert(len(graph.node) - 1, node)


def dead(values: Any) -> Any:
    values[5] = 0
    return values


def scaled_rows(values: Any) -> Any:
    values[3] *= 2
    return values


def not_a_number(values: Any) -> Any:
    values[0] = np.nan
    return values


# (what is wrong, how it is planted, what the report must say: a layer or a cause)
FAULTS: list[tuple[str, Callable[[World], str], str]] = [
    ("wrong mean", changed(mean=(0.1, 0.4, 0.3)), r"input of conv2d is normalised otherwise"),
    ("wrong scale", changed(std=(0.2, 0.25, 0.1)), r"input of conv2d is normalised otherwise"),
    ("swapped channels", given(lambda x: x.flip(3)), r"colour channels in the reverse order"),
    ("transposed layout", given(lambda x: x.transpose(1, 2)), r"transposed: height and width"),
    ("clipped range", given(lambda x: x.clamp(64, 190)), r"input of conv2d is clipped to"),
    ("inverted", given(lambda x: 255 - x), r"inverted \(255 - x\)"),
    ("mirrored", given(lambda x: x.flip(2)), r"mirrored left to right"),
    ("off-by-one crop", given(shifted), r"shifted by -1 rows and 0 columns"),
    (
        "one altered weight",
        in_file(lambda g: constant(g, "Conv_1.weight", alter_one)),
        r"conv2d_1 / Conv_1: 1 of 1,728 weights differ; the one at \[0, 11, 0, 1\]",
    ),
    (
        "one altered weight of an 8-bit file",
        in_file(lambda g: constant(g, int8_weights(g), alter_one), "int8"),
        r"conv2d / Conv_0: 1 of 324 weights differ",
    ),
    (
        "dropped bias",
        in_file(lambda g: constant(g, "Conv_2.bias", np.zeros_like)),
        r"conv2d_2 / Conv_2: its bias differs in 16 of 16 channels.*dropped \(0\) in B",
    ),
    (
        "wrong activation",
        in_file(lambda g: another_operator(g, "Relu_1", "LeakyRelu", alpha=0.3)),
        r"first layer conv2d_2 / Conv_2.*Relu_1.*only A has no negative values",
    ),
    (
        "no activation",
        in_file(lambda g: another_operator(g, "Relu_2", "Identity")),
        r"first layer linear / Gemm_0.*only A has no negative values",
    ),
    (
        "wrong pooling",
        in_file(
            lambda g: another_operator(
                g, "MaxPool_0", "AveragePool", kernel_shape=[2, 2], strides=[2, 2]
            )
        ),
        r"first layer conv2d_1 / Conv_1.*MaxPool_0",
    ),
    (
        "wrong epsilon",
        in_network(another_epsilon),
        r"conv2d / Conv_0: each output channel is scaled",
    ),
    (
        "batch norm not folded",
        in_network(without_batch_norm),
        r"conv2d / Conv_0: each output channel is scaled",
    ),
    ("wrong label order", in_file(another_order), r"labels are in another order in B.*cat is at 1"),
    (
        "softmax over the batch",
        in_file(lambda g: another_operator(g, "Softmax_0", "Softmax", axis=0)),
        r"first layer probabilities.*Softmax_0",
    ),
    ("gamma", given(with_gamma(0.8)), r"as if the pixels of B were given with a gamma of 0\.8;?"),
    ("strong gamma", given(with_gamma(2.2)), r"given with a gamma of 2\.2"),
    ("slight gamma", given(with_gamma(0.96)), r"given with a gamma of 0\.96"),
    ("brighter", given(brighter), r"as if the pixels of B were brighter by 20 levels"),
    ("rolled channels", given(rolled), r"colour channels in the order \[1, 2, 0\]"),
    ("upside down", given(lambda x: x.flip(1)), r"turned upside down"),
    ("turned", given(lambda x: x.transpose(1, 2).flip(1)), r"turned by 90 degrees to the left"),
    ("a crop two columns off", given(moved), r"shifted by 0 rows and -2 columns"),
    (
        "divided by 255 twice",
        given(lambda x: x.to(torch.float32) / 255),
        r"normalised otherwise.*as if its pixels were divided by 255 once more",
    ),
    (
        "divided by 255 in the weights",
        in_file(lambda g: constant(g, "Conv_0.weight", lambda v: v / np.float32(255))),
        r"conv2d / Conv_0: all weights are scaled by 0\.0039216: divided by 255 once more",
    ),
    (
        "temperature",
        in_file(before("Mul", t=np.float32(2))),
        r"B's logits are A's times 2: a temperature of 0\.5",
    ),
    ("sigmoid", in_file(lambda g: another_operator(g, "Softmax_0", "Sigmoid")), r"B ends in a sig"),
    (
        "a dead filter",
        in_file(lambda g: constant(g, "Conv_1.weight", dead)),
        r"conv2d_1 / Conv_1: output channel 5 of 16 is zero in B: a dead filter",
    ),
    (
        "a dead filter of an 8-bit file",
        in_file(lambda g: constant(g, "Conv_1.weight_quantized", dead), "int8"),
        r"conv2d_1 / Conv_1: output channel 5 of 16 is zero in B: a dead filter",
    ),
    (
        "one scaled filter",
        in_file(lambda g: constant(g, "Conv_1.weight", scaled_rows)),
        r"conv2d_1 / Conv_1: output channel 3 of 16 is scaled by 2 in B",
    ),
    (
        "a doubled scale of 8-bit weights",
        in_file(lambda g: constant(g, "Conv_1.weight_scale", lambda v: 2 * v), "int8"),
        r"conv2d_1 / Conv_1: all weights are scaled by 2.* \(a scale of its 8-bit weights\)",
    ),
    ("depends on the batch", in_file(without_the_mean), r"B's answers depend on the rest of"),
    ("random", in_file(noisy), r"B's answers change from run to run, by up to"),
    (
        "not a number",
        in_file(lambda g: constant(g, "Conv_1.bias", not_a_number)),
        r"first layer conv2d_2 / Conv_2.*input of conv2d_2 is not finite in B.*"
        r"B \(.*fault.onnx\) answers NaN or infinity to 120 of 120 images: 0, 1, 2,",
    ),
]

# Words of causes, and the faults that may be called so. Everything else says less, or is wrong.
CAUSES = {
    "normalised otherwise": ("wrong mean", "wrong scale", "inverted", "divided by 255 twice"),
    "batch norm": ("wrong epsilon", "batch norm not folded"),
    "colour channels": ("swapped channels", "rolled channels"),
    "transposed": ("transposed layout",),
    "turned": ("upside down", "turned"),
    "mirrored": ("mirrored",),
    "shifted": ("off-by-one crop", "a crop two columns off"),
    "inverted": ("inverted",),
    "clipped": ("clipped range",),
    "gamma": ("gamma", "strong gamma", "slight gamma"),
    "contrast": (),
    "tone curve": (),
    "brighter": ("brighter",),
    "divided by 255": ("divided by 255 twice", "divided by 255 in the weights"),
    "temperature": ("temperature",),
    "sigmoid": ("sigmoid",),
    "labels are in another order": ("wrong label order",),
    "dead filter": ("a dead filter", "a dead filter of an 8-bit file"),
    "activation differs": ("wrong activation", "no activation"),
    "rest of the batch": ("depends on the batch", "softmax over the batch"),
    "run to run": ("random",),
    "NaN": ("not a number",),
}


def report(found: Comparison) -> str:
    layer = f"first layer {found.first_layer}; suspects {found.suspects}; "
    return layer + "; ".join((*found.causes, *found.failures, *found.remarks))


@pytest.mark.parametrize(("name", "plant", "said"), FAULTS, ids=[f[0] for f in FAULTS])
def test_a_planted_fault_is_named_and_nothing_else_is(
    world: World, name: str, plant: Callable[[World], str], said: str
) -> None:
    found = world.compare(world.path("checkpoint.pt"), plant(world))
    printed = report(found)
    assert re.search(said, printed), printed
    assert not found.passed or found.damages, printed  # else what it costs is stated
    wrong = [cause for cause, faults in CAUSES.items() if cause in printed and name not in faults]
    assert not wrong, printed


def half_as_bright(images: Any) -> Any:
    return (255 * (images / 255.0) ** 1.5 + 0.5).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (half_as_bright, "B answers as A does when its images are given with a gamma of 0.6"),
        (
            lambda x: np.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)), "edge")[:, :-1],
            "shifted by -1 rows and 0 columns",
        ),
        (lambda x: x[..., [1, 2, 0]], r"colour channels in the order \[2, 0, 1\]"),
        (lambda x: 255 - x, r"inverted \(255 - x\)"),
    ],
)
def test_a_form_without_layers_is_asked_with_changed_images(
    world: World, change: Callable[[Any], Any], said: str
) -> None:
    session = onnx_file.session(world.fp32)
    images = world.images[:16].copy()
    if "shifted" in said:  # it loses nothing where the edge is empty
        images[:, :3] = images[:, -3:] = images[:, :, :3] = images[:, :, -3:] = 90
    printed = list(
        diagnose.of_images(
            lambda x: onnx_file.run(session, x),
            lambda x: onnx_file.run(session, np.ascontiguousarray(change(x))),
            images,
            closed=True,
        )
    )
    assert len(printed) == 1 and re.search(said, printed[0]), printed


@pytest.mark.parametrize(
    "fault", ["one altered weight", "wrong activation", "wrong pooling", "dropped bias"]
)
def test_two_files_show_it_too(world: World, fault: str) -> None:
    (plant,) = (f[1] for f in FAULTS if f[0] == fault)
    found = world.compare(world.path("fp32.onnx"), plant(world))
    words = {
        "one altered weight": "Conv_1: 1 of 1,728 weights differ",
        "wrong activation": "Relu_1 is a Relu in A and a LeakyRelu in B",
        "wrong pooling": "MaxPool_0 is a MaxPool in A and an AveragePool in B",
        "dropped bias": "Conv_2: its bias differs in 16 of 16 channels",
    }
    assert words[fault] in report(found)
    assert found.first_layer is not None


def test_a_saturating_variant_is_named_whatever_this_cpu_does(world: World) -> None:
    full_range = Int8Options("int8-u8s8", reduce_range=False)
    risky = world.save(
        "fault.onnx",
        int8_from_fp32(world.fp32, CLASSES, full_range, world.images, calibration_images=64),
    )
    found = world.compare(world.path("fp32.onnx"), risky)
    assert re.search(
        r"B is not portable: Conv_\d: two neighbouring weights saturate", report(found)
    )


def test_a_resize_without_antialias_is_named(world: World) -> None:
    plain = resize_graph(16, 16, "rgb")
    for node in plain.graph.node:
        for entry in node.attribute:
            if entry.name == "antialias":
                entry.i = 0
    found = world.compare(
        world.bundle("a.zip", fp32=world.fp32),
        world.bundle("b.zip", fp32=world.fp32, preprocess=plain),
    )
    said = report(found)
    assert re.search(r"preprocess.onnx: \w+: antialias is 1 in A and 0 in B", said), said
    assert re.search(r"preprocess.onnx makes other pixels of golden image 0 by up to \d+", said)


def test_other_thresholds_and_labels_are_named(world: World) -> None:
    thresholds = (0.5, 0.5, 0.5, 0.5)
    network = settled(build_network(OPTIONS, ATTRIBUTES))
    graph = onnx_from_torch(network, ATTRIBUTES, EXPORT)
    a = world.bundle("a.zip", ATTRIBUTES, fp32=graph, thresholds=thresholds)
    b = world.bundle("b.zip", ATTRIBUTES, fp32=graph, thresholds=(0.5, 0.2, 0.5, 0.5))
    np.savez(world.folder / "attributes.npz", images=world.images)
    data = world.folder / "attributes.npz"
    with pytest.raises(DataError, match=r"labels have the shape \(120,\); expected \(120, 4\)"):
        world.compare(a, b)
    found = compare(a, b, data)
    assert found.difference.max_abs == 0
    assert not found.passed
    assert "the threshold of dog is 0.5 in A and 0.2 in B" in found.causes
    names = ModelSpec("pets", "multi-label", 16, 16, 3, ("dog", "cat", "owl", "bee"))
    c = world.bundle("c.zip", names, fp32=graph, thresholds=thresholds)
    found = compare(a, c, data)
    assert not found.passed
    assert "the labels are cat, dog, owl, bee in A and dog, cat, owl, bee in B" in found.causes


# --- how images are prepared -------------------------------------------------------------------

PREPARED = resize_graph(16, 16, "rgb")


def behind(*nodes: tuple[str, dict[str, Any]], **constants: Any) -> onnx.ModelProto:
    """The healthy graph with more operators behind it; each takes the result of the one before,
    and constants of its own by the name of their parameter."""
    model = onnx.ModelProto()
    model.CopyFrom(PREPARED)
    end = model.graph.node.pop()
    value = end.input[0]
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for number, (kind, options) in enumerate(nodes):
        names = [value if name == "_" else name for name in options.pop("inputs", ["_"])]
        value = f"more_{number}"
        model.graph.node.append(onnx.helper.make_node(kind, names, [value], name=value, **options))
    model.graph.node.append(onnx.helper.make_node("Identity", [value], ["pixels"], name="pixels"))
    return model


def resized(**attributes: Any) -> onnx.ModelProto:
    """Another way to resample."""
    model = onnx.ModelProto()
    model.CopyFrom(PREPARED)
    (node,) = (node for node in model.graph.node if node.op_type == "Resize")
    kept = [entry for entry in node.attribute if entry.name not in attributes]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in attributes.items())
    return model


def lighter() -> onnx.ModelProto:
    to = onnx.TensorProto
    steps = (
        ("Cast", {"to": to.INT32}),
        ("Add", {"inputs": ["_", "one"]}),
        ("Min", {"inputs": ["_", "top"]}),
        ("Cast", {"to": to.UINT8}),
    )
    return behind(*steps, one=np.int32(1), top=np.int32(255))


def table(values: Any) -> onnx.ModelProto:
    steps = (("Cast", {"to": onnx.TensorProto.INT32}), ("Gather", {"inputs": ["curve", "_"]}))
    return behind(*steps, curve=np.asarray(values, np.uint8))


def reversed_along(axis: int) -> onnx.ModelProto:
    steps = ("Slice", {"inputs": ["_", "start", "end", "axis", "step"]})
    ends = {"start": [-1], "end": [-(2**31)], "axis": [axis], "step": [-1]}
    return behind(steps, **{name: np.array(value, np.int64) for name, value in ends.items()})


def only_of(rows: int) -> onnx.ModelProto:
    """Inverted, but only pictures of so many rows or more: no golden image is as large."""
    model = behind()
    end = model.graph.node.pop()
    graph = [
        ("Shape", [PREPARED.graph.input[0].name], "rows", {"start": 0, "end": 1}),
        ("Less", ["rows", "bound"], "small", {}),
        ("BitwiseNot", [end.input[0]], "inverted", {}),
        ("Where", ["small", end.input[0], "inverted"], "pixels", {}),
    ]
    bound = numpy_helper.from_array(np.array([rows], np.int64), "bound")
    model.graph.initializer.append(bound)
    for kind, inputs, output, options in graph:
        node = onnx.helper.make_node(kind, inputs, [output], name=output, **options)
        model.graph.node.append(node)
    return model


def without_alpha() -> onnx.ModelProto:
    """Takes four channels, and forgets the last, which the healthy graph refuses."""
    model = onnx.ModelProto()
    model.CopyFrom(PREPARED)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = "three" if name == "image" else name
    for name, value in (("first", [0]), ("third", [3]), ("channels", [2])):
        stored = numpy_helper.from_array(np.array(value, np.int64), name)
        model.graph.initializer.append(stored)
    inputs = ["image", "first", "third", "channels"]
    model.graph.node.insert(0, onnx.helper.make_node("Slice", inputs, ["three"], name="three"))
    return model


# (what is wrong, the graph, what is said of it)
PREPROCESSING: list[tuple[str, onnx.ModelProto, str]] = [
    ("inverted", behind(("BitwiseNot", {})), r"B's pixels are A's inverted \(255 - x\)"),
    ("BGR", reversed_along(2), "colour channels in the reverse order"),
    ("mirrored", reversed_along(1), "mirrored left to right"),
    ("upside down", reversed_along(0), "turned upside down"),
    ("transposed", behind(("Transpose", {"perm": [1, 0, 2]})), "transposed: height and width"),
    ("one level brighter", lighter(), "B's pixels are A's brighter by 1 level"),
    ("gamma", table(np.rint(255 * (np.arange(256) / 255) ** 0.8)), "with a gamma of 0.8"),
    ("one level alone", table(np.where(np.arange(256) == 201, 202, np.arange(256))), "1 levels"),
    ("nearest", resized(mode="nearest", antialias=0), "mode is linear in A and nearest in B"),
    ("cubic", resized(mode="cubic"), "mode is linear in A and cubic in B"),
    ("no antialias", resized(antialias=0), "antialias is 1 in A and 0 in B"),
    *(
        (mode, resized(coordinate_transformation_mode=mode), f"in A and {mode} in B")
        for mode in ("align_corners", "asymmetric")
    ),
    ("another crop", resize_graph(16, 16, "rgb", (15, 16), (16, 16)), r"\d+ of \d+ pictures"),
    ("grey", behind(("Gather", {"inputs": ["_", "red"], "axis": 2}), red=np.array([0, 0, 0])), ""),
    ("only large pictures", only_of(3_000), r"by up to 255 levels"),
    ("alpha", without_alpha(), "color and alpha.*only A refuses it"),
]


def run_of(world: World, folder: Path, preprocess: onnx.ModelProto | None = PREPARED) -> Path:
    """A run with a checkpoint and a data stage, whose images are the world's."""
    (folder / "2_train").mkdir(parents=True)
    (folder / "3_export").mkdir()
    shutil.copy(world.path("checkpoint.pt"), folder / "2_train/checkpoint.pt")
    shutil.copy(world.path("fp32.onnx"), folder / "3_export/fp32.onnx")
    info = DatasetInfo("pets", "multi-class", LABELS, {}, "", True, True, "CC0-1.0")
    random = np.random.default_rng(0)
    split = Split(world.images, random.integers(0, 4, 120), np.arange(120).astype(str))
    (folder / "1_data").mkdir()
    for name in ("train", "val", "test"):
        write_split(folder / "1_data", name, split)
    counts = dict.fromkeys(("train", "val", "test"), 120)
    write_info(folder / "1_data", replace(info, counts=counts))
    if preprocess is not None:
        onnx_file.save(preprocess, folder / "1_data/preprocess.onnx")
    return folder


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(world, tmp_path_factory.mktemp("runs") / "pets")


@pytest.mark.parametrize(
    ("graph", "said"), [row[1:] for row in PREPROCESSING], ids=[row[0] for row in PREPROCESSING]
)
def test_any_other_pixel_fails_against_the_checkpoint_of_the_run(
    world: World, run: Path, graph: onnx.ModelProto, said: str
) -> None:
    bundle = world.bundle("prepared.zip", fp32=world.fp32, preprocess=graph)
    found = compare(str(run / "2_train/checkpoint.pt"), bundle, None)
    assert not found.passed and found.preprocessing.differing > 0
    assert found.difference.max_abs < 1e-4  # the networks are equal
    (failure,) = found.failures
    assert re.search(r"preprocess.onnx makes other pixels of \d+ of \d+ pictures", failure)
    assert "1_data/preprocess.onnx" in failure and "prepared.zip" in failure
    assert re.search(said, report(found)), report(found)


def test_a_bare_file_and_a_bundle_fail_as_well(world: World, run: Path) -> None:
    mirrored = world.bundle("prepared.zip", fp32=world.fp32, preprocess=reversed_along(1))
    healthy = world.bundle("healthy.zip", fp32=world.fp32, preprocess=PREPARED)
    data = world.path("images.npz")
    for a, b in (
        (str(run / "3_export/fp32.onnx"), mirrored),
        (mirrored, str(run / "3_export/fp32.onnx")),
        (healthy, mirrored),
    ):
        done = CliRunner().invoke(cli, ["compare", a, b, "--data", data])
        assert done.exit_code == 1, done.output
        assert "mirrored left to right" in done.output and "pictures" in done.output


def test_equal_preprocessing_passes_and_says_on_what(world: World, run: Path) -> None:
    checkpoint = str(run / "2_train/checkpoint.pt")
    same = compare(checkpoint, world.bundle("a.zip", fp32=world.fp32, preprocess=PREPARED), None)
    assert same.passed and same.preprocessing.same_file and not same.remarks
    renamed = onnx.ModelProto()
    renamed.CopyFrom(PREPARED)
    renamed.producer_name = "another tool"
    other = compare(checkpoint, world.bundle("b.zip", fp32=world.fp32, preprocess=renamed), None)
    row = other.preprocessing
    assert other.passed and row.pictures > 150 and row.differing == 0 and not row.same_file
    assert f"the same pixels of all {row.pictures} pictures" in report(other)
    assert compare(checkpoint, str(run / "3_export/fp32.onnx"), None).preprocessing.same_file


def test_preprocessing_that_nobody_can_compare_is_said_loudly(
    world: World, run: Path, tmp_path: Path
) -> None:
    bundle = world.bundle("a.zip", fp32=world.fp32, preprocess=PREPARED)
    words = ["compare", world.path("checkpoint.pt"), bundle, "--data", world.path("images.npz")]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0 and "PREPROCESSING WAS NOT COMPARED" in done.output
    assert "checkpoint.pt" in done.output.partition("NOT COMPARED")[2]
    bare = run_of(world, tmp_path / "bare", preprocess=None)
    found = compare(str(bare / "2_train/checkpoint.pt"), bundle, None)
    assert found.preprocessing.unknown and found.preprocessing.unknown in found.remarks
    np.save(tmp_path / "recorded.npy", onnx_file.run(onnx_file.session(world.fp32), world.images))
    recorded = compare(str(tmp_path / "recorded.npy"), bundle, Path(world.path("images.npz")))
    assert "recorded.npy" in recorded.preprocessing.unknown


# --- images and answers that prove nothing -------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((5, 16, 16, 3)), "all 5 images are black"),
        (np.zeros((1, 16, 16, 3)), "all 1 images are black"),
        (np.arange(5).reshape(5, 1, 1, 1) * np.full((5, 16, 16, 3), 40), "of one flat color each"),
        (np.tile(np.arange(768).reshape(1, 16, 16, 3) % 256, (4, 1, 1, 1)), "are the same one"),
    ],
)
def test_images_that_prove_nothing_fail(world: World, pixels: Any, said: str) -> None:
    np.save(world.folder / "nothing.npy", pixels.astype(np.uint8))
    data = Path(world.path("nothing.npy"))
    found = compare(world.path("checkpoint.pt"), world.path("fp32.onnx"), data)
    assert not found.passed and said in found.failures[0] and "prove nothing" in found.failures[0]
    assert found.difference.max_abs < 1e-4 and len(found.failures) == 1


def test_single_images_without_a_number_are_named(world: World) -> None:
    """NaN where the picture's first pixel is 255, and of one side alone."""
    images = world.images.copy()
    images[:, 0, 0, 0] = 0
    images[[17, 40], 0, 0, 0] = 255
    np.savez(world.folder / "some.npz", images=images, labels=np.arange(120) % 4)
    (world.folder / "partly.py").write_text(
        "import numpy as np\n"
        "from pipeline.learning.training.checkpoint import load_checkpoint\n"
        "from pipeline.learning.training.evaluate import probabilities\n"
        f"network = load_checkpoint(__import__('pathlib').Path({world.path('checkpoint.pt')!r}))\n"
        "def function(images):\n"
        "    found = probabilities(network, images)\n"
        "    found[images[:, 0, 0, 0] == 255] = np.nan\n"
        "    return found\n"
    )
    sys.path.insert(0, str(world.folder))
    try:
        data = Path(world.path("some.npz"))
        found = compare("partly:function", world.path("fp32.onnx"), data)
    finally:
        sys.path.remove(str(world.folder))
        sys.modules.pop("partly", None)
    (failure,) = found.failures
    assert "A (partly:function) answers NaN or infinity to 2 of 120 images: 17, 40" in failure
    assert found.difference.images == 118 and found.difference.max_abs < 1e-4
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["passed"] is False


# --- what INT8 costs ---------------------------------------------------------------------------


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


# --- the other forms, and the figures ----------------------------------------------------------


def test_recorded_outputs_stand_for_a_model(world: World) -> None:
    session = onnx_file.session(world.fp32)
    outputs = onnx_file.run(session, world.images)
    np.savez(world.folder / "outputs.npz", reference=outputs, other=outputs * 0.9)
    recorded = world.path("outputs.npz")
    found = world.compare(f"{recorded}:reference", world.path("fp32.onnx"))
    assert found.difference.max_abs < 1e-6 and found.passed
    found = compare(f"{recorded}:reference", f"{recorded}:other", None)
    d = found.difference
    gap = np.abs(outputs - outputs * np.float32(0.9))
    assert d.max_abs == pytest.approx(gap.max()) and d.mean_abs == pytest.approx(gap.mean())
    assert d.p99_abs == pytest.approx(np.quantile(gap, 0.99))
    assert d.max_rel == pytest.approx(0.1, rel=1e-3) and d.snr_db == pytest.approx(20, abs=0.01)
    assert d.agreement == 1 and d.worst[0][0] == gap.max(axis=1).argmax()
    assert np.allclose(outputs * np.float32(0.9), outputs, rtol=d.rtol * 1.001, atol=1e-6)
    assert not np.allclose(outputs * np.float32(0.9), outputs, rtol=d.rtol * 0.99, atol=1e-6)


def test_a_callable_may_be_a_network_a_factory_or_a_function(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.folder / "pets_models.py").write_text(
        "from pathlib import Path\n"
        "from pipeline.learning.training.checkpoint import load_checkpoint\n"
        "HERE = Path(__file__).parent\n"
        "network = load_checkpoint(HERE / 'checkpoint.pt')\n"
        "def factory(): return network\n"
        "def function(images):\n"
        "    from pipeline.learning.training.evaluate import probabilities\n"
        "    return probabilities(network, images)\n"
    )
    monkeypatch.chdir(world.folder)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    for name, layers in (("network", 5), ("factory", 5), ("function", 0)):
        found = world.compare(f"pets_models:{name}", world.path("fp32.onnx"))
        assert found.passed and len(found.layers) == layers


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.onnx", "does not exist; expected a checkpoint"),
        ("something", "is no form of a model"),
        ("no_such_module:network", "cannot be opened: ModuleNotFoundError"),
    ],
)
def test_what_is_no_form_is_refused(world: World, name: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        world.compare(name, world.path("fp32.onnx"))


def test_images_are_needed_and_must_fit(world: World, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no images to compare on"):
        compare(world.path("fp32.onnx"), world.path("fp32.onnx"), None)
    np.save(tmp_path / "small.npy", np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"expected uint8 \(n, 16, 16, 3\)"):
        compare(world.path("fp32.onnx"), world.path("fp32.onnx"), tmp_path / "small.npy")
    np.save(tmp_path / "outputs.npy", np.zeros((7, 4), np.float32))
    with pytest.raises(DataError, match="has outputs of 7 images"):
        world.compare(str(tmp_path / "outputs.npy"), world.path("fp32.onnx"))


def test_networks_of_other_layers_are_compared_without_them(world: World) -> None:
    other = NetworkOptions(layers=(Conv(op="conv", out=4, stride=4), Linear(op="linear")))
    network = settled(build_network(other, CLASSES))
    save_checkpoint(world.folder / "other.pt", network)
    found = world.compare(world.path("other.pt"), world.path("fp32.onnx"))
    assert not found.passed and found.layers == ()
    assert "expected the same kinds" in found.note


def test_the_command_prints_and_fails(world: World) -> None:
    data = ["--data", world.path("images.npz")]
    healthy = [world.path("checkpoint.pt"), world.path("fp32.onnx")]
    done = CliRunner().invoke(cli, ["compare", *healthy, *data])
    assert done.exit_code == 0, done.output
    for words in ("120 images", "SNR", "same answers 100 %", "accuracy of A", "within tolerance"):
        assert words in done.output
    plant = FAULTS[0][1](world)
    done = CliRunner().invoke(cli, ["compare", healthy[0], plant, *data])
    assert done.exit_code == 1
    for words in ("parts here", "first layer whose input differs: conv2d / Conv_0", "normalised"):
        assert words in done.output
    done = CliRunner().invoke(cli, ["compare", *healthy, *data, "--tolerance", "1e-12", "--json"])
    assert done.exit_code == 1 and '"asked for"' in done.output


def test_generated_images_find_what_the_test_set_hides_and_are_kept(
    world: World, tmp_path: Path
) -> None:
    """An activation that is cut off just above what the test images reach."""
    from exporters.explain.trace import trace_onnx

    run = run_of(world, tmp_path / "run")
    highest = float(trace_onnx(world.fp32, world.images)[2].values.max()) * 1.01

    def cut(graph: onnx.GraphProto) -> None:
        relu = next(node for node in graph.node if node.name == "Relu_1")
        relu.op_type = "Clip"
        relu.input.extend(["lowest", "highest"])
        for name, value in (("lowest", 0), ("highest", highest)):
            graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))

    plant = in_file(cut)(world)
    a = str(run / "2_train/checkpoint.pt")
    kind = compare(a, plant, None)
    assert kind.passed and kind.regression is None and kind.first_layer is None
    hard = compare(a, plant, None, generated=1_500)
    assert not hard.passed and hard.generated is not None
    assert hard.generated.largest > 1e-3 and "a generated image" in hard.failures[0]
    with np.load(run / "regression.npz") as kept:
        assert len(kept["images"]) == hard.generated.kept and kept["images"].dtype == np.uint8
    # from now on it is found without a search
    later = compare(a, plant, None)
    assert not later.passed and later.regression is not None
    assert later.regression.max_abs == pytest.approx(hard.generated.largest, rel=1e-3)


def test_recorded_outputs_cannot_answer_generated_images(world: World) -> None:
    outputs = onnx_file.run(onnx_file.session(world.fp32), world.images)
    np.save(world.folder / "recorded.npy", outputs)
    with pytest.raises(DataError, match="recorded outputs cannot answer generated images"):
        world.compare(world.path("recorded.npy"), world.path("fp32.onnx"), generated=100)


# --- what a file is, not what it is called -----------------------------------------------------


def one_scale(world: World, seed: int = 0) -> str:
    """A float model whose pixels are normalised by one DequantizeLinear, as those of MNIST are."""
    options = OPTIONS.model_copy(update={"mean": (0.5,) * 3, "std": (0.25,) * 3})
    network = settled(build_network(options, CLASSES), seed)
    model = onnx_from_torch(network, CLASSES, EXPORT)
    assert "DequantizeLinear" in {node.op_type for node in model.graph.node}
    return world.save(f"scale{seed}.onnx", model)


def test_another_training_of_a_float_file_is_judged_as_float(world: World) -> None:
    a, b = one_scale(world), one_scale(world, seed=1)
    found = world.compare(a, b)
    assert [row.metric for row in found.tolerance] == ["max_abs", "mean_abs"]
    assert found.tolerance == TOLERANCES["fp32"] and not found.passed
    assert not any("not portable" in cause for cause in found.causes)
    bundle = world.bundle("scale.zip", fp32=onnx_file.load(Path(a)))
    assert world.compare(a, bundle).tolerance == TOLERANCES["fp32"]
    # nearer than INT8 may be, and yet further than float may be
    model = onnx_file.load(Path(a))
    constant(model.graph, "Gemm_0.bias", lambda v: v + np.float32([0.02, 0, 0.01, -0.02]))
    found = world.compare(a, world.save("near.onnx", model))
    assert not found.passed
    assert all(getattr(found.difference, row.metric) < row.limit for row in TOLERANCES["int8"])


@pytest.mark.parametrize(
    ("name", "precision"), [("fp32", "fp32"), ("fp16", "fp16"), ("int8", "int8")]
)
def test_a_bare_file_has_the_tolerances_of_what_is_in_it(
    world: World, name: str, precision: str
) -> None:
    found = world.compare(world.path("fp32.onnx"), world.path(f"{name}.onnx"))
    assert found.tolerance == TOLERANCES[precision]
    model = onnx_file.load(Path(world.path(f"{name}.onnx")))
    assert precision_of(model) == precision
    claimed = world.bundle(f"{name}.zip", int8=model)  # the manifest says INT8 of each
    assert open_form(claimed).precision == precision


def graph_of(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """Some nodes between float ``x`` and ``y``."""
    x, y = (
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")
    )
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(list(nodes), "some", [x], [y], stored)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])


@pytest.mark.parametrize(
    ("operator", "inputs", "precision"),
    [
        ("MatMul", ["x", "float"], "fp32"),
        ("MatMul", ["x", "half"], "fp16"),
        ("DequantizeLinear", ["x", "scale"], "fp32"),
        ("DequantizeLinear", ["bytes", "scale"], "int8"),
        ("QuantizeLinear", ["x", "scale"], "int8"),
        ("QLinearConv", ["x"], "int8"),
        ("QLinearMatMul", ["x"], "int8"),
        ("ConvInteger", ["x"], "int8"),
        ("MatMulInteger", ["x"], "int8"),
        ("MatMulIntegerToFloat", ["x"], "int8"),
        ("DynamicQuantizeLinear", ["x"], "int8"),
        ("QGemm", ["x"], "int8"),
        ("QuickGelu", ["x"], "fp32"),
    ],
)
def test_precision_is_read_off_the_operators(
    operator: str, inputs: list[str], precision: str
) -> None:
    known = {
        "float": np.eye(4, dtype=np.float32),
        "half": np.eye(4, dtype=np.float16),
        "bytes": np.eye(4, dtype=np.int8),
        "scale": np.float32(0.1),
    }
    used = {name: np.asarray(known[name]) for name in inputs if name in known}
    model = graph_of(onnx.helper.make_node(operator, inputs, ["y"]), **used)
    assert precision_of(model) == precision
    # inside a branch of an If it counts as much
    branch = onnx.helper.make_graph(list(model.graph.node), "then", [], list(model.graph.output))
    chosen = onnx.helper.make_node(
        "If", ["condition"], ["y"], then_branch=branch, else_branch=branch
    )
    assert precision_of(graph_of(chosen, **used)) == precision


def test_constants_of_nodes_count_as_well() -> None:
    def made(values: Any, *more: onnx.NodeProto) -> onnx.ModelProto:
        value = numpy_helper.from_array(values)
        first = onnx.helper.make_node("Constant", [], ["c"], value=value)
        return graph_of(first, *more, scale=np.array(0.1, np.float32))

    turned = onnx.helper.make_node("Transpose", ["c"], ["t"])
    weights = onnx.helper.make_node("DequantizeLinear", ["t", "scale"], ["y"])
    assert precision_of(made(np.eye(4, dtype=np.int8), turned, weights)) == "int8"
    product = onnx.helper.make_node("MatMul", ["x", "c"], ["y"])
    assert precision_of(made(np.eye(4, dtype=np.float16), product)) == "fp16"
    cast = onnx.helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT16)
    assert precision_of(graph_of(cast)) == "fp16"


# --- files that somebody else made --------------------------------------------------------------


def foreign(
    world: World,
    name: str,
    *,
    end: str = "",
    size: int = 8,
    batch: int | str = "n",
    int8: bool = False,
    seed: int = 0,
) -> str:
    """x, float32 [n, 3, size, size], to logits y [n, 4], or to what ``end`` makes of them."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(8, 3, 3, 3)).astype(np.float32)
    stored = {
        "w": weights,
        "b": random.normal(size=8).astype(np.float32),
        "m": random.normal(size=(8, 4)).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "weights" if int8 else "w", "b"], ["c"], name="first"),
        make("Relu", ["c"], ["r"], name="relu"),
        make("ReduceMean", ["r", "axes"], ["g"], name="mean", keepdims=0),
        make("MatMul", ["g", "m"], ["z" if end else "y"], name="last"),
    ]
    if int8:
        scale = np.abs(weights).max() / np.float32(127)
        stored["w"] = np.round(weights / scale).astype(np.int8)
        stored["scale"] = np.asarray(scale, np.float32)
        nodes.insert(0, make("DequantizeLinear", ["w", "scale"], ["weights"], name="dequantize"))
    if end:
        nodes.append(make(end, ["z"], ["y"], name="end"))
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "theirs",
        [onnx.helper.make_tensor_value_info("x", kind, [batch, 3, size, size])],
        [onnx.helper.make_tensor_value_info("y", kind, [batch, 4])],
        [numpy_helper.from_array(value, key) for key, value in stored.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    return world.save(name, onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))


def their_inputs(world: World, name: str = "theirs.npz", **more: Any) -> Path:
    inputs = np.random.default_rng(5).normal(size=(40, 3, 8, 8)).astype(np.float32)
    np.savez(world.folder / name, **{"inputs": inputs, **more})
    return world.folder / name


@pytest.mark.parametrize(
    ("end", "printed"), [("", ", softmax of the outputs"), ("Softmax", ""), ("Sigmoid", "")]
)
@pytest.mark.parametrize("batch", ["n", 4])
def test_two_foreign_files_are_compared_on_their_own_inputs(
    world: World, end: str, printed: str, batch: int | str
) -> None:
    a = foreign(world, "mine.onnx", end=end, batch=batch)
    data = their_inputs(world, labels=np.arange(40) % 4)
    same = compare(a, a, data)
    assert same.passed and same.difference.max_abs == 0 and same.difference.images == 40
    assert same.tolerance == TOLERANCES["fp32"]
    fits = "" if end != "Sigmoid" else ", labels left out: they do not fit 4 answers"
    assert same.images == f"inputs of {data}{printed}{fits}"
    assert (same.accuracy_percent is None) == bool(fits)
    b = foreign(world, "mine.int8.onnx", end=end, batch=batch, int8=True)
    near = compare(a, b, data)
    assert near.tolerance == TOLERANCES["int8"] and near.passed
    assert 0 < near.difference.max_abs < 0.1
    other = compare(a, foreign(world, "other.onnx", end=end, batch=batch, seed=1), data)
    assert other.tolerance == TOLERANCES["fp32"] and not other.passed
    if batch == "n":
        assert [row.a for row in other.layers] == ["first", "last", "probabilities"]
        assert "first: 216 of 216 weights differ" in report(other)


def test_what_a_softmax_hides_is_told(world: World) -> None:
    """Outputs that all lie higher by the same are the same logits, but other points."""
    a = foreign(world, "mine.onnx")
    model = onnx.load(a)
    model.graph.node[-1].output[0] = "z"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2.5), "up"))
    model.graph.node.append(onnx.helper.make_node("Add", ["z", "up"], ["y"], name="up"))
    found = compare(a, world.save("higher.onnx", model), their_inputs(world))
    assert found.passed and "which themselves differ by up to 2.5" in found.images


def test_infinity_at_every_call_is_one_answer(world: World) -> None:
    a = foreign(world, "mine.onnx")
    model = onnx.load(a)
    bias = np.array([np.inf] + [0] * 3, np.float32)
    model.graph.node[-1].output[0] = "z"
    model.graph.initializer.append(numpy_helper.from_array(bias, "high"))
    model.graph.node.append(onnx.helper.make_node("Add", ["z", "high"], ["y"], name="high"))
    found = compare(a, world.save("infinite.onnx", model), their_inputs(world))
    assert not found.passed and "NaN or infinity" in report(found)
    assert "from run to run" not in report(found)


def test_probabilities_of_a_foreign_file_are_what_onnxruntime_puts_out(world: World) -> None:
    a, b = foreign(world, "mine.onnx"), foreign(world, "other.onnx", seed=1)
    data = their_inputs(world)
    with np.load(data) as archive:
        inputs = archive["inputs"]
    outputs = [
        onnx_file.session(onnx_file.load(Path(f))).run(None, {"x": inputs})[0] for f in (a, b)
    ]
    first, second = (torch.from_numpy(values).softmax(1).numpy() for values in outputs)
    found = compare(a, b, data)
    assert found.difference.max_abs == pytest.approx(np.abs(first - second).max(), rel=1e-4)
    np.save(world.folder / "recorded.npy", outputs[0])  # of another tool
    assert compare(str(world.folder / "recorded.npy"), a, data).difference.max_abs < 1e-6
    np.save(world.folder / "inputs.npy", inputs)
    assert compare(a, b, world.folder / "inputs.npy").difference == found.difference


def test_weights_beside_a_foreign_file_are_read(world: World, tmp_path: Path) -> None:
    a = foreign(world, "mine.onnx")
    beside = tmp_path / "beside.onnx"
    onnx.save(onnx.load(a), beside, save_as_external_data=True, size_threshold=0, location="w.data")
    data = their_inputs(world)
    assert compare(a, str(beside), data).difference.max_abs == 0
    (tmp_path / "w.data").unlink()
    with pytest.raises(DataError, match=r"beside\.onnx: its weights lie in another file"):
        compare(a, str(beside), data)


def test_our_pixels_under_other_names_are_still_pixels(world: World) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(world.fp32)
    del model.metadata_props[:]
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = {"images": "x", "probabilities": "y"}.get(name, name)
    model.graph.input[0].name, model.graph.output[0].name = "x", "y"
    found = world.compare(world.path("checkpoint.pt"), world.save("renamed.onnx", model))
    assert found.passed and len(found.layers) == 5


@pytest.mark.parametrize(
    ("files", "arrays", "message"),
    [
        ("fp32.onnx mine.onnx", {}, r"takes uint8 pixels \[n, 16, 16, 3\], and .*mine.onnx takes "
         r"'x' float32 \[\?, 3, 8, 8\]; expected the same on both sides. Compare files"),
        ("mine.onnx checkpoint.pt", {}, "expected the same on both sides"),
        ("mine.onnx large.onnx", {}, r"takes 'x' float32 \[\?, 3, 9, 9\]; expected the same"),
        ("mine.onnx mine.onnx", None, r"no inputs to compare on. Give them with --data as the"),
        ("mine.onnx mine.onnx", {"inputs": np.zeros((4, 3, 8, 7), np.float32)},
         r"inputs are float32 \[4, 3, 8, 7\]; expected 'x' float32 \[\?, 3, 8, 8\]"),
        ("mine.onnx mine.onnx", {"inputs": np.zeros((4, 3, 8, 8))}, "inputs are float64"),
        ("mine.onnx mine.onnx", {"inputs": np.float32(0)}, r"inputs are float32 \[\]"),
        ("mine.onnx mine.onnx", {"inputs": np.zeros((0, 3, 8, 8), np.float32)}, "has 0 inputs"),
        ("four.onnx four.onnx", {"inputs": np.zeros((6, 3, 8, 8), np.float32)},
         "has 6 inputs; expected at least one, and a multiple of 4"),
        ("mine.onnx mine.onnx", {"images": np.zeros(3)}, 'has the arrays images. Expected the .*'
         r'\[\?, 3, 8, 8\]: a .npz with "inputs"'),
        ("mine.onnx ended.onnx", {}, "expected probabilities on both sides, or logits on both"),
        ("two.onnx mine.onnx", {}, r"two.onnx has 2 outputs \(y, c\); expected one input, and one"),
        ("raw.onnx raw.onnx", {}, r"puts out \[40, 8, 6, 6\] for 40 inputs; expected \[n, "
         r"labels\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_said_without_a_traceback(
    world: World, files: str, arrays: dict[str, Any] | None, message: str
) -> None:
    mine = foreign(world, "mine.onnx")
    foreign(world, "large.onnx", size=9)
    foreign(world, "four.onnx", batch=4)
    foreign(world, "ended.onnx", end="Softmax")
    two = onnx.load(mine)
    inner = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["n", 8, 6, 6])
    two.graph.output.append(inner)
    world.save("two.onnx", two)
    del two.graph.output[0]
    world.save("raw.onnx", two)
    data = []
    if arrays is not None:
        data = ["--data", str(their_inputs(world))]
        if arrays:
            np.savez(world.folder / "given.npz", **arrays)
            data = ["--data", world.path("given.npz")]
    done = CliRunner().invoke(cli, ["compare", *map(world.path, files.split()), *data])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    assert re.search(message, " ".join(done.output.split())), done.output


def test_models_of_other_sizes_and_failing_ones_are_said_plainly(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ModelSpec("pets", "multi-class", 12, 12, 3, LABELS)
    network = settled(build_network(OPTIONS, small))
    save_checkpoint(world.folder / "small.pt", network)
    with pytest.raises(DataError, match=r"small.pt takes uint8 pixels \[n, 12, 12, 3\]"):
        world.compare(world.path("fp32.onnx"), world.path("small.pt"))
    (world.folder / "failing.py").write_text("def function(images): return images @ images[:2]\n")
    monkeypatch.chdir(world.folder)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    with pytest.raises(PipelineError, match=r"failing:function cannot answer .* ValueError"):
        world.compare(world.path("fp32.onnx"), "failing:function")


def test_foreign_files_have_no_generated_images(world: World) -> None:
    mine = foreign(world, "mine.onnx")
    with pytest.raises(DataError, match=r"the files take 'x' float32 \[\?, 3, 8, 8\]. Leave"):
        compare(mine, mine, their_inputs(world), generated=10)
