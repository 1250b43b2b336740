"""An ONNX model of unknown making -> the same model in the form that the search needs, and back
into a file that replaces the original one.

    opset at least 13   per-channel QDQ does not exist before
    constants folded    weights that Constant nodes or reshapes make become initializers
    BatchNorm folded    into the convolution before it; identity and dropout are gone
    nodes named         so that layers can be told apart

The folding is onnxruntime's own of its basic level, which is the same on every kind of CPU; what
it makes is proven equal on data by :func:`difference`. Knows neither data sets nor which variant
pays."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import version_converter
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
    TopologicalSortPass,
)

from . import foreign_file, onnx_file
from .activation_ranges import ActivationStatistics
from .errors import GraphError, QuantizeError
from .int8_from_fp32 import not_quantized
from .model_inputs import InputSpec, input_of
from .options import Int8Options
from .qdq import QUANTIZED_OPERATORS, Graph, outside
from .quiet import quiet

MIN_OPSET = 13  # the first with a QuantizeLinear that has an axis
# Of the largest value of an output: sums in another order differ by some 1e-6 of it.
SAME = 1e-4
# Computed once for all images, or moves numbers only: saying that they stay float helps nobody.
_SHAPES = frozenset(
    (
        *("Shape", "Gather", "Cast", "Constant", "ConstantOfShape", "Range", "Expand", "Where"),
        *("Identity", "Equal", "Not", "And", "Or", "Greater", "Less", "NonZero", "Size"),
    )
)


@dataclass(frozen=True)
class LeftInFloat:
    """Something of a model that no INT8 variant of it computes in 8 bits."""

    what: str  # a node, or an operator and how often
    reason: str


@dataclass(frozen=True)
class ForeignModel:
    """A model that someone else made, ready for the search."""

    name: str  # of the file, without its ending
    original: bytes  # the file with its external data inside
    model: onnx.ModelProto  # prepared; the same interface as the original
    input: InputSpec
    outputs: tuple[str, ...]  # names of the float ones, which can be compared
    changes: tuple[str, ...]  # what was done to it, in words

    def finish(self, quantized: onnx.ModelProto, variant: str) -> onnx.ModelProto:
        """A quantized form of it as a file that replaces the original; raises QuantizeError when
        it is no valid model or has another interface."""
        try:
            result = _tidy(quantized, onnx_file.from_bytes(self.original))
            onnx.checker.check_model(result)
            onnx_file.session(result)
        except (GraphError, onnx.checker.ValidationError) as exc:
            raise QuantizeError(f"variant {variant!r} is no valid model: {exc}") from exc
        return result


def prepare(path: Path) -> ForeignModel:
    """Read and prepare a model file; raises GraphError saying what to do."""
    original = foreign_file.read(path)
    try:
        onnx_file.session(original)
    except GraphError as exc:
        raise GraphError(f"{path} does not run as it is: {exc}") from exc
    changes: list[str] = []
    model = _without_functions(original, changes)
    model = _raised(model, path, changes)
    _without_constant_inputs(model, changes)
    model = _tidy(_folded(model), original)
    _tell_folding(original, model, changes)
    _name_nodes(model, changes)
    graph = Graph(model)
    if not _weighted(graph):
        raise GraphError(
            f"{path} has no Conv, ConvTranspose, Gemm or MatMul with constant weights (its "
            f"operators: {_counted(node.op_type for node in graph.nodes)}); there is nothing to "
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


def difference(foreign: ForeignModel, images: NDArray[Any]) -> float:
    """The largest difference between the outputs of the original and the prepared model, as a
    share of the largest value of that output; raises GraphError when it exceeds ``SAME``."""
    feed = {foreign.input.name: images}
    before, after = (
        onnx_file.run_feed(onnx_file.session(model), foreign.outputs, feed)
        for model in (foreign.original, foreign.model)
    )
    worst = 0.0
    for name, was, now in zip(foreign.outputs, before, after, strict=True):
        largest = float(np.abs(was).max(initial=0.0)) or 1.0
        found = float(np.abs(was - now).max(initial=0.0)) / largest if was.size else 0.0
        if was.shape != now.shape or not found <= SAME:
            raise GraphError(
                f"the model changed while it was prepared ({'; '.join(foreign.changes)}): output "
                f"{name!r} differs by {found:.3g} of its largest value, allowed {SAME:g}. Export "
                f"it again with opset {MIN_OPSET} or later."
            )
        worst = max(worst, found)
    return worst


def kept_in_float(foreign: ForeignModel, statistics: ActivationStatistics) -> dict[str, str]:
    """Nodes that could be asked to compute in 8 bits, but stay float in every variant: name ->
    reason. ``statistics`` of a few images are enough."""
    graph = Graph(foreign.model)
    captured = _captured(foreign.model.graph)
    found = {
        node.name: "a subgraph (If, Loop) reads its result, which therefore stays float"
        for node in graph.nodes
        if captured & set(node.output)
    }
    found |= {name: reason for name, reason in _gates(graph).items() if name not in found}
    left = not_quantized(foreign.model, Int8Options(exclude_nodes=tuple(found)), statistics)
    return found | left


def left_in_float(foreign: ForeignModel, kept: dict[str, str]) -> tuple[LeftInFloat, ...]:
    """Everything between the first and the last layer with weights that stays float, and why."""
    graph = Graph(foreign.model)
    rows = _grouped(graph, kept)
    for node in graph.nodes:
        if node.op_type in onnx_file.WEIGHTED and node.input[1] not in graph.constants:
            rows.append(LeftInFloat(_told(node, node.name), "its weights are computed"))
        elif node.op_type == "ConvTranspose" and node.name not in kept:
            reason = "8-bit weights, but onnxruntime has no kernel that multiplies by them"
            rows.append(LeftInFloat(_told(node, node.name), reason))
        inside = [n for g in foreign_file.subgraphs(node) for n in foreign_file.all_nodes(g)]
        if inside:
            rows.append(
                LeftInFloat(
                    f"{_counted(n.op_type for n in inside)} inside {_told(node, node.name)}",
                    "the quantizer does not enter subgraphs",
                )
            )
    ends = outside(graph)
    others = Counter(
        f"{node.domain}.{node.op_type}".lstrip(".")
        for node in graph.nodes
        if node.name not in ends
        and node.op_type not in (*QUANTIZED_OPERATORS, *_SHAPES)
        and not foreign_file.subgraphs(node)
    )
    for operator, count in others.items():
        what = f"{operator}" + (f" ({count} nodes)" if count > 1 else "")
        rows.append(LeftInFloat(what, "onnxruntime has no 8-bit kernel for it"))
    return tuple(rows)


# --- preparing ------------------------------------------------------------------------------


def _without_functions(model: onnx.ModelProto, changes: list[str]) -> onnx.ModelProto:
    if not model.functions:
        return model
    changes.append(f"{len(model.functions)} local functions written out")
    return onnx.inliner.inline_local_functions(model)


def _raised(model: onnx.ModelProto, path: Path, changes: list[str]) -> onnx.ModelProto:
    opset = onnx_file.opsets(model).get("") or onnx_file.opsets(model).get("ai.onnx", 0)
    if opset >= MIN_OPSET:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
    try:
        result: onnx.ModelProto = version_converter.convert_version(model, MIN_OPSET)
    except Exception as exc:  # the converter raises RuntimeError and more
        raise GraphError(
            f"{path} has opset {opset}, and INT8 needs {MIN_OPSET}; ONNX's own converter fails: "
            f"{exc}. Export the network again with opset {MIN_OPSET} or later."
        ) from exc
    changes.append(f"opset raised from {opset} to {MIN_OPSET}")
    return result


def _without_constant_inputs(model: onnx.ModelProto, changes: list[str]) -> None:
    """Old files list their weights among the inputs, as values that a caller may replace; then
    nothing can be folded."""
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    gone = len(model.graph.input) - len(kept)
    if gone:
        del model.graph.input[:]
        model.graph.input.extend(kept)
        changes.append(f"{gone} weights are no longer listed as inputs")
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="edgeproof-fold-") as folder, quiet():
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        options.log_severity_level = 3
        try:
            ort.InferenceSession(
                onnx_file.to_bytes(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # onnxruntime raises a dozen unrelated classes
            raise GraphError(f"onnxruntime {ort.__version__} refuses the model: {exc}") from exc
        return onnx_file.load(Path(options.optimized_model_filepath))


def _tidy(model: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the original's interface and metadata, without what no node uses."""
    parts = Sequential(
        TopologicalSortPass(),  # the quantizer's own does not see what subgraphs read
        RemoveUnusedNodesPass(),
        RemoveUnusedOpsetsPass(),
        ClearMetadataAndDocStringPass(),
    )(ir.from_proto(model))
    result: onnx.ModelProto = ir.to_proto(parts.model)
    constants = {tensor.name for tensor in original.graph.initializer}
    inputs = [value for value in original.graph.input if value.name not in constants]
    for values, wanted in (
        (result.graph.input, inputs),
        (result.graph.output, list(original.graph.output)),
    ):
        if [_kind(value) for value in values] != [_kind(value) for value in wanted]:
            raise GraphError(
                f"inputs or outputs became {[v.name for v in values]}, expected "
                f"{[v.name for v in wanted]} of the same types."
            )
        del values[:]
        values.extend(wanted)  # with their own names for free dimensions
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


def _tell_folding(before: onnx.ModelProto, after: onnx.ModelProto, changes: list[str]) -> None:
    counts = [
        Counter(node.op_type for node in foreign_file.all_nodes(model.graph))
        for model in (before, after)
    ]
    for what, rows in (("folded", counts[0] - counts[1]), ("new", counts[1] - counts[0])):
        if rows:
            told = ", ".join(f"{count} {name}" for name, count in sorted(rows.items()))
            changes.append(f"{what}: {told}")


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


# --- looking --------------------------------------------------------------------------------


def _weighted(graph: Graph) -> list[onnx.NodeProto]:
    return [
        node
        for node in graph.nodes
        if node.op_type in onnx_file.WEIGHTED and node.input[1] in graph.constants
    ]


def _gates(graph: Graph) -> dict[str, str]:
    """Products one factor of which comes in float, as in x * HardSigmoid(x): rounding it for the
    sake of the product costs more than the product (MobileNetV3-small: 0.73 times the speed of
    FP32 with, 0.79 without, on a CPU with VNNI)."""
    found, ends = {}, outside(graph)
    for node in graph.nodes:
        if node.op_type != "Mul" or node.name in ends:
            continue
        makers = [graph.producer(name) for name in node.input]
        floats = [m.op_type for m in makers if m and m.op_type not in QUANTIZED_OPERATORS]
        if floats:
            found[node.name] = f"one of its factors comes from {floats[0]}, which is float"
    return found


def _captured(graph: onnx.GraphProto) -> frozenset[str]:
    """Tensors of the main graph that subgraphs read without listing them as inputs."""
    found: set[str] = set()
    for node in graph.node:
        for inner in foreign_file.subgraphs(node):
            found.update(name for n in foreign_file.all_nodes(inner) for name in n.input if name)
            found.update(value.name for value in inner.output)
    return frozenset(found)


def _grouped(graph: Graph, kept: dict[str, str]) -> list[LeftInFloat]:
    """One row for each layer with weights, and one for all other nodes of a kind and reason."""
    rows = []
    others: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], str] = {}
    for name, reason in kept.items():
        node = graph.node(name)
        operator = node.op_type if node is not None else ""
        if operator in onnx_file.WEIGHTED:
            rows.append(LeftInFloat(_told(node, name), reason))
        else:
            others[operator, reason] += 1
            last[operator, reason] = _told(node, name)
    for key, count in others.items():
        what = last[key] if count == 1 else f"{key[0]} ({count} nodes)"
        rows.append(LeftInFloat(what, key[1]))
    return rows


def _told(node: onnx.NodeProto | None, name: str) -> str:
    return name if node is None or node.op_type in name else f"{node.op_type} {name}"


def _counted(operators: Iterable[str]) -> str:
    counts = Counter(operators)
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
