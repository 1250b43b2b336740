"""foreign_file.py, foreign_model.py, model_inputs.py, agreement.py: files of every making."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign_networks as networks
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from exporters.errors import GraphError
from exporters.evaluate.tasks import Bounds, guess
from exporters.foreign import equality, float_parts
from exporters.foreign.agreement import Reference
from exporters.foreign.foreign_model import ForeignModel, prepare
from exporters.foreign.model_inputs import InputSpec, ModelInputs, PixelForm, input_of
from exporters.graph import onnx_file
from exporters.graph.quantized import quantized_weights
from exporters.graph.walk import Graph
from exporters.options import GateOptions, Int8Options
from exporters.quantize.activation_ranges import ActivationStatistics
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


def statistics(foreign: ForeignModel) -> ActivationStatistics:
    inputs = ModelInputs(foreign.input, networks.images(foreign.input))
    return ActivationStatistics(foreign.model, inputs.reader())


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

    kept = float_parts.kept_in_float(foreign, statistics(foreign))
    options = Int8Options(exclude_nodes=tuple(kept))
    result = foreign.finish(quantize(foreign.model, options, statistics(foreign)), options.id)
    verify_int8(foreign.model, result, options)

    original = onnx_file.from_bytes(foreign.original)
    constants = {tensor.name for tensor in original.graph.initializer}
    wanted = [value for value in original.graph.input if value.name not in constants]
    assert list(result.graph.input) == wanted
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
    kept = float_parts.kept_in_float(foreign, statistics(foreign))
    options = Int8Options(exclude_nodes=tuple(kept))
    result = foreign.finish(quantize(foreign.model, options, statistics(foreign)), options.id)
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
    result = foreign.finish(quantize(foreign.model, Int8Options(), statistics(foreign)), "int8")
    verdict = portability(result)
    assert not verdict.portable and verdict.float_nodes == ("up",)


@pytest.mark.parametrize("case", list(LEFT))
def test_what_stays_float_is_listed_with_its_reason(case: str, tmp_path: Path) -> None:
    make, what, reason = LEFT[case]
    onnx.save(make(), tmp_path / "net.onnx")
    foreign = prepare(tmp_path / "net.onnx")
    kept = float_parts.kept_in_float(foreign, statistics(foreign))
    rows = float_parts.left_in_float(foreign, kept)
    assert any(what in row.what and reason in row.reason for row in rows), rows


def test_nothing_is_listed_where_everything_is_quantized(tmp_path: Path) -> None:
    onnx.save(networks.network(softmax=True, nhwc=True, pixels=True), tmp_path / "net.onnx")
    foreign = prepare(tmp_path / "net.onnx")
    assert float_parts.kept_in_float(foreign, statistics(foreign)) == {}
    assert float_parts.left_in_float(foreign, {}) == ()


# --- files that are refused -----------------------------------------------------------------


def converted(kind: type[np.floating]) -> onnx.ModelProto:
    result = networks.network()
    for part in result.graph.initializer:
        part.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(part).astype(kind), part.name))
    for value in (*result.graph.input, *result.graph.output):
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return result


def quantized() -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    return networks.model(nodes, [networks.tensor("s", 0.1)], shape=["N", 5])


def without_weights() -> onnx.ModelProto:
    return networks.model([helper.make_node("Relu", ["x"], ["y"])], [], shape=["N", 5])


def two_inputs() -> onnx.ModelProto:
    result = networks.network()
    result.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    return result


def integers() -> onnx.ModelProto:
    result = networks.network(pixels=True)
    result.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    return result


def broken() -> onnx.ModelProto:
    result = networks.network()
    result.graph.node[0].input[0] = "nowhere"
    return result


def without_inputs() -> onnx.ModelProto:
    result = networks.network()
    for node in result.graph.node:
        if node.op_type in onnx_file.WEIGHTED:
            del node.input[1:]
    result.graph.node.add(op_type="Constant")
    result.graph.node.add(op_type="DequantizeLinear")
    return result


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "fp16": (lambda: converted(np.float16), r"float16 weights \('w1' and \d more\); .* float32"),
    "fp64": (lambda: converted(np.float64), r"double weights .* again in float32\.$"),
    "no room": (lambda: networks.network(batch=0), r"input 'x' has a size of 0.* a name"),
    "inputs left out": (without_inputs, r"does not run as it is"),
    "quantized": (quantized, r"quantized already \(it has QuantizeLinear\); .* made from"),
    "no weights": (without_weights, r"no Conv, .*\(its operators: 1 Relu\); .* nothing to quant"),
    "two inputs": (two_inputs, r"has 2 inputs \(x, z\); expected one. Make constants"),
    "int64": (integers, r"input 'x' is int64; expected float32 or uint8"),
    "broken": (broken, r"does not run as it is: onnxruntime .* refuses"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_model_that_cannot_be_quantized_is_refused(case: str, tmp_path: Path) -> None:
    make, message = REFUSED[case]
    path = tmp_path / "net.onnx"
    path.write_bytes(make().SerializeToString())
    with pytest.raises(GraphError, match=message):
        prepare(path)


BYTES = {
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "ORT format": (b"\x00\x00\x00\x00ORTM" + b"\x00" * 40, "onnxruntime's own format"),
    "no model": (b"<html>not found</html>", "is not an ONNX file"),
    "empty": (b"", "has no nodes"),
}


@pytest.mark.parametrize("case", list(BYTES))
def test_a_file_that_is_no_model_is_refused(case: str, tmp_path: Path) -> None:
    data, message = BYTES[case]
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(GraphError, match=message):
        prepare(tmp_path / "net.onnx")
    with pytest.raises(GraphError, match=r"missing.onnx cannot be read: No such file"):
        prepare(tmp_path / "missing.onnx")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="not run: needs named pipes")
def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.onnx")
    for path in (tmp_path / "net.onnx", tmp_path):
        with pytest.raises(GraphError, match=r"it is a .*; expected a file"):
            prepare(path)


def external(folder: Path, location: str) -> Path:
    folder.mkdir()
    path = folder / "net.onnx"
    onnx.save(
        networks.network(), path, save_as_external_data=True, location="data", size_threshold=0
    )
    found = onnx.load(path, load_external_data=False)
    for part in found.graph.initializer:
        for entry in part.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(found.SerializeToString())
    return path


NUMBERS = {
    ("length", "many"): "length of tensor 'w1' in 'data' is 'many'; expected a number of bytes",
    ("length", "-8"): "length of tensor 'w1' in 'data' is '-8'",
    ("length", "9" * 40): "length of tensor 'w1' in 'data' is '9999",
    ("length", "999999999"): r"'data' has \d+ bytes, and they would end at 999999999",
    ("offset", "0x10"): "offset of tensor 'w1' in 'data' is '0x10'",
    ("offset", "-1"): "offset of tensor 'w1' in 'data' is '-1'",
    ("offset", "888888888"): r"'data' has \d+ bytes, and they would end at 888889752",
}


@pytest.mark.parametrize(("key", "value"), list(NUMBERS))
def test_external_data_that_is_not_where_it_is_said_to_be(
    key: str, value: str, tmp_path: Path
) -> None:
    path = external(tmp_path / "model", "data")
    found = onnx.load(path, load_external_data=False)
    tensor = next(part for part in found.graph.initializer if part.name == "w1")
    entries = {entry.key: entry.value for entry in tensor.external_data} | {key: value}
    if key == "offset":
        del entries["length"]
    del tensor.external_data[:]
    tensor.external_data.extend(
        onnx.StringStringEntryProto(key=k, value=v) for k, v in entries.items()
    )
    path.write_bytes(found.SerializeToString())
    with pytest.raises(GraphError, match=NUMBERS[key, value]):
        prepare(path)


@pytest.mark.parametrize("left_out", [None, "0"])
def test_external_data_may_leave_its_length_out(left_out: str | None, tmp_path: Path) -> None:
    path = external(tmp_path / "model", "data")
    found = onnx.load(path, load_external_data=False)
    for tensor in found.graph.initializer:
        for entry in [e for e in tensor.external_data if e.key == "length"]:
            tensor.external_data.remove(entry)
        if left_out is not None:
            tensor.external_data.add(key="length", value=left_out)
    path.write_bytes(found.SerializeToString())
    given = {t.name: t for t in networks.network().graph.initializer}
    for tensor in onnx.load_from_string(prepare(path).original).graph.initializer:
        wanted = numpy_helper.to_array(given[tensor.name])
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), wanted)


def test_sizes_below_zero_are_refused(tmp_path: Path) -> None:
    model = networks.network()
    model.graph.initializer[0].dims[0] = -8
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match=r"has the sizes \[-8, 3, 3, 3\]"):
        prepare(tmp_path / "net.onnx")


def test_names_that_are_not_utf_8_are_written_out(tmp_path: Path) -> None:
    data = networks.network().SerializeToString().replace(b"layer/c2", b"layer/\xe9\xff")
    (tmp_path / "net.onnx").write_bytes(data)
    foreign = prepare(tmp_path / "net.onnx")
    assert "layer/\\xe9\\xff" in {node.name for node in foreign.model.graph.node}
    result = foreign.finish(quantize(foreign.model, Int8Options(), statistics(foreign)), "int8")
    assert len(quantized_weights(Graph(result))) == 3


LOCATIONS = {
    "../data": "has its values in '../data'; expected a file in the model's own folder",
    "/etc/hostname": "has its values in '/etc/hostname'",
    "a/../../data": "has its values in",
    "": "has its values in ''",
    "gone": "data file 'gone' is missing in .*; both belong together",
    "link": "data file 'link' is a link out of the model's folder",
    "short": "cannot be read: .* complete",
}


@pytest.mark.parametrize("location", list(LOCATIONS))
def test_external_data_elsewhere_is_refused(location: str, tmp_path: Path) -> None:
    path = external(tmp_path / "model", location)
    (tmp_path / "data").write_bytes((path.parent / "data").read_bytes())
    (path.parent / "link").symlink_to(tmp_path / "data")
    (path.parent / "short").write_bytes((path.parent / "data").read_bytes()[:-400])
    with pytest.raises(GraphError, match=LOCATIONS[location]):
        prepare(path)


def test_a_preparation_that_changes_answers_is_noticed(tmp_path: Path) -> None:
    onnx.save(networks.network(), tmp_path / "net.onnx")
    foreign = prepare(tmp_path / "net.onnx")
    bias = next(t for t in foreign.model.graph.initializer if t.name == "b3")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.1, "b3"))
    with pytest.raises(GraphError, match=r"changed while it was prepared .*'y' differs by 0\.\d+"):
        equality.difference(foreign, networks.images(foreign.input, 4))


# --- inputs and answers ---------------------------------------------------------------------


def test_the_input_tells_its_layout_and_sizes() -> None:
    planes = input_of(networks.network(batch=1).graph)
    assert planes == InputSpec("x", "float32", (1, 3, 16, 16))
    assert planes.layouts() == ("nchw",) and planes.image_shape("nchw") == (16, 16, 3)
    rows = input_of(networks.network(nhwc=True, pixels=True, side="side").graph)
    assert rows.layouts() == ("nhwc",) and rows.image_shape("nhwc") == (None, None, 3)
    assert rows.text() == "'x' uint8 [?, ?, ?, 3]"
    assert InputSpec("x", "float32", (1, 3, 3, 3)).layouts() == ("nchw", "nhwc")
    assert InputSpec("x", "float32", (1, 10)).layouts() == ()


def test_pixels_take_the_form_that_a_model_takes() -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    form = PixelForm("nchw", "float32", (0.5, 0.25, 0.0), (0.5, 1.0, 2.0), "bgr")
    found = form.apply(pixels)
    assert found.shape == (2, 3, 4, 5) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], (pixels[..., 2] / 255 - 0.5) / 0.5, rtol=1e-5)
    np.testing.assert_allclose(found[:, 2], pixels[..., 0] / 255 / 2, rtol=1e-5)
    assert (PixelForm("nhwc", "uint8").apply(pixels) == pixels).all()


def test_a_fixed_batch_is_never_cut(tmp_path: Path) -> None:
    spec = InputSpec("x", "float32", (4, 3, 16, 16))
    inputs = ModelInputs(spec, networks.images(spec, 12))
    lengths = [len(feed["x"]) for feed in inputs.reader().batches()]
    assert lengths == [4, 4, 4]
    assert len(inputs.reader().first(1).indices) == 4


RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4))
POINTS = RNG.normal(size=(6, 4)) + np.array([8, 12, 31, 22])
UNIT = LOGITS / np.linalg.norm(LOGITS, axis=1, keepdims=True)
YES_OR_NO = np.array([[0.97, 0.02, 0.9], [0.01, 0.99, 0.4], [0.03, 0.95, 0.02]] * 2)
# outputs, the data's own classes, what they are guessed to be, a word of the reason
GUESSES: dict[str, tuple[list[Any], int | None, str, str]] = {
    "probabilities": ([np.eye(4)[[0, 1, 2, 3, 1, 2]]], None, "multi-class", "add up to 1"),
    "logits": ([LOGITS], None, "multi-class", "largest"),
    "logits in planes": ([LOGITS[:, :, None, None]], None, "multi-class", "largest"),
    "a class switched off": ([LOGITS + np.array([0, 0, -np.inf, 0])], None, "multi-class", "-inf"),
    "yes and no": ([YES_OR_NO], None, "multi-label", "near its ends"),
    "as many classes": ([POINTS], 4, "multi-class", "4 classes, too"),
    "other classes": ([LOGITS], 2, "values", "2 classes, and each row 4"),
    "points": ([POINTS], None, "values", "same number is the largest"),
    "points as shares": ([POINTS / 40], None, "values", "not like a yes or no"),
    "unit rows": ([UNIT], None, "values", "length 1"),
    "more rows": ([RNG.normal(size=(24, 4))], None, "values", "6 inputs get 24 rows"),
    "one row": ([RNG.normal(size=(1, 4))], None, "values", "6 inputs get 1 rows"),
    "not numbers": ([np.full((6, 4), np.nan)], None, "values", "not numbers"),
    "a number": ([np.full((6, 1), -3.0)], None, "values", "one number"),
    "images": ([np.zeros((6, 3, 8, 8))], None, "values", "classes are"),
    "none": ([np.zeros((6, 0))], None, "values", "classes are"),
    "several": ([np.zeros((6, 4)), np.zeros((6, 4))], None, "values", "2 outputs"),
}


@pytest.mark.parametrize("case", list(GUESSES))
def test_what_outputs_are_is_guessed_with_a_reason(case: str) -> None:
    values, classes, task, reason = GUESSES[case]
    found = guess(values, 6, classes)
    assert found.task == task and reason in found.reason


def judged(model: onnx.ModelProto, task: Any, labels: Any = None) -> Reference:
    spec = input_of(model.graph)
    return Reference.of_fp32(
        onnx_file.to_bytes(model),
        [value.name for value in model.graph.output],
        ModelInputs(spec, networks.images(spec, 64, seed=3)),
        Bounds(GateOptions(margin_points=1.0), 20.0),
        task=task,
        labels=labels,
    )


def noisy(scale: float) -> onnx.ModelProto:
    result = networks.network()
    part = next(t for t in result.graph.initializer if t.name == "w3")
    noise = np.random.default_rng(0).normal(size=part.dims) * scale
    values = (numpy_helper.to_array(part) + noise).astype(np.float32)
    part.CopyFrom(numpy_helper.from_array(values, "w3"))
    return result


@pytest.mark.parametrize("task", ["multi-class", "multi-label", "values"])
def test_the_same_model_passes_and_a_damaged_one_does_not(task: Any) -> None:
    reference = judged(networks.network(), task)
    same = reference.assess(onnx_file.to_bytes(networks.network()), "int8-x", False)
    assert same.passed and same.lost_points < 1e-9 and same.sqnr_db == 200
    damaged = reference.assess(onnx_file.to_bytes(noisy(2.0)), "int8-x", False)
    assert not damaged.passed and damaged.failures and damaged.lost_points > 1
    assert reference.first(8).assess_quickly(onnx_file.to_bytes(noisy(2.0)))[1] < 20


def test_outputs_beside_the_answers_are_judged_too() -> None:
    def model(share: float) -> bytes:
        made = networks.network()
        made.graph.initializer.append(networks.tensor("share", share))
        made.graph.node.append(helper.make_node("Mul", ["f", "share"], ["features"]))
        made.graph.output.append(
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", None])
        )
        return onnx_file.to_bytes(made)

    reference = judged(onnx_file.from_bytes(model(1.0)), "multi-class")
    assert reference.assess(model(1.001), "int8-x", False).passed
    found = reference.assess(model(3.0), "int8-x", False)
    assert not found.passed and found.lost_points == 0
    assert "output 'features'" in found.failures[0] and "20 dB" in found.failures[0]


def test_labels_judge_where_there_are_any() -> None:
    free = judged(networks.network(), "multi-class")
    answers = free.values[0].argmax(axis=1)
    assert judged(networks.network(), "multi-class", answers).accuracy() == 1.0
    wrong = judged(networks.network(), "multi-class", (answers + 1) % 5)
    assert wrong.accuracy() == 0.0
    assert wrong.assess(onnx_file.to_bytes(noisy(2.0)), "int8-x", False).lost_points < 0


def test_a_portable_file_stays_portable_in_its_own_interface(tmp_path: Path) -> None:
    onnx.save(networks.network(17), tmp_path / "net.onnx")
    foreign = prepare(tmp_path / "net.onnx")
    result = foreign.finish(quantize(foreign.model, Int8Options(), statistics(foreign)), "int8")
    assert portability(result).portable
