"""An ONNX file that someone else made -> one model in memory, or a plain reason why not.

Independent of what is done with the model; see ``foreign_model.py``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from exporters.errors import GraphError
from exporters.graph import onnx_file
from exporters.graph.external_data import all_tensors, embed_external_data
from exporters.graph.quantized import quantizing_operators
from exporters.graph.walk import model_nodes, subgraphs
from runtime.regular_file import read_regular

_OTHER_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_LFS_POINTER = b"version https://git-lfs"
_ORT_FORMAT = b"ORTM"


def read(path: Path) -> onnx.ModelProto:
    """Read the model with its external data inside, otherwise unchanged.

    Raises GraphError when the file is missing, not an ONNX model, quantized already or not
    float32, or when its external data is missing or outside the model's own folder.
    """
    try:
        data = read_regular(path, onnx_file.MAX_FILE_BYTES)
    except OSError as exc:
        raise GraphError(f"model file {path} cannot be read: {exc.strerror or exc}.") from exc
    if data.startswith(_LFS_POINTER):
        raise GraphError(f"{path} is the pointer of a Git LFS file; run: git lfs pull")
    if data[4:8] == _ORT_FORMAT:
        raise GraphError(
            f"{path} is in onnxruntime's own format, already optimized for one kind of device; "
            "expected ONNX. Give the .onnx file that it was made from."
        )
    model = onnx_file.from_bytes(data, f"model file {path}")
    _escape_names(model)
    _one_domain(model)
    embed_external_data(model, path)
    _refuse(model, path)
    _densify(model.graph, path)
    return model


def _escape_names(message: Any) -> None:
    """Write every text of a model that is not UTF-8 with \\xe9, in place: protobuf hands such ones
    out as bytes, with which no tool can work."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in (value,) if not hasattr(value, "add") else value:
                _escape_names(part)
        elif field.type == field.TYPE_STRING and isinstance(value, str | bytes):
            if isinstance(value, bytes):
                setattr(message, field.name, value.decode("utf-8", "backslashreplace"))
        elif field.type == field.TYPE_STRING:
            for position, text in enumerate(value):
                if isinstance(text, bytes):
                    value[position] = text.decode("utf-8", "backslashreplace")


def _one_domain(model: onnx.ModelProto) -> None:
    """Call the domain of ONNX's own operators "" everywhere, in place; some files say "ai.onnx"."""
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = _own(entry.domain)
        versions[domain] = max(versions.get(domain, 0), entry.version)
    if len(versions) < len(model.opset_import) or "ai.onnx" in onnx_file.opsets(model):
        del model.opset_import[:]
        model.opset_import.extend(onnx.helper.make_opsetid(*row) for row in versions.items())
    for function in model.functions:
        for entry in function.opset_import:
            entry.domain = _own(entry.domain)
    for node in model_nodes(model):
        node.domain = _own(node.domain)


def _own(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _densify(graph: onnx.GraphProto, path: Path) -> None:
    """Write sparse constants out, in place: tools pass over them."""
    for sparse in graph.sparse_initializer:
        dims = list(sparse.dims)
        if math.prod(dims) > onnx_file.MAX_FILE_BYTES:
            raise GraphError(
                f"{path}: the sparse tensor {sparse.values.name!r} has {dims} values; a single "
                "ONNX file can hold 2.1 GB of them. This one is not supported."
            )
        values = numpy_helper.to_array(sparse.values)
        indices = numpy_helper.to_array(sparse.indices)
        dense = np.zeros(dims, values.dtype)
        dense[tuple(indices.T) if indices.ndim > 1 else np.unravel_index(indices, dims)] = values
        graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for inner in subgraphs(node):
            _densify(inner, path)


def _refuse(model: onnx.ModelProto, path: Path) -> None:
    """Raise GraphError for a model that is quantized already, or whose tensors have impossible
    sizes."""
    if operators := quantizing_operators(model):
        raise GraphError(
            f"{path} is quantized already (it has {', '.join(operators[:4])}); expected a float32 "
            "model. Give the file that it was made from."
        )
    _refuse_other_floats(model, path)
    for tensor in all_tensors(model):
        if any(size < 0 for size in tensor.dims):
            raise GraphError(
                f"{path}: tensor {tensor.name!r} has the sizes {list(tensor.dims)}; expected none "
                "below 0. The file is damaged: fetch or export it again."
            )


def _refuse_other_floats(model: onnx.ModelProto, path: Path) -> None:
    """Raise GraphError where no layer has float32 weights, but some have others; a single layer or
    table of another precision stays as it is."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        for entry in node.attribute if node.op_type == "Constant" else ():
            constants |= {name: entry.t for name in node.output if entry.name == "value"}
    kinds: dict[int, list[str]] = {}
    for node in model.graph.node:
        for name in node.input[1:2] if node.op_type in onnx_file.WEIGHTED else ():
            if name in constants:
                kinds.setdefault(constants[name].data_type, []).append(name)
    other = [kind for kind in kinds if kind in _OTHER_FLOATS]
    if other and TensorProto.FLOAT not in kinds:
        kind, names = TensorProto.DataType.Name(other[0]).lower(), kinds[other[0]]
        lost = ""
        if other[0] != TensorProto.DOUBLE:
            lost = ": what half precision cut off is lost to INT8 as well"
        raise GraphError(
            f"{path} has {kind} weights ({names[0]!r} and {len(names) - 1} more); expected "
            f"float32. Export the network again in float32{lost}."
        )
