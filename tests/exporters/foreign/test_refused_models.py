"""Files that are refused, or whose external data or names are unusual."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import foreign_networks as networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.errors import GraphError
from exporters.foreign import equality
from exporters.foreign.foreign_model import prepare
from exporters.graph import onnx_file
from exporters.graph.quantized import quantized_weights
from exporters.graph.walk import Graph
from exporters.options import Int8Options
from exporters.quantize.int8_from_fp32 import quantize

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
def test_a_file_that_is_not_a_model_is_refused(case: str, tmp_path: Path) -> None:
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
    result = onnx.load(path, load_external_data=False)
    for part in result.graph.initializer:
        for entry in part.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(result.SerializeToString())
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
def test_external_data_outside_its_file_is_refused(key: str, value: str, tmp_path: Path) -> None:
    path = external(tmp_path / "model", "data")
    result = onnx.load(path, load_external_data=False)
    tensor = next(part for part in result.graph.initializer if part.name == "w1")
    entries = {entry.key: entry.value for entry in tensor.external_data} | {key: value}
    if key == "offset":
        del entries["length"]
    del tensor.external_data[:]
    tensor.external_data.extend(
        onnx.StringStringEntryProto(key=k, value=v) for k, v in entries.items()
    )
    path.write_bytes(result.SerializeToString())
    with pytest.raises(GraphError, match=NUMBERS[key, value]):
        prepare(path)


@pytest.mark.parametrize("left_out", [None, "0"])
def test_external_data_may_leave_its_length_out(left_out: str | None, tmp_path: Path) -> None:
    path = external(tmp_path / "model", "data")
    result = onnx.load(path, load_external_data=False)
    for tensor in result.graph.initializer:
        for entry in [e for e in tensor.external_data if e.key == "length"]:
            tensor.external_data.remove(entry)
        if left_out is not None:
            tensor.external_data.add(key="length", value=left_out)
    path.write_bytes(result.SerializeToString())
    given = {t.name: t for t in networks.network().graph.initializer}
    for tensor in onnx.load_from_string(prepare(path).original).graph.initializer:
        expected = numpy_helper.to_array(given[tensor.name])
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), expected)


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
    result = foreign.finish(
        quantize(foreign.model, Int8Options(), networks.statistics(foreign)), "int8"
    )
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
