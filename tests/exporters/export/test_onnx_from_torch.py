from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from exporters.errors import GraphError
from exporters.export.onnx_from_torch import onnx_from_torch
from exporters.export.proof import PROOF
from exporters.graph import onnx_file
from exporters.options import ExportOptions
from runtime import ModelSpec

SPEC = ModelSpec("tiny", "multi-class", 4, 4, 1, ("a", "b"))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_file_keeps_the_contract(digits: Any, faces: Any) -> None:
    for case in (digits, faces):
        onnx_file.check_model(case.model, case.spec)
        assert onnx_file.spec_of(case.model) == case.spec


def test_batch_norm_is_folded_and_means_become_pools(digits: Any, faces: Any) -> None:
    assert operators(digits.model).count("Conv") == 3
    assert operators(faces.model).count("Conv") == 2
    for case in (digits, faces):
        assert "BatchNormalization" not in operators(case.model)
        assert "ReduceMean" not in operators(case.model)
        assert operators(case.model).count("GlobalAveragePool") == 1
        # three colors are channels_last in memory, which leaves as_strided behind a pool
        assert not {"Dropout", "Gather", "Range"} & set(operators(case.model))


def test_answers_are_the_networks_at_every_batch_size(digits: Any, faces: Any) -> None:
    for case in (digits, faces):
        session = onnx_file.session(case.model)
        for count in (1, 3, 96):
            result = onnx_file.run(session, case.images[:count])
            with torch.no_grad():
                expected = case.network(torch.from_numpy(case.images[:count])).numpy()
            assert result.shape == (count, len(case.spec.labels))
            assert np.abs(result - expected).max() <= PROOF.limit


def test_names_are_stable_and_describe_their_operator(digits: Any) -> None:
    nodes = [node.name for node in digits.model.graph.node]
    assert nodes[-1] == "Softmax_0"
    assert {"Conv_0", "Conv_1", "Conv_2", "Gemm_0", "MaxPool_0"} <= set(nodes)
    tensors = {tensor.name for tensor in digits.model.graph.initializer}
    assert {"Conv_0.weight", "Conv_0.bias", "Gemm_0.weight", "Gemm_0.bias"} <= tensors


def test_same_weights_give_same_bytes_in_any_memory_format(digits: Any) -> None:
    network = digits.network.to(memory_format=torch.channels_last)
    again = onnx_from_torch(network, digits.spec, ExportOptions(batch_sizes=(1,)))
    assert onnx_file.to_bytes(again) == onnx_file.to_bytes(digits.model)


def test_nothing_of_the_building_machine_is_in_the_file(digits: Any) -> None:
    data = onnx_file.to_bytes(digits.model)
    for trace in (b".py", b"stack", b"/home", b"/root", b"conftest", b"pkg.torch"):
        assert trace not in data


class Tiny(nn.Module):
    """A correct network; each error case below breaks one thing."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor] = lambda x: x) -> None:
        super().__init__()
        self.linear, self.change = nn.Linear(16, 2), change

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.change(torch.softmax(self.linear(images.flatten(1).float() / 255), 1))


class Viewing(Tiny):
    """A network that views its input as rows of bytes, which only works on one memory layout."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.linear(images.view(-1, 48).float() / 255), 1)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 2)


def test_a_network_that_views_its_input_is_exported_too() -> None:
    spec = dataclasses.replace(SPEC, channels=3)
    model = onnx_from_torch(Viewing().eval(), spec, ExportOptions(batch_sizes=(1, 5)))
    onnx_file.check_model(model, spec)


class Drifting(Tiny):
    """A network that answers differently at every call, and so differs from the file."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.softmax(self.linear(images.flatten(1).float() / 255) * self.calls, 1)


def test_nothing_is_printed_or_left_behind(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    network = Tiny().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    onnx_from_torch(network, SPEC, ExportOptions())
    assert capfd.readouterr() == ("", "")
    assert not [w for w in recwarn if "onnx" in str(w.message)]
    assert logging.root.manager.disable == logging.NOTSET
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Tiny(), r"training mode.*Call network\.eval\(\)"),
        (Tiny(lambda p: p[:, :1]).eval(), r"outputs are \[.*'N', 1\].*expected .*'N', 2\]"),
        (Tiny(lambda p: p.double()).eval(), r"outputs are .*DOUBLE.*expected .*FLOAT"),
        (Tiny(lambda p: p.reshape(2, 2)).eval(), r"cannot be exported|'N'|batch of 1"),
        (Tiny(lambda p: torch.linalg.eigvals(p.T @ p).real[None] + p).eval(), "cannot be exported"),
        (Drifting().eval(), r"batch of 2 .*the ONNX file and the network"),
    ],
    ids=["training", "labels", "double", "fixed batch", "no such operator", "drifting"],
)
def test_errors(network: nn.Module, message: str) -> None:
    with pytest.raises(GraphError, match=f"(?s){message}"):
        onnx_from_torch(network, SPEC, ExportOptions())


def broken(model: onnx.ModelProto, change: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy)
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m, "ir_version", 10), "IR version is 10, expected 8"),
        (lambda m: setattr(m.opset_import[0], "version", 20), r"operator sets are \{'': 20\}"),
        (
            lambda m: m.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1)),
            "'com.microsoft': 1.*expected only ONNX 18",
        ),
        (lambda m: setattr(m.graph.input[0], "name", "x"), r"inputs are \[\('x'"),
        (
            lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 1),
            r"inputs are .*\[1, 12, 12, 1\].*expected .*\['N', 12, 12, 1\]",
        ),
        (lambda m: m.metadata_props.pop(), "metadata is {}, expected edgeproof.spec"),
        (lambda m: setattr(m.graph.node[0], "doc_string", "net.py:3"), "notes of the exporter"),
        (lambda m: m.graph.node[1].input.__setitem__(0, "nothing"), "checker refuses"),
    ],
    ids=["ir", "opset", "domain", "name", "batch", "stamp", "notes", "graph"],
)
def test_check_model_names_what_is_wrong(digits: Any, change: Any, message: str) -> None:
    with pytest.raises(GraphError, match=f"(?s){message}"):
        onnx_file.check_model(broken(digits.model, change), digits.spec)


def test_another_spec_is_noticed(digits: Any) -> None:
    other = dataclasses.replace(digits.spec, name="letters")
    with pytest.raises(GraphError, match="metadata is"):
        onnx_file.check_model(digits.model, other)


def test_summary_counts(digits: Any) -> None:
    summary = onnx_file.summary(digits.model)
    assert (summary.opset, summary.ir_version) == (18, 8)
    assert dict(summary.nodes)["Conv"] == 3
    # three 3x3 convolutions and a matrix, each with a bias
    assert summary.parameters == 8 * 10 + 12 * 73 + 16 * 109 + 4 * 17
    assert summary.size_bytes == len(onnx_file.to_bytes(digits.model))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"no nodes \(0 bytes\)"),
        (b"not a model", r"not an ONNX file \(11 bytes\)"),
        (b"PK\x03\x04", r"not an ONNX file \(4 bytes\)"),
    ],
)
def test_from_bytes_refuses(data: bytes, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        onnx_file.from_bytes(data)


def test_load_names_the_path(tmp_path: Any, digits: Any) -> None:
    with pytest.raises(GraphError, match=r"gone\.onnx cannot be read"):
        onnx_file.load(tmp_path / "gone.onnx")
    onnx_file.save(digits.model, tmp_path / "m.onnx")
    assert onnx_file.to_bytes(onnx_file.load(tmp_path / "m.onnx")) == onnx_file.to_bytes(
        digits.model
    )


class PreActivation(nn.Module):
    """A residual block as in ResNet v2: the first convolution's output is also added later."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(8), nn.Linear(8, 2)
        self.norm.running_mean = torch.linspace(-0.5, 0.5, 8)
        self.norm.running_var = torch.linspace(0.1, 2, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images.permute(0, 3, 1, 2).float() / 255)
        x = x + self.conv(torch.relu(self.norm(x)))
        return torch.softmax(self.last(x.mean((2, 3))), dim=1)


def test_a_batch_norm_that_cannot_be_folded_stays_and_int8_copes() -> None:
    from int8_variant import int8_from_fp32

    from exporters.options import Int8Options

    torch.manual_seed(0)
    network = PreActivation().eval()
    model = onnx_from_torch(network, SPEC, ExportOptions(batch_sizes=(1, 5)))  # proves it
    assert operators(model).count("BatchNormalization") == 1
    images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), dtype=np.uint8)
    int8 = int8_from_fp32(model, SPEC, Int8Options(), images, calibration_images=64)
    result = onnx_file.run(onnx_file.session(int8), images)
    expected = onnx_file.run(onnx_file.session(model), images)
    assert np.abs(result - expected).max() < 0.02


class FailsAlone(Tiny):
    """A network that loses the batch dimension of a single image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.linear(images.flatten(1).float() / 255).squeeze(), 1)


def test_a_network_that_fails_at_a_batch_is_named_with_it() -> None:
    with pytest.raises(GraphError, match=r"fails at a batch of 1: IndexError: Dimension"):
        onnx_from_torch(FailsAlone().eval(), SPEC, ExportOptions())


class Branching(Tiny):
    """A network that branches on the values of its input."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.flatten(1).float() / 255
        return torch.softmax(self.linear(x if x.mean() > 0.5 else 1 - x), 1)


def test_reasons_of_torch_are_one_plain_line() -> None:
    with pytest.raises(GraphError, match=r"branch .* values of a tensor.*torch\.where") as caught:
        onnx_from_torch(Branching().eval(), SPEC, ExportOptions())
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


# --- pixels are 8-bit numbers already ---------------------------------------------------------


class Normalized(nn.Module):
    """(pixel - mean) * scale, or something like it, before a convolution."""

    def __init__(self, normalize: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.normalize = normalize
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.normalize(images.permute(0, 3, 1, 2).float())
        return torch.softmax(self.conv(x).mean((2, 3)), dim=1)


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        (lambda x: (x - 33) * 0.0127, True),
        (lambda x: x * 0.0039, True),  # mean 0
        (lambda x: (x - 33.3) * 0.0127, False),  # no pixel has this value
        (lambda x: (x + 5) * 0.0127, False),  # nor this one
        (lambda x: (x - 33) * -0.01, False),  # a scale is positive
        (lambda x: (x - 33) * 0.01 + (x - 33), False),  # used twice
        (lambda x: (x - 33).abs() * 0.01, False),  # something in between
    ],
)
def test_normalized_pixels_are_dequantized(
    normalize: Callable[[torch.Tensor], torch.Tensor], expected: bool
) -> None:
    torch.manual_seed(0)
    network = Normalized(normalize).eval()
    model = onnx_from_torch(network, SPEC, ExportOptions())  # proves equal answers
    assert ("DequantizeLinear" in operators(model)) == expected
    assert ("Cast" in operators(model)) != expected


def test_dequantizing_gives_the_bits_of_the_network() -> None:
    network = Normalized(lambda x: (x - 33) * np.float32(1 / 78.6)).eval()
    model = onnx_from_torch(network, SPEC, ExportOptions())
    (node,) = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
    seen = onnx_file.with_inner_outputs(model, [node.output[0]])
    images = np.arange(256, dtype=np.uint8).reshape(16, 4, 4, 1)
    pixels = onnx_file.session(seen).run([node.output[0]], {"images": images})[0]
    expected = network.normalize(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    assert np.array_equal(pixels, expected.numpy())


def test_int8_takes_the_pixels_as_they_are() -> None:
    """No QuantizeLinear before the first layer: nothing is rounded there."""
    from int8_variant import int8_from_fp32

    from exporters.graph.walk import Graph
    from exporters.options import Int8Options

    torch.manual_seed(0)
    network = Normalized(lambda x: (x - 33) * 0.0127).eval()
    model = onnx_from_torch(network, SPEC, ExportOptions())
    images = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 1), dtype=np.uint8)
    for activations in ("uint8", "int8"):
        options = Int8Options(activations=activations)  # type: ignore[arg-type]
        graph = Graph(int8_from_fp32(model, SPEC, options, images, calibration_images=16))
        conv = graph.node("Conv_0")
        assert conv is not None
        pixels = graph.producer(conv.input[0])
        assert pixels is not None and pixels.op_type == "DequantizeLinear"
        assert graph.producer(pixels.input[0]).op_type == "Transpose"  # type: ignore[union-attr]
