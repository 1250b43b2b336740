"""foreign_file.py, foreign_model.py, model_inputs.py, agreement.py: files of every making."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import foreign_networks as networks
import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from exporters.foreign import equality, float_parts
from exporters.foreign.foreign_model import ForeignModel, prepare
from exporters.graph import onnx_file
from exporters.graph.quantized import quantized_weights
from exporters.graph.walk import Graph
from exporters.options import Int8Options
from exporters.quantize.int8_from_fp32 import quantize
from exporters.quantize.portability import portability
from exporters.quantize.verify_int8 import verify_int8
from exporters.search.sensitivity import layer_noise


class Torch(torch.nn.Module):
    """What PyTorch writes: residual sum, hardswish, fixed batch and all."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.block = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.hardswish(self.stem(x))
        return self.head((y + self.block(y)).mean((2, 3)))


def from_torch() -> onnx.ModelProto:
    program = torch.onnx.export(
        Torch().eval(), (torch.zeros(1, 3, 16, 16),), input_names=["x"], dynamo=True, verbose=False
    )
    assert program is not None
    return program.model_proto


OK: dict[str, Callable[[], onnx.ModelProto]] = {
    "opset 7, weights listed as inputs": lambda: networks.network(
        7, ir=3, weights_as_inputs=True, batch=1
    ),
    "opset 9": lambda: networks.network(9, ir=4),
    "opset 11, constants": lambda: networks.network(11, ir=6, constants=True),
    "opset 13": lambda: networks.network(13),
    "opset 17, unnamed nodes": lambda: networks.network(17, named=False),
    "opset 21": lambda: networks.network(21, ir=10),
    "NHWC": lambda: networks.network(nhwc=True),
    "uint8 NHWC": lambda: networks.network(pixels=True, nhwc=True),
    "uint8 NCHW": lambda: networks.network(pixels=True, batch=4),
    "free sizes": lambda: networks.network(side="side"),
    "constant weights": lambda: networks.network(constants=True, named=False),
    "PRelu": lambda: networks.network(prelu=True, opset=9, ir=4),
    "softmax": lambda: networks.network(softmax=True),
    "If": networks.branching,
    "from torch": from_torch,
}


@pytest.fixture(params=list(OK))
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> ForeignModel:
    path = tmp_path / "net.onnx"
    onnx.save(OK[request.param](), path)
    return prepare(path)


def test_any_float_model_is_prepared_quantized_and_replaces_the_original(
    foreign: ForeignModel,
) -> None:
    images = networks.images(foreign.input, 8, seed=5)
    assert onnx_file.opsets(foreign.model)[""] >= 13
    assert set(onnx_file.opsets(foreign.model)) == {""}
    names = [node.name for node in foreign.model.graph.node]
    assert all(names) and len(set(names)) == len(names)
    operators = {node.op_type for node in foreign.model.graph.node}
    assert not operators & {"BatchNormalization", "Dropout", "Identity", "Constant"}
    assert equality.difference(foreign, images) <= 1e-5

    kept = float_parts.kept_in_float(foreign, networks.statistics(foreign))
    options = Int8Options(exclude_nodes=tuple(kept))
    result = foreign.finish(
        quantize(foreign.model, options, networks.statistics(foreign)), options.id
    )
    verify_int8(foreign.model, result, options)

    original = onnx_file.from_bytes(foreign.original)
    constants = {tensor.name for tensor in original.graph.initializer}
    expected = [value for value in original.graph.input if value.name not in constants]
    assert list(result.graph.input) == expected
    assert list(result.graph.output) == list(original.graph.output)
    assert list(result.metadata_props) == list(original.metadata_props)
    feed = {foreign.input.name: images}
    before, after = (
        onnx_file.run_feed(onnx_file.session(model), foreign.outputs, feed)[0]
        for model in (foreign.original, result)
    )
    noise = np.square(before - after).sum() / np.square(before).sum()
    assert noise < 0.03  # of noise images, whose outputs hardly differ: the constant part, too


def test_every_layer_of_a_finished_model_can_be_looked_into(foreign: ForeignModel) -> None:
    kept = float_parts.kept_in_float(foreign, networks.statistics(foreign))
    options = Int8Options(exclude_nodes=tuple(kept))
    result = foreign.finish(
        quantize(foreign.model, options, networks.statistics(foreign)), options.id
    )
    noise = layer_noise(foreign.model, result, {"x": networks.images(foreign.input, 8)})
    assert {row.node for row in noise} == {
        node.name for node in foreign.model.graph.node if node.op_type in onnx_file.WEIGHTED
    }
    assert len(quantized_weights(Graph(result))) == len(noise) - len(
        set(kept) & {row.node for row in noise}
    )


def test_external_data_of_the_same_folder_goes_into_the_single_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(networks.network(), path, save_as_external_data=True, size_threshold=0)
    assert (path.stat().st_size) < 8000
    foreign = prepare(path)
    for file in tmp_path.iterdir():
        file.unlink()
    result = foreign.finish(foreign.model, "fp32")
    feed = {"x": networks.images(foreign.input, 2)}
    assert onnx_file.session(result).run(None, feed)[0].shape == (2, 5)


LEFT: dict[str, tuple[Callable[[], onnx.ModelProto], str, str]] = {
    "PRelu": (lambda: networks.network(prelu=True), "PRelu", "no 8-bit kernel"),
    "a layer in a branch": (
        networks.branching,
        "1 Concat, 1 Conv inside If choice",
        "does not enter subgraphs",
    ),
    "what a branch reads": (networks.branching, "first/relu", "a subgraph"),
    "computed weights": (
        lambda: networks.model(
            [
                helper.make_node("Conv", ["x", "w1"], ["c"], name="first"),
                helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
                helper.make_node("Flatten", ["p"], ["f"], name="flat"),
                helper.make_node("Transpose", ["f"], ["t"], name="turn", perm=[1, 0]),
                helper.make_node("MatMul", ["f", "t"], ["g"], name="gram"),
                helper.make_node("ReduceMean", ["g"], ["m"], axes=[1], name="mean"),
                helper.make_node("Mul", ["f", "m"], ["n"], name="scale"),
                helper.make_node("Gemm", ["n", "w5"], ["y"], name="last"),
            ],
            [networks.normal("w1", 8, 3, 3, 3), networks.normal("w5", 8, 5)],
            shape=["N", 3, 16, 16],
        ),
        "MatMul gram",
        "weights are computed",
    ),
}


def upsampling() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], name="first", pads=[1] * 4),
        helper.make_node("ConvTranspose", ["c", "w4"], ["t"], name="up", strides=[2, 2]),
        helper.make_node("Conv", ["t", "w6"], ["y"], name="last", pads=[1] * 4),
    ]
    parts = [("w1", 8, 3, 3, 3), ("w4", 8, 4, 2, 2), ("w6", 3, 4, 3, 3)]
    weights = [networks.normal(*part) for part in parts]  # type: ignore[arg-type]
    return networks.model(nodes, weights, shape=["N", 3, 16, 16], outputs={"y": ["N", 3, 32, 32]})


LEFT["no kernel"] = (upsampling, "ConvTranspose up", "no kernel that multiplies by them")


def test_a_layer_that_computes_in_float_makes_a_file_unportable(tmp_path: Path) -> None:
    onnx.save(upsampling(), tmp_path / "net.onnx")
    foreign = prepare(tmp_path / "net.onnx")
    result = foreign.finish(
        quantize(foreign.model, Int8Options(), networks.statistics(foreign)), "int8"
    )
    verdict = portability(result)
    assert not verdict.portable and verdict.float_nodes == ("up",)


@pytest.mark.parametrize("case", list(LEFT))
def test_what_stays_float_is_listed_with_its_reason(case: str, tmp_path: Path) -> None:
    make, what, reason = LEFT[case]
    onnx.save(make(), tmp_path / "net.onnx")
    foreign = prepare(tmp_path / "net.onnx")
    kept = float_parts.kept_in_float(foreign, networks.statistics(foreign))
    rows = float_parts.left_in_float(foreign, kept)
    assert any(what in row.what and reason in row.reason for row in rows), rows


def test_nothing_is_listed_where_everything_is_quantized(tmp_path: Path) -> None:
    onnx.save(networks.network(softmax=True, nhwc=True, pixels=True), tmp_path / "net.onnx")
    foreign = prepare(tmp_path / "net.onnx")
    assert float_parts.kept_in_float(foreign, networks.statistics(foreign)) == {}
    assert float_parts.left_in_float(foreign, {}) == ()


def test_a_portable_file_stays_portable_in_its_own_interface(tmp_path: Path) -> None:
    onnx.save(networks.network(17), tmp_path / "net.onnx")
    foreign = prepare(tmp_path / "net.onnx")
    result = foreign.finish(
        quantize(foreign.model, Int8Options(), networks.statistics(foreign)), "int8"
    )
    assert portability(result).portable
