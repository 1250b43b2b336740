"""`pipeline compare` finds what was broken on purpose, names the layer or the cause, and raises no
alarm where nothing is wrong. The models are small, with random weights, and made in seconds."""

from __future__ import annotations

import re
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

from exporters import onnx_file
from exporters.int8_from_fp32 import int8_from_fp32
from exporters.onnx_from_torch import onnx_from_torch
from exporters.options import Int8Options
from exporters.preprocess_graph import resize_graph
from pipeline.cli import cli
from pipeline.compare.measure import compare
from pipeline.compare.result import Comparison
from pipeline.datasets.arrays import DatasetInfo, Split, write_info, write_split
from pipeline.errors import DataError, PipelineError
from pipeline.learning.checkpoint import load_checkpoint, save_checkpoint
from pipeline.learning.networks import PixelNetwork, build_network
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
]


def report(found: Comparison) -> str:
    layer = f"first layer {found.first_layer}; suspects {found.suspects}; "
    return layer + "; ".join(found.causes)


@pytest.mark.parametrize(("plant", "said"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_planted_fault_is_named(world: World, plant: Callable[[World], str], said: str) -> None:
    found = world.compare(world.path("checkpoint.pt"), plant(world))
    assert re.search(said, report(found)), report(found)


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
        "from pipeline.learning.checkpoint import load_checkpoint\n"
        "HERE = Path(__file__).parent\n"
        "network = load_checkpoint(HERE / 'checkpoint.pt')\n"
        "def factory(): return network\n"
        "def function(images):\n"
        "    from pipeline.learning.evaluate import probabilities\n"
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
    import shutil

    from exporters.trace import trace_onnx

    run = tmp_path / "run"
    (run / "2_train").mkdir(parents=True)
    shutil.copy(world.path("checkpoint.pt"), run / "2_train/checkpoint.pt")
    info = DatasetInfo("pets", "multi-class", LABELS, {}, "", True, True, "CC0-1.0")
    random = np.random.default_rng(0)
    split = Split(world.images, random.integers(0, 4, 120), np.arange(120).astype(str))
    (run / "1_data").mkdir()
    for name in ("train", "val", "test"):
        write_split(run / "1_data", name, split)
    write_info(run / "1_data", replace(info, counts=dict.fromkeys(("train", "val", "test"), 120)))
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
