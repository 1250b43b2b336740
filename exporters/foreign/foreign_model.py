"""An ONNX model of unknown origin -> the same model as the search needs it, and back into a file
that replaces the original one.

    opset at least 13   per-channel QDQ does not exist before
    constants folded    weights that Constant nodes or reshapes make become initializers
    biases made plain   one number for each output, as the quantizer takes it; else a sum
    BatchNorm folded    into the convolution before it; identity and dropout are gone
    nodes named         so that layers can be distinguished

The folding is that of onnxruntime's basic level, which is the same on every kind of CPU; its result
is proven equal on data by ``equality.py``. Independent of data sets and of which variant
pays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
    TopologicalSortPass,
)

from exporters.errors import GraphError, QuantizeError
from exporters.foreign.model_inputs import InputSpec, input_of
from exporters.graph import foreign_file, onnx_file, opset_conversion
from exporters.graph.silenced import quiet
from exporters.graph.walk import Graph, all_nodes
from exporters.quantize.quantizable import plain_gemms, split_biases, unfuse


@dataclass(frozen=True)
class ForeignModel:
    """A model that someone else made, ready for the search."""

    name: str  # of the file, without its ending
    original: bytes  # the file with its external data inside
    model: onnx.ModelProto  # prepared; the same interface as the original
    input: InputSpec
    outputs: tuple[str, ...]  # names of the float ones, which can be compared
    changes: tuple[str, ...]  # descriptions of what was done to it
    # name of a batch that is free in name only, and 1 in ``original`` and ``model``
    named_batch: str | None = None

    def finish(self, quantized: onnx.ModelProto, variant: str) -> onnx.ModelProto:
        """Return a quantized candidate as a file that replaces the original; raises QuantizeError
        when it is not a valid model or has another interface."""
        try:
            result = _tidy(quantized, onnx_file.from_bytes(self.original))
            onnx.checker.check_model(result)
            onnx_file.session(result)
        except (GraphError, onnx.checker.ValidationError, ir.serde.SerdeError) as exc:
            raise QuantizeError(f"variant {variant!r} is not a valid model: {exc}") from exc
        return result

    def as_given(self, finished: bytes) -> bytes:
        """Return a finished file with the batch that the original's inputs and outputs name; see
        :func:`equality.one_at_a_time`."""
        if self.named_batch is None:
            return finished
        result = onnx_file.from_bytes(finished)
        set_batch(result, self.input.name, self.named_batch)
        return onnx_file.to_bytes(result)


def prepare(path: Path) -> ForeignModel:
    """Read and prepare a model file; raises GraphError saying what to do."""
    original = foreign_file.read(path)
    try:
        onnx_file.session(original)
    except GraphError as exc:
        raise GraphError(f"{path} does not run as it is: {exc}") from exc
    changes: list[str] = []
    model = opset_conversion.without_functions(original, changes)
    model = opset_conversion.raised(model, path, changes)
    opset_conversion.without_constant_inputs(model, changes)
    if fused := unfuse(model):
        changes.append(f"{fused} operators of onnxruntime's own taken apart")
    model = _tidy(_folded(model), original)
    _note_folding(original, model, changes)
    _name_nodes(model, changes)
    if plain := plain_gemms(model) + split_biases(model):
        changes.append(f"{plain} biases or factors made plain")
        model = _tidy(model, original)
    graph = Graph(model)
    if not any(not node.domain for node in graph.constant_layers()):
        raise GraphError(
            f"{path} has no Conv, ConvTranspose, Gemm or MatMul with constant weights (its "
            f"operators: {counted(full_name(node) for node in graph.nodes)}); there is nothing to "
            "quantize."
        )
    floats = tuple(
        value.name
        for value in model.graph.output
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    )
    if not floats:
        raise GraphError(f"{path} has no float32 output; expected one to compare answers by.")
    return ForeignModel(
        path.stem,
        onnx_file.to_bytes(original),
        model,
        input_of(model.graph),
        floats,
        tuple(changes),
    )


def set_batch(model: onnx.ModelProto, name: str, batch: int | str) -> None:
    """Set the first size of the input ``name``, in place; outputs keep theirs."""
    for value in model.graph.input:
        if value.name == name:
            size = value.type.tensor_type.shape.dim[0]
            size.Clear()
            if isinstance(batch, int):
                size.dim_value = batch
            elif batch:
                size.dim_param = batch


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with quiet():
        return onnx_file.optimized_by_onnxruntime(model, options)


def _tidy(model: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with the original's interface and metadata, without unused parts."""
    parts = Sequential(
        TopologicalSortPass(),  # the quantizer's own does not see what subgraphs read
        RemoveUnusedNodesPass(),
        RemoveUnusedOpsetsPass(),
        ClearMetadataAndDocStringPass(),
    )(ir.from_proto(model))
    result: onnx.ModelProto = ir.to_proto(parts.model)
    constants = {tensor.name for tensor in original.graph.initializer}
    inputs = [value for value in original.graph.input if value.name not in constants]
    for values, expected in (
        (result.graph.input, inputs),
        (result.graph.output, list(original.graph.output)),
    ):
        if [_kind(value) for value in values] != [_kind(value) for value in expected]:
            raise GraphError(
                f"inputs or outputs became {[v.name for v in values]}, expected "
                f"{[v.name for v in expected]} of the same types."
            )
        del values[:]
        values.extend(expected)  # with their own names for free dimensions
    del result.graph.value_info[:]
    result.ir_version = onnx.helper.find_min_ir_version_for(
        result.opset_import, ignore_unknown=True
    )
    result.producer_name, result.producer_version = "edgeproof", ""
    del result.metadata_props[:]
    result.metadata_props.extend(original.metadata_props)  # apps read their labels from there
    return result


def _kind(value: onnx.ValueInfoProto) -> tuple[str, int]:
    return value.name, value.type.tensor_type.elem_type


def _note_folding(before: onnx.ModelProto, after: onnx.ModelProto, changes: list[str]) -> None:
    counts = [
        Counter(node.op_type for node in all_nodes(model.graph.node)) for model in (before, after)
    ]
    for what, rows in (("folded", counts[0] - counts[1]), ("new", counts[1] - counts[0])):
        if rows:
            changes.append(f"{what}: {counted(rows.elements())}")


def _name_nodes(model: onnx.ModelProto, changes: list[str]) -> None:
    taken = Counter(node.name for node in model.graph.node)
    named = 0
    for node in model.graph.node:
        if node.name and taken[node.name] == 1:
            continue
        number = named
        while (name := f"{node.op_type}_{number}") in taken:
            number += 1
        node.name, named = name, named + 1
        taken[name] = 1
    if named:
        changes.append(f"{named} nodes named")


def full_name(node: onnx.NodeProto) -> str:
    """Return an operator with its domain."""
    return f"{node.domain}.{node.op_type}".lstrip(".")


def counted(operators: Iterable[str]) -> str:
    """List operators with their numbers: "2 Conv, 1 Relu"."""
    return ", ".join(f"{count} {name}" for name, count in sorted(Counter(operators).items()))
