"""Faults planted into a small model, and the words that name each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from pets import CLASSES, EXPORT, OPTIONS, World
from torch import nn

from exporters.export.onnx_from_torch import onnx_from_torch
from pipeline.compare.result import Comparison
from pipeline.learning.networks.build import build_network
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.training.checkpoint import load_checkpoint


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
    ("wrong mean", changed(mean=(0.1, 0.4, 0.3)), r"input of conv2d is normalized differently"),
    ("wrong scale", changed(std=(0.2, 0.25, 0.1)), r"input of conv2d is normalized differently"),
    ("swapped channels", given(lambda x: x.flip(3)), r"color channels in the reverse order"),
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
    ("rolled channels", given(rolled), r"color channels in the order \[1, 2, 0\]"),
    ("upside down", given(lambda x: x.flip(1)), r"turned upside down"),
    ("turned", given(lambda x: x.transpose(1, 2).flip(1)), r"turned by 90 degrees to the left"),
    ("a crop two columns off", given(moved), r"shifted by 0 rows and -2 columns"),
    (
        "divided by 255 twice",
        given(lambda x: x.to(torch.float32) / 255),
        r"normalized differently.*as if its pixels were divided by 255 once more",
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
    "normalized differently": ("wrong mean", "wrong scale", "inverted", "divided by 255 twice"),
    "batch norm": ("wrong epsilon", "batch norm not folded"),
    "color channels": ("swapped channels", "rolled channels"),
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


def report(result: Comparison) -> str:
    layer = f"first layer {result.first_layer}; suspects {result.suspects}; "
    return layer + "; ".join((*result.causes, *result.failures, *result.remarks))
