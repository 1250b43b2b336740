"""An ONNX file that someone else made -> one model in memory, or a plain word why not.

Knows nothing of what is done with the model; see ``foreign_model.py``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from exporters.errors import GraphError
from exporters.graph import onnx_file
from runtime.regular_file import read_regular

_OTHER_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_LFS_POINTER = b"version https://git-lfs"
_ORT_FORMAT = b"ORTM"


def read(path: Path) -> onnx.ModelProto:
    """The model with its external data inside, unchanged otherwise.

    Raises GraphError when the file is missing, no ONNX model, quantized already, not float32, or
    when its external data is missing or lies outside the model's own folder.
    """
    try:
        data = read_regular(path, onnx_file.MAX_FILE_BYTES)
    except OSError as exc:
        raise GraphError(f"model file {path} cannot be read: {exc.strerror or exc}.") from exc
    if data.startswith(_LFS_POINTER):
        raise GraphError(f"{path} is the pointer of a Git LFS file; run: git lfs pull")
    if data[4:8] == _ORT_FORMAT:
        raise GraphError(
            f"{path} is in onnxruntime's own format, already optimised for one kind of device; "
            "expected ONNX. Give the .onnx file that it was made from."
        )
    model = onnx_file.from_bytes(data, f"model file {path}")
    _escape_names(model)
    _one_domain(model)
    _embed(model, path)
    _refuse(model, path)
    _densify(model.graph, path)
    return model


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of every graph inside it."""
    yield from _every(graph.node)


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that a node such as If or Loop holds."""
    return [inner for entry in node.attribute for inner in (entry.g, *entry.graphs) if inner.node]


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
            for place, text in enumerate(value):
                if isinstance(text, bytes):
                    value[place] = text.decode("utf-8", "backslashreplace")


def _one_domain(model: onnx.ModelProto) -> None:
    """ONNX's own operators have the domain "", which some write as "ai.onnx", in place."""
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
    inner = [node for function in model.functions for node in _every(function.node)]
    for node in (*all_nodes(model.graph), *inner):
        node.domain = _own(node.domain)


def _own(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _every(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model, wherever it lies."""
    nodes = [node for function in model.functions for node in function.node]
    graphs = [model.graph]
    for node in (*nodes, *all_nodes(model.graph)):
        graphs += subgraphs(node)
        for entry in node.attribute:
            yield from (entry.t, *entry.tensors)
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)


def _embed(model: onnx.ModelProto, path: Path) -> None:
    """Move external data into the model, in place."""
    folder, total = path.parent.resolve(), model.ByteSize()
    outside = [t for t in _tensors(model) if t.data_location == TensorProto.EXTERNAL]
    for tensor in outside:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        place = folder / location
        if not location or Path(location).is_absolute() or ".." in Path(location).parts:
            raise GraphError(
                f"{path}: tensor {tensor.name!r} has its values in {location!r}; expected a file "
                "in the model's own folder. Save the model again with external data beside it."
            )
        if not place.resolve().is_relative_to(folder):
            raise GraphError(
                f"{path}: the data file {location!r} is a link out of the model's folder. Copy "
                "the model with what its links lead to (cp -rL)."
            )
        if not place.is_file():
            raise GraphError(
                f"{path}: the data file {location!r} is missing in {folder}. Put it beside the "
                "model; both belong together."
            )
        total += _length(tensor, entries, place, path)
    if total > onnx_file.MAX_FILE_BYTES:
        raise GraphError(
            f"{path} has {total / 1e9:.1f} GB with its external data; a single ONNX file can hold "
            "2.1 GB, and networks for the edge are far smaller. This one is not supported."
        )
    for tensor in outside:
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except Exception as exc:  # OSError, ValueError, or the checker's own
            raise GraphError(
                f"{path}: the values of tensor {tensor.name!r} cannot be read: {exc}. Is the data "
                "file complete?"
            ) from exc


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
        places = numpy_helper.to_array(sparse.indices)
        dense = np.zeros(dims, values.dtype)
        dense[tuple(places.T) if places.ndim > 1 else np.unravel_index(places, dims)] = values
        graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for inner in subgraphs(node):
            _densify(inner, path)


def _length(tensor: onnx.TensorProto, entries: Mapping[str, str], place: Path, path: Path) -> int:
    """Bytes that a tensor has in its data file; raises GraphError where the two do not agree."""
    size = place.stat().st_size
    numbers = {}
    for key in ("offset", "length"):
        text = entries.get(key) or "0"
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise GraphError(
                f"{path}: the {key} of tensor {tensor.name!r} in {place.name!r} is {text[:40]!r}; "
                "expected a number of bytes. Save the model again with external data beside it."
            )
        numbers[key] = int(text)
    offset, length = numbers["offset"], numbers["length"]
    if not length:  # it may be left out: the sizes say it
        known = _size(tensor)
        length = max(size - offset, 0) if known is None else known
        if length:
            tensor.external_data.add(key="length", value=str(length))
    if offset + length > size:
        raise GraphError(
            f"{path}: the values of tensor {tensor.name!r} cannot be read: {place.name!r} has "
            f"{size} bytes, and they would end at {offset + length}. Is the data file complete?"
        )
    return length


def _size(tensor: onnx.TensorProto) -> int | None:
    """Bytes of a tensor of numpy's own types by its sizes; None for others."""
    if tensor.data_type not in onnx.helper.get_all_tensor_dtypes():
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return math.prod(tensor.dims) * dtype.itemsize if dtype.kind in "biufc" else None


def _refuse(model: onnx.ModelProto, path: Path) -> None:
    """Raise GraphError for a model that is quantized already, or whose tensors have impossible
    sizes."""
    constants = {t.name for t in model.graph.initializer}
    made = [n.output[:1] for n in all_nodes(model.graph) if n.op_type == "Constant"]
    constants |= {name for names in made for name in names}
    quantized = sorted(
        {node.op_type for node in all_nodes(model.graph) if _is_quantized(node, constants)}
    )
    if quantized:
        raise GraphError(
            f"{path} is quantized already (it has {', '.join(quantized[:4])}); expected a float32 "
            "model. Give the file that it was made from."
        )
    _refuse_other_floats(model, path)
    for tensor in _tensors(model):
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


def _is_quantized(node: onnx.NodeProto, constants: Set[str]) -> bool:
    if node.op_type == "DequantizeLinear":  # of pixels, it is how a float model scales them
        return not constants.isdisjoint(node.input[:1])
    return node.op_type in (
        *("QuantizeLinear", "DynamicQuantizeLinear"),
        *("ConvInteger", "MatMulInteger", "MatMulNBits", "QGemm"),
    ) or node.op_type.startswith("QLinear")
