"""An ONNX file: read it, write it, run it, and check that it keeps the contract of a shipped one.

Independent of PyTorch, quantization and bundles."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

from exporters.errors import GraphError
from exporters.graph.file_summary import Summary
from exporters.options import IR_VERSION, OPSET
from runtime.regular_file import read_regular
from runtime.spec import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, ModelSpec

MAX_FILE_BYTES = 2**31 - 1  # of a single ONNX file: protobuf's own limit
_Value = tuple[str, str, list[str | int]]  # (name, type, sizes) of an input or output
TensorTypes = dict[str, tuple[str, list[int | str | None]]]  # tensor -> (type, sizes)
BATCH_NAME = "N"  # the one dynamic dimension
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # operators that multiply by weights
_COUNTED = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
)


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Return the file's bytes; the same model always gives the same ones."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def from_bytes(data: bytes, what: str = "the model") -> onnx.ModelProto:
    """Read what :func:`to_bytes` wrote; raises GraphError when it is not an ONNX model."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception as exc:  # protobuf's DecodeError, whose module has no types
        raise GraphError(f"{what} is not an ONNX file ({len(data)} bytes): {exc}.") from exc
    if not model.graph.node:
        raise GraphError(f"{what} has no nodes ({len(data)} bytes); expected an ONNX model.")
    return model


def load(path: Path) -> onnx.ModelProto:
    """Read a single-file model; raises GraphError naming the path."""
    try:
        data = read_regular(path, MAX_FILE_BYTES)
    except OSError as exc:
        raise GraphError(f"model file {path} cannot be read: {exc}.") from exc
    return from_bytes(data, f"model file {path}")


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a single file, without external data."""
    path.write_bytes(to_bytes(model))


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that can be changed."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def summary(model: onnx.ModelProto) -> Summary:
    """Count the parts of ``model``."""
    counts = Counter(node.op_type for node in model.graph.node)
    return Summary(
        opset=opsets(model).get("", 0),
        ir_version=model.ir_version,
        nodes=tuple(sorted(counts.items())),
        parameters=sum(
            int(np.prod(tensor.dims))
            for tensor in model.graph.initializer
            if tensor.data_type in _COUNTED and tensor.dims
        ),
        size_bytes=model.ByteSize(),
    )


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    """Return domain -> version of the imported operator sets; "" is ONNX itself."""
    return {entry.domain: entry.version for entry in model.opset_import}


def finished(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """Return a copy as it ships: IR 8, no unused parts, no traces of its making, ``spec`` stamped
    in.

    Exporters leave stack traces with the building machine's paths in the node metadata, and
    quantizers leave shapes of tensors that are gone; both are dropped (shapes are inferred again
    by every runtime).
    """
    tidy = ir.from_proto(model)
    tidy = Sequential(
        RemoveUnusedNodesPass(), RemoveUnusedOpsetsPass(), ClearMetadataAndDocStringPass()
    )(tidy).model
    result: onnx.ModelProto = ir.to_proto(tidy)
    result.ir_version = IR_VERSION
    result.producer_name, result.producer_version = "edgeproof", ""
    result.graph.name = spec.name
    del result.graph.value_info[:]
    for part in (*result.graph.input, *result.graph.output, *result.graph.initializer):
        del part.metadata_props[:]  # the pass above leaves these
        part.doc_string = ""
    del result.metadata_props[:]
    onnx.helper.set_model_props(result, {METADATA_KEY: spec.to_json()})
    return result


def spec_of(model: onnx.ModelProto) -> ModelSpec:
    """Return the spec stamped into a model file; raises GraphError when there is none."""
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            return ModelSpec.from_json(entry.value)
    raise GraphError(
        f"the model file has no {METADATA_KEY!r} in its metadata. Export it again, or stamp it."
    )


def session(
    model: onnx.ModelProto | bytes,
    *,
    threads: int = 1,
    optimized: bool = True,
    config: Mapping[str, str] | None = None,
    options: ort.SessionOptions | None = None,
) -> ort.InferenceSession:
    """Open a CPU session; raises GraphError when onnxruntime refuses the file.

    Without optimization Q and DQ nodes compute in float and nothing is fused. ``config`` are
    session configuration entries such as "session.x64quantprecision"; ``options``, when given,
    are completed and used.
    """
    options = options or ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised as well: this package never prints
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    data = model if isinstance(model, bytes) else to_bytes(model)
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime raises a dozen unrelated classes
        raise GraphError(f"onnxruntime {ort.__version__} refuses the model: {exc}") from exc


def optimized_by_onnxruntime(
    model: onnx.ModelProto, options: ort.SessionOptions | None = None
) -> onnx.ModelProto:
    """Return the graph that onnxruntime runs after its optimizations; raises GraphError when it
    refuses the model."""
    options = options or ort.SessionOptions()
    with tempfile.TemporaryDirectory(prefix="edgeproof-graph-") as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        session(model, options=options)
        return load(path)


def with_inner_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """Return a copy that also puts out inner tensors, whose types are left to onnxruntime."""
    result = copied(model)
    names = {value.name for value in result.graph.output}
    result.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors) if name not in names
    )
    return result


def tensor_types(model: onnx.ModelProto) -> TensorTypes:
    """Return (type, sizes) of every tensor that a node of the main graph makes, as onnxruntime
    infers it, whatever the operators' domains: "tensor(float)", "seq(tensor(float))".

    Sizes are [] where none are known. Raises GraphError when onnxruntime refuses the model.
    """
    names = [name for node in model.graph.node for name in node.output if name]
    outputs = session(with_inner_outputs(model, names), optimized=False).get_outputs()
    return {value.name: (value.type, list(value.shape)) for value in outputs}


def run(model: ort.InferenceSession, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the probabilities [N, labels] of images [N, h, w, c] from a :func:`session`; raises
    GraphError for another number of rows, which NumPy would spread over the images."""
    result: NDArray[np.float32] = model.run([OUTPUT_NAME], {INPUT_NAME: images})[0]
    if result.shape[:1] != (len(images),):
        raise GraphError(
            f"the model returned {OUTPUT_NAME} of shape {result.shape} for {len(images)} images; "
            "expected one row for each. Export it again with a free batch dimension."
        )
    return result


def inner_values(
    model: onnx.ModelProto, tensors: Sequence[str], feed: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return the named inner tensors, by name. The graph runs without optimization, so that they
    exist, and no further than the last of them."""
    names = list(dict.fromkeys(tensors))
    inner = session(with_inner_outputs(model, names), optimized=False)
    return dict(zip(names, run_feed(inner, names, feed, to_fetches()), strict=True))


def to_fetches() -> ort.RunOptions:
    """Return options that run a graph no further than the tensors that are asked for."""
    options = ort.RunOptions()
    options.only_execute_path_to_fetches = True
    return options


def run_feed(
    model: ort.InferenceSession,
    tensors: Sequence[str],
    feed: Mapping[str, NDArray[Any]],
    options: ort.RunOptions | None = None,
) -> list[NDArray[Any]]:
    """Return the named tensors of any number of images; a model with a fixed batch gets them in
    pieces of that batch, which must divide their number. Raises GraphError when the model cannot
    be run on them."""
    pieces = [values for _, values in _run_pieces(model, tensors, feed, options)]
    if len(pieces) == 1:
        return pieces[0]
    return [joined([np.atleast_1d(part) for part in parts]) for parts in zip(*pieces, strict=True)]


def run_by_image(
    model: ort.InferenceSession, tensors: Sequence[str], feed: Mapping[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """Return the same with a row for each image, [n, ...], where possible; see :func:`by_image`."""
    pieces = [
        [by_image(value, count) for value in values]
        for count, values in _run_pieces(model, tensors, feed, None)
    ]
    return [joined(parts) for parts in zip(*pieces, strict=True)]


def _run_pieces(
    model: ort.InferenceSession,
    tensors: Sequence[str],
    feed: Mapping[str, NDArray[Any]],
    options: ort.RunOptions | None,
) -> Iterator[tuple[int, list[NDArray[Any]]]]:
    """Yield (number of images, the tensors) of each call."""
    ((name, images),) = feed.items()
    batch = model.get_inputs()[0].shape[0]
    size = batch if isinstance(batch, int) and batch > 0 else max(len(images), 1)
    for start in range(0, max(len(images), 1), size):
        piece = images[start : start + size]
        try:
            values = model.run(list(tensors), {name: piece}, options)
        except Exception as exc:  # onnxruntime raises a dozen unrelated classes
            raise GraphError(
                f"onnxruntime {ort.__version__} cannot run the model on {name!r} "
                f"{list(piece.shape)}: {exc}"
            ) from exc
        yield len(piece), values


def by_image(value: Any, count: int) -> NDArray[Any]:
    """Return the output of ``count`` images with one row for each, [count, ...]: its first axis,
    the only other one of that size, or equal parts of the first one. Where none fits, as it is."""
    output = np.asarray(value)
    if output.ndim and len(output) == count:
        return output
    if count == 1:
        return output[None]
    axes = [axis for axis, size in enumerate(output.shape) if size == count]
    if len(axes) == 1:
        return np.moveaxis(output, axes[0], 0)
    if output.ndim and len(output) and len(output) % count == 0:
        return output.reshape(count, -1, *output.shape[1:])
    return np.atleast_1d(output)


def joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join the rows of several calls; where their sizes differ, all values go into one row."""
    if len({part.shape[1:] for part in parts}) == 1:
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    return np.concatenate([part.reshape(-1) for part in parts])[None]


def check_model(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Raise GraphError unless ``model`` keeps the contract of a shipped model file.

    Opset 18 and IR 8 alone, one file, ``images`` uint8 [N, h, w, c] to the float32 outputs of the
    spec with N free, the spec in the metadata, no traces of the building machine, and
    clean by ONNX's checker and strict shape inference with data propagation.
    """
    problems = [*_format(model), *_interface(model, spec), *_traces(model, spec)]
    if problems:
        raise GraphError("the model file is not what was asked for: " + "; ".join(problems) + ".")
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise GraphError(f"the ONNX checker refuses the model: {exc}") from exc


def _format(model: onnx.ModelProto) -> list[str]:
    problems = []
    if opsets(model) != {"": OPSET}:
        problems.append(f"operator sets are {opsets(model)}, expected only ONNX {OPSET}")
    if model.ir_version != IR_VERSION:
        problems.append(f"IR version is {model.ir_version}, expected {IR_VERSION}")
    if model.functions:
        problems.append(f"it has {len(model.functions)} local functions, expected none")
    external = [
        t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL
    ]
    if external:
        problems.append(f"tensors {external[:3]} are in another file, expected a single file")
    return problems


def _interface(model: onnx.ModelProto, spec: ModelSpec) -> list[str]:
    expected_in = (INPUT_NAME, "UINT8", [BATCH_NAME, *spec.shape])
    expected_out = [(o.name, "FLOAT", [BATCH_NAME, *o.shape]) for o in spec.outputs]
    actual_in = [_value(value) for value in model.graph.input]
    actual_out = [_value(value) for value in model.graph.output]
    problems = []
    if actual_in != [expected_in]:
        problems.append(f"inputs are {actual_in}, expected {[expected_in]}")
    if len(actual_out) != len(expected_out) or not all(map(_fits, actual_out, expected_out)):
        problems.append(f"outputs are {actual_out}, expected {expected_out}")
    return problems


def _fits(actual: _Value, expected: tuple[str, str, Sequence[str | int | None]]) -> bool:
    """True for the same name, type and sizes; a size of None may be any."""
    return (
        actual[:2] == expected[:2]
        and len(actual[2]) == len(expected[2])
        and all(b in (a, None) for a, b in zip(actual[2], expected[2], strict=True))
    )


def _value(value: onnx.ValueInfoProto) -> _Value:
    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    return value.name, kind, [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]


def _traces(model: onnx.ModelProto, spec: ModelSpec) -> list[str]:
    problems = []
    stamps = {entry.key: entry.value for entry in model.metadata_props}
    if stamps != {METADATA_KEY: spec.to_json()}:
        problems.append(f"metadata is {stamps}, expected {METADATA_KEY}={spec.to_json()}")
    graph = model.graph
    parts = (*graph.node, *graph.input, *graph.output, *graph.initializer)
    notes = [part.name for part in parts if part.doc_string or part.metadata_props]
    if notes or model.doc_string or graph.doc_string or graph.metadata_props:
        problems.append(f"notes of the exporter are left at {notes[:3] or 'the graph'}")
    return problems
