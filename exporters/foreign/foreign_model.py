"""An ONNX model of unknown making -> the same model in the form that the search needs, and back
into a file that replaces the original one.

    opset at least 13   per-channel QDQ does not exist before
    constants folded    weights that Constant nodes or reshapes make become initializers
    biases made plain   one number for each output, as the quantizer takes it; else a sum
    BatchNorm folded    into the convolution before it; identity and dropout are gone
    nodes named         so that layers can be told apart

The folding is onnxruntime's own of its basic level, which is the same on every kind of CPU; what
it makes is proven equal on data by :func:`difference`. Knows neither data sets nor which variant
pays."""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
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
    TopologicalSortPass,
)

from exporters.errors import GraphError, QuantizeError
from exporters.foreign.model_inputs import InputSpec, input_of
from exporters.graph import foreign_file, onnx_file, opset_conversion
from exporters.graph.silenced import quiet
from exporters.graph.walk import QUANTIZED_OPERATORS, Graph, outside
from exporters.options import Int8Options
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.quantize.int8_from_fp32 import impossible, not_quantized
from exporters.quantize.quantizable import plain_gemms, split_biases, unfuse

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
    # of a batch that is free in name only, and 1 in ``original`` and ``model``: that name
    named_batch: str | None = None

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

    def as_given(self, finished: bytes) -> bytes:
        """A finished file with the batch that the original's inputs and outputs name; see
        :func:`one_at_a_time`."""
        if self.named_batch is None:
            return finished
        result = onnx_file.from_bytes(finished)
        _set_batch(result, self.input.name, self.named_batch)
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
    _tell_folding(original, model, changes)
    _name_nodes(model, changes)
    if plain := plain_gemms(model) + split_biases(model):
        changes.append(f"{plain} biases or factors made plain")
        model = _tidy(model, original)
    graph = Graph(model)
    if not _weighted(graph):
        raise GraphError(
            f"{path} has no Conv, ConvTranspose, Gemm or MatMul with constant weights (its "
            f"operators: {_counted(_full(node) for node in graph.nodes)}); there is nothing to "
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


def one_at_a_time(foreign: ForeignModel, pair: NDArray[Any]) -> ForeignModel:
    """The model with a batch of 1 where its batch is free in name only: a Reshape inside says 1,
    say, and two images ``pair`` [2, ...] together are refused or get other answers than one by
    one. Raises GraphError when even a single image is refused."""
    if foreign.input.batch is not None or len(pair) < 2:
        return foreign
    session = onnx_file.session(foreign.original)

    def answers(images: NDArray[Any]) -> list[NDArray[Any]]:
        return onnx_file.run_by_image(session, foreign.outputs, {foreign.input.name: images})

    single = (answers(pair[:1]), answers(pair[1:2]))
    alone = [onnx_file.joined(parts) for parts in zip(*single, strict=True)]
    try:
        together = answers(pair[:2])
    except GraphError as exc:
        reason = _node_of(str(exc))
    else:
        if all(_distance(a, b) <= SAME for a, b in zip(alone, together, strict=True)):
            return foreign
        if any(a.ndim < 1 or len(a) != 2 for a in alone):
            return foreign  # results whose number depends on the image
        reason = "two images together get other answers than one by one"
    name = _batch_name(foreign)
    original, model = onnx_file.from_bytes(foreign.original), onnx.ModelProto()
    model.CopyFrom(foreign.model)
    for part in (original, model):
        _set_batch(part, foreign.input.name, 1)
    return replace(
        foreign,
        original=onnx_file.to_bytes(original),
        model=model,
        input=replace(foreign.input, shape=(1, *foreign.input.shape[1:])),
        changes=(
            *foreign.changes,
            f"one image at a time: its batch {name!r} is free in name only ({reason})",
        ),
        named_batch=name,
    )


def _batch_name(foreign: ForeignModel) -> str:
    graph = onnx_file.from_bytes(foreign.original).graph
    (value,) = [value for value in graph.input if value.name == foreign.input.name]
    return str(value.type.tensor_type.shape.dim[0].dim_param)


def _set_batch(model: onnx.ModelProto, name: str, batch: int | str) -> None:
    """Set the first size of the input ``name``, in place; outputs keep what they say."""
    for value in model.graph.input:
        if value.name == name:
            size = value.type.tensor_type.shape.dim[0]
            size.Clear()
            if isinstance(batch, int):
                size.dim_value = batch
            elif batch:
                size.dim_param = batch


def _node_of(error: str) -> str:
    """Which node refuses, from onnxruntime's words."""
    found = re.search(r"while running (\S+) node\. Name:'([^']*)'", error)
    return f"{found[1]} {found[2]!r} refuses two" if found else "two images together are refused"


def difference(foreign: ForeignModel, images: NDArray[Any]) -> float:
    """The largest difference between the outputs of the original and the prepared model, as a
    share of the largest value of that output; raises GraphError when it exceeds ``SAME``. Equal
    infinities and values that are no numbers on both sides differ by nothing."""
    feed = {foreign.input.name: images}
    before, after = (
        onnx_file.run_by_image(onnx_file.session(model), foreign.outputs, feed)
        for model in (foreign.original, foreign.model)
    )
    worst = 0.0
    for name, was, now in zip(foreign.outputs, before, after, strict=True):
        found = _distance(was, now)
        if found > SAME:
            what = "; ".join(foreign.changes) or "nothing was changed in the file itself"
            raise GraphError(
                f"the model changed while it was prepared ({what}): output {name!r} "
                f"{_told_distance(was, now, found)}. "
                + (
                    f"Export it again with opset {opset_conversion.MIN_OPSET} or later."
                    if any(change.startswith("opset raised") for change in foreign.changes)
                    else "Please report the file."
                )
            )
        worst = max(worst, found)
    return worst


def _distance(was: NDArray[Any], now: NDArray[Any]) -> float:
    """The largest difference as a share of the largest value; infinite for other shapes, and where
    only one side is a number."""
    if was.shape != now.shape:
        return math.inf
    numbers = np.isfinite(was) & np.isfinite(now)
    if not ((was == now) | (np.isnan(was) & np.isnan(now)))[~numbers].all():
        return math.inf
    clean, found = was[numbers].astype(np.float64), now[numbers].astype(np.float64)
    largest = float(np.abs(clean).max(initial=0.0)) or 1.0
    return float(np.abs(clean - found).max(initial=0.0)) / largest


def _told_distance(was: NDArray[Any], now: NDArray[Any], found: float) -> str:
    if math.isfinite(found):
        return f"differs by {found:.3g} of its largest value, allowed {SAME:g}"
    if was.shape != now.shape:
        return f"is {list(now.shape)} and was {list(was.shape)}"
    same = (was == now) | (np.isnan(was) & np.isnan(now))
    place = tuple(np.argwhere(~same & ~(np.isfinite(was) & np.isfinite(now)))[0])
    return f"at {[int(i) for i in place]} is {now[place]:g} and was {was[place]:g}"


def kept_in_float(foreign: ForeignModel, statistics: ActivationStatistics) -> dict[str, str]:
    """Nodes that could be asked to compute in 8 bits, but stay float in every variant: name ->
    reason. ``statistics`` of a few images are enough.

    What the quantizer cannot do at all is found by trying, and left out; raises QuantizeError
    where nothing is left.
    """
    graph = Graph(foreign.model)
    captured = _captured(foreign.model.graph)
    found = {
        node.name: "a subgraph (If, Loop) reads its result, which therefore stays float"
        for node in graph.nodes
        if captured & set(node.output)
    }
    rules = (_gates(graph), _not_ours(graph), _without_range(graph, statistics))
    for rows in rules:
        found |= {name: reason for name, reason in rows.items() if name not in found}
    options = Int8Options(exclude_nodes=tuple(found))
    found |= impossible(foreign.model, options, statistics, foreign.finish)
    options = Int8Options(exclude_nodes=tuple(found))
    return found | not_quantized(foreign.model, options, statistics)


def _not_ours(graph: Graph) -> dict[str, str]:
    """Operators that look like those that the quantizer knows and are others."""
    found = {}
    for node in graph.nodes:
        weights = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type not in QUANTIZED_OPERATORS:
            continue
        if node.domain:
            found[node.name] = f"onnxruntime's quantizer does not know {node.domain}"
        elif node.op_type not in onnx_file.WEIGHTED:
            continue
        elif weights is None:
            if node.op_type != "MatMul":
                found[node.name] = "its weights are computed"
            elif node.input[0] in graph.constants:
                found[node.name] = "its first factor is the constant one"
        elif weights.data_type != onnx.TensorProto.FLOAT:
            kind = onnx.TensorProto.DataType.Name(weights.data_type).lower()
            found[node.name] = f"its weights are {kind}, not float32"
        elif len(weights.dims) < 2:
            found[node.name] = "its weights are a single vector"
        elif 0 in weights.dims:
            found[node.name] = "its weights are empty"
        elif not all(np.isfinite(_values(graph, name)).all() for name in node.input[1:]):
            found[node.name] = "its weights hold values that are no numbers (inf, nan)"
    return found


def _values(graph: Graph, name: str) -> NDArray[Any]:
    """Of a constant; nothing where it is computed or left out."""
    found = graph.array(name) if name else None
    return np.zeros(0) if found is None else found


def _without_range(graph: Graph, statistics: ActivationStatistics) -> dict[str, str]:
    """Operators on tensors that hold values which are no numbers."""
    without = statistics.floats - set(statistics.ranges("minmax"))
    ends = outside(graph)
    return {
        node.name: "what it reads or makes holds values that are no numbers (inf, nan)"
        for node in graph.nodes
        if node.op_type in QUANTIZED_OPERATORS
        and node.name not in ends
        and without & {*node.input, *node.output}
    }


def left_in_float(foreign: ForeignModel, kept: dict[str, str]) -> tuple[LeftInFloat, ...]:
    """Everything between the first and the last layer with weights that stays float, and why."""
    graph = Graph(foreign.model)
    rows = _grouped(graph, kept)
    for node in graph.nodes:
        if (
            node.op_type in onnx_file.WEIGHTED
            and node.input[1] not in graph.constants
            and node.name not in kept
        ):
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
        _full(node)
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


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="edgeproof-fold-") as folder, quiet():
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        options.log_severity_level = 4
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
        if node.op_type in onnx_file.WEIGHTED
        and not node.domain
        and node.input[1] in graph.constants
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


def _full(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}".lstrip(".")


def _counted(operators: Iterable[str]) -> str:
    counts = Counter(operators)
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
