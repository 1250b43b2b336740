"""An ONNX file that someone else made -> one model in memory, or a plain word why not.

Knows nothing of what is done with the model; see ``foreign_model.py``."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path

import onnx
from onnx import TensorProto

from runtime.regular_file import read_regular

from . import onnx_file
from .errors import GraphError

_LARGEST = 2**31 - 1  # bytes of a single ONNX file: protobuf's own limit
_OTHER_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_LFS_POINTER = b"version https://git-lfs"
_ORT_FORMAT = b"ORTM"


def read(path: Path) -> onnx.ModelProto:
    """The model with its external data inside, unchanged otherwise.

    Raises GraphError when the file is missing, no ONNX model, quantized already, not float32, or
    when its external data is missing or lies outside the model's own folder.
    """
    try:
        data = read_regular(path, _LARGEST)
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
    _embed(model, path)
    _refuse(model, path)
    return model


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of every graph inside it."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that a node such as If or Loop holds."""
    return [inner for entry in node.attribute for inner in (entry.g, *entry.graphs) if inner.node]


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
        total += int(entries.get("length") or place.stat().st_size)
    if total > _LARGEST:
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


def _refuse(model: onnx.ModelProto, path: Path) -> None:
    """Raise GraphError for a model that is no float32 model."""
    constants = {t.name for t in model.graph.initializer}
    constants |= {n.output[0] for n in all_nodes(model.graph) if n.op_type == "Constant"}
    quantized = sorted(
        {node.op_type for node in all_nodes(model.graph) if _is_quantized(node, constants)}
    )
    if quantized:
        raise GraphError(
            f"{path} is quantized already (it has {', '.join(quantized[:4])}); expected a float32 "
            "model. Give the file that it was made from."
        )
    weights = [tensor for tensor in _tensors(model) if len(tensor.dims) > 1]
    other = [tensor for tensor in weights if tensor.data_type in _OTHER_FLOATS]
    if other:
        kind = TensorProto.DataType.Name(other[0].data_type).lower()
        raise GraphError(
            f"{path} has {kind} weights ({other[0].name!r} and {len(other) - 1} more); expected "
            "float32. Export the network again in float32: what half precision cut off is lost "
            "to INT8 as well."
        )


def _is_quantized(node: onnx.NodeProto, constants: Set[str]) -> bool:
    if node.op_type == "DequantizeLinear":  # of pixels, it is how a float model scales them
        return node.input[0] in constants
    return node.op_type in (
        *("QuantizeLinear", "DynamicQuantizeLinear"),
        *("ConvInteger", "MatMulInteger", "MatMulNBits", "QGemm"),
    ) or node.op_type.startswith("QLinear")
