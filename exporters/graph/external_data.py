"""Tensors that a model file keeps in other files of its folder -> tensors inside the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx import TensorProto

from exporters.errors import GraphError
from exporters.graph import onnx_file
from exporters.graph.walk import model_graphs, model_nodes


def embed_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Move the external data of the model read from ``path`` into it, in place.

    Raises GraphError when a data file is missing, too short or outside the model's folder, and
    when the whole exceeds the size of a single ONNX file.
    """
    folder, total = path.parent.resolve(), model.ByteSize()
    external = [t for t in all_tensors(model) if t.data_location == TensorProto.EXTERNAL]
    for tensor in external:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = _data_file(tensor, entries.get("location", ""), folder, path)
        total += _length(tensor, entries, file, path)
    if total > onnx_file.MAX_FILE_BYTES:
        raise GraphError(
            f"{path} has {total / 1e9:.1f} GB with its external data; a single ONNX file can hold "
            "2.1 GB, and networks for the edge are far smaller. This one is not supported."
        )
    for tensor in external:
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except Exception as exc:  # OSError, ValueError, or the checker's own
            raise GraphError(
                f"{path}: the values of tensor {tensor.name!r} cannot be read: {exc}. Is the data "
                "file complete?"
            ) from exc


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model: constants, attributes, those of functions and subgraphs."""
    for node in model_nodes(model):
        for entry in node.attribute:
            yield from (entry.t, *entry.tensors)
    for graph in model_graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)


def _data_file(tensor: onnx.TensorProto, location: str, folder: Path, path: Path) -> Path:
    file = folder / location
    if not location or Path(location).is_absolute() or ".." in Path(location).parts:
        raise GraphError(
            f"{path}: tensor {tensor.name!r} has its values in {location!r}; expected a file in "
            "the model's own folder. Save the model again with external data next to it."
        )
    if not file.resolve().is_relative_to(folder):
        raise GraphError(
            f"{path}: the data file {location!r} is a link out of the model's folder. Copy the "
            "model with what its links lead to (cp -rL)."
        )
    if not file.is_file():
        raise GraphError(
            f"{path}: the data file {location!r} is missing in {folder}. Put it next to the "
            "model; both belong together."
        )
    return file


def _length(tensor: onnx.TensorProto, entries: Mapping[str, str], file: Path, path: Path) -> int:
    """Return the bytes of a tensor in its data file; raises GraphError where the two disagree."""
    size = file.stat().st_size
    numbers = {}
    for key in ("offset", "length"):
        text = entries.get(key) or "0"
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise GraphError(
                f"{path}: the {key} of tensor {tensor.name!r} in {file.name!r} is {text[:40]!r}; "
                "expected a number of bytes. Save the model again with external data next to it."
            )
        numbers[key] = int(text)
    offset, length = numbers["offset"], numbers["length"]
    if not length:  # optional: the sizes give it
        expected = _size(tensor)
        length = max(size - offset, 0) if expected is None else expected
        if length:
            tensor.external_data.add(key="length", value=str(length))
    if offset + length > size:
        raise GraphError(
            f"{path}: the values of tensor {tensor.name!r} cannot be read: {file.name!r} has "
            f"{size} bytes, and they would end at {offset + length}. Is the data file complete?"
        )
    return length


def _size(tensor: onnx.TensorProto) -> int | None:
    """Return the bytes of a tensor of numpy's own types by its sizes; None for other types."""
    if tensor.data_type not in onnx.helper.get_all_tensor_dtypes():
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return math.prod(tensor.dims) * dtype.itemsize if dtype.kind in "biufc" else None
