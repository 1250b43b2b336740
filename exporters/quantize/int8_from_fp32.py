"""``fp32.onnx`` -> one static INT8 variant in QDQ form, by ``onnxruntime.quantization``, and the
proof that everything that was asked for stands in the result. Knows nothing of which variant is
best, nor whether one is accurate enough."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx_ir.passes.common import TopologicalSortPass
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from exporters.errors import GraphError, QuantizeError
from exporters.graph import onnx_file
from exporters.graph.silenced import quiet
from exporters.graph.temporary_names import Names
from exporters.graph.walk import (
    QUANTIZED_OPERATORS,
    Graph,
    QuantizedWeight,
    outside,
    quantized_weights,
)
from exporters.options import Int8Options
from exporters.quantize import calibration
from exporters.quantize.activation_ranges import ActivationStatistics, Ranges
from exporters.quantize.bias_correction import with_corrected_biases
from exporters.quantize.float_layers import keep_float, verify_running
from exporters.quantize.quantizable import plain_gemms, with_own_constants, with_types
from runtime.spec import ModelSpec

_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
_LARGEST = {True: 64, False: 128}  # |quantized weight - zero point|, with and without reduce_range
# tells the quantizer that types are there already, or it would infer them by ONNX alone
_INFERRED = {"onnx.infer": "onnxruntime.quant"}


def int8_from_fp32(
    model: onnx.ModelProto,
    spec: ModelSpec,
    options: Int8Options,
    images: NDArray[np.uint8],
    *,
    calibration_images: int = 512,
    seed: int = 0,
) -> onnx.ModelProto:
    """Quantize a model that :func:`onnx_from_torch.onnx_from_torch` made.

    ``images`` [n, h, w, c] is the train split (memory-mapped is best), of which
    ``calibration_images`` are drawn by ``seed``.

    Raises QuantizeError as :func:`quantize` does, and when the result does not keep the contract
    of a shipped file.
    """
    chosen = calibration.choose(len(images), calibration_images, seed)
    statistics = ActivationStatistics(model, calibration.ImageReader(images, chosen))
    return shipped(quantize(model, options, statistics), spec, options.id)


def shipped(quantized: onnx.ModelProto, spec: ModelSpec, variant: str) -> onnx.ModelProto:
    """A quantized model as it ships, checked and opened; raises QuantizeError."""
    result = onnx_file.finished(quantized, spec)
    try:
        onnx_file.check_model(result, spec)
        onnx_file.session(result)
    except GraphError as exc:
        raise QuantizeError(f"variant {variant!r} is no valid model: {exc}") from exc
    return result


def quantize(
    model: onnx.ModelProto, options: Int8Options, statistics: ActivationStatistics
) -> onnx.ModelProto:
    """Quantize any float model whose nodes have names and whose weights are initializers.

    ``statistics`` are of the very same model. The quantized part reaches from the first to the
    last operator with weights: normalisation before and softmax or sigmoid behind stay float, and
    so do the logits (the last Gemm puts out float, which costs nothing and leaves one rounding
    less).

    Pixels that the float model dequantizes (see :func:`onnx_from_torch.onnx_from_torch`) are taken
    as they are: the quantizer leaves a tensor alone that comes from a DequantizeLinear.

    Raises QuantizeError when the request contradicts itself, cannot be carried out, or was not
    carried out by the tools (see :func:`verify_int8`).
    """
    graph = Graph(model)
    _refuse_impossible(graph, options)
    quantized = _quantize(model, options, statistics, outside(graph))
    _free_logits(quantized)
    keep_float(quantized)
    if options.bias_correction:
        quantized = with_corrected_biases(model, quantized, statistics.reader)
    verify_int8(model, quantized, options)
    verify_running(quantized, options.id)
    return quantized


def verify_int8(
    original: onnx.ModelProto, quantized: onnx.ModelProto, options: Int8Options
) -> None:
    """Raise QuantizeError naming every request that ``quantized`` does not fulfil.

    Looked at: that there are Q/DQ nodes at all, each operator with weights (quantized, or float
    when excluded), type, zero point, axis and range of its weights, the type of its activations,
    and that every scale is positive and finite. Which method of calibration made the scales
    cannot be seen in a file.
    """
    graph, before = Graph(quantized), Graph(original)
    weights = {weight.node: weight for weight in quantized_weights(graph)}
    problems = [*_missing_pairs(graph), *_bad_scales(graph)]
    for node in before.nodes:
        if node.op_type not in onnx_file.WEIGHTED or node.input[1] not in before.constants:
            continue
        weight = weights.get(node.name)
        if node.name in options.exclude_nodes:
            if weight is not None:
                problems.append(f"{node.name} was to stay float but is quantized")
        elif weight is None:
            problems.append(f"{node.name} is not quantized")
        else:
            problems += _weight_problems(weight, options)
            # pixels that the float model dequantizes stay as they are
            asked = before.activation_type(node.name) or options.activations
            problems += _activation_problems(graph, weight, asked)
    if problems:
        raise QuantizeError(
            f"variant {options.id!r}: the tools did not do what was asked: "
            + "; ".join(problems)
            + ". List a node in exclude_nodes to keep it in float, or change the options."
        )


def not_quantized(
    model: onnx.ModelProto, options: Int8Options, statistics: ActivationStatistics
) -> dict[str, str]:
    """Operators with constant weights that the quantizer leaves in float though nobody asked for
    it: name -> reason. For models of unknown making; raises QuantizeError when it fails."""
    before = Graph(model)
    after = Graph(_quantize(model, options, statistics, outside(before)))
    weights = {weight.node for weight in quantized_weights(after)}
    found = {}
    for node in before.nodes:
        if node.op_type not in onnx_file.WEIGHTED or node.input[1] not in before.constants:
            continue
        if node.name in options.exclude_nodes:
            continue
        if node.name not in weights:
            found[node.name] = "onnxruntime's quantizer leaves its weights in float"
        elif after.activation_type(node.name) is None:
            found[node.name] = "onnxruntime's quantizer leaves its input in float"
    return found


def impossible(
    model: onnx.ModelProto,
    options: Int8Options,
    statistics: ActivationStatistics,
    finish: Callable[[onnx.ModelProto, str], onnx.ModelProto],
) -> dict[str, str]:
    """Nodes without which this variant can be made, and with which it cannot: name -> reason. Most
    models have none, and are tried once; else halves of the nodes are tried until each that
    fails stands alone.

    Raises QuantizeError when not even the model without a single 8-bit node can be finished.
    """
    graph = Graph(model)
    ends = outside(graph)
    names = [
        node.name
        for node in graph.nodes
        if node.op_type in QUANTIZED_OPERATORS
        and node.name not in ends
        and node.name not in options.exclude_nodes
    ]

    def failure(kept: Collection[str]) -> str:
        """Why it fails with these in float; "" where it does not."""
        asked = replace(options, exclude_nodes=(*options.exclude_nodes, *kept))
        try:
            finish(_quantize(model, asked, statistics, ends), options.id)
        except QuantizeError as exc:
            return str(exc)
        return ""

    if not failure(()):
        return {}
    if reason := failure(names):
        raise QuantizeError(reason)
    found: dict[str, str] = {}
    fine: set[str] = set()
    groups = [names]
    while groups:
        group = groups.pop()
        reason = failure([name for name in names if name not in fine and name not in group])
        if not reason:
            fine.update(group)
        elif len(group) == 1:
            found[group[0]] = f"onnxruntime's quantizer cannot do it: {_shortened(reason)}"
        else:
            middle = len(group) // 2
            groups += [group[middle:], group[:middle]]
    return found


def _shortened(text: str) -> str:
    """One line of at most 200 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:197]}..."


def _refuse_impossible(graph: Graph, options: Int8Options) -> None:
    if options.impossible is not None:
        raise QuantizeError(f"{options.impossible}.")
    weighted = [n.name for n in graph.nodes if n.op_type in onnx_file.WEIGHTED]
    unknown = sorted(set(options.exclude_nodes) - {n.name for n in graph.nodes})
    if unknown:
        raise QuantizeError(
            f"variant {options.id!r}: exclude_nodes has {unknown}, which the model has not; its "
            f"operators with weights are {weighted}."
        )
    if set(weighted) <= set(options.exclude_nodes):
        raise QuantizeError(
            f"variant {options.id!r}: nothing is left to quantize; expected a Conv, Gemm or MatMul "
            f"that is not excluded, and the model has {weighted}."
        )
    used = {
        name
        for n in graph.nodes
        if n.op_type in onnx_file.WEIGHTED and n.name not in options.exclude_nodes
        for name in n.input[1:]
    }
    broken = [
        name
        for name, tensor in graph.constants.items()
        if name in used
        and tensor.data_type == onnx.TensorProto.FLOAT
        and not np.isfinite(numpy_helper.to_array(tensor)).all()
    ]
    if broken:
        raise QuantizeError(f"weights {broken} are not finite; was the network trained to the end?")


def _quantize(
    model: onnx.ModelProto,
    options: Int8Options,
    statistics: ActivationStatistics,
    float_nodes: Iterable[str],
) -> onnx.ModelProto:
    ranges = statistics.ranges(options.calibration, options.percentile)
    rangeless = statistics.floats - set(ranges)
    kept = frozenset(
        (*options.exclude_nodes, *float_nodes, *_not_for_the_quantizer(model, rangeless))
    )
    try:
        prepared = with_types(with_own_constants(model, kept), statistics.types)
        plain_gemms(prepared)
        names = Names.of(prepared)
        with quiet():
            result = _by_onnxruntime(names.apply(prepared), options, names, ranges, kept)
        names.restore(result)
    except Exception as exc:  # the quantizer raises whatever its helpers raise
        raise QuantizeError(
            f"variant {options.id!r}: onnxruntime.quantization failed: {type(exc).__name__}: {exc}"
        ) from exc
    return result


def _by_onnxruntime(
    model: onnx.ModelProto,
    options: Int8Options,
    names: Names,
    ranges: Ranges,
    kept: Collection[str],
) -> onnx.ModelProto:
    """``model`` has the names meanwhile, everything else its own."""
    onnx.helper.set_model_props(model, _INFERRED)
    graph = Graph(model)
    found = {
        names.tensors[tensor]: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for tensor, (low, high) in ranges.items()
        if tensor in names.tensors
    }
    # per channel the quantizer takes axis 1, which in a stack of matrices is not a channel
    matrices = {
        str(node.input[1])
        for node in graph.nodes
        if node.op_type == "MatMul"
        and node.input[1] in graph.constants
        and len(graph.constants[node.input[1]].dims) != 2
    }
    quantizer = QDQQuantizer(
        model,
        options.per_channel,
        options.reduce_range,
        _TYPES[options.weights],
        _TYPES[options.activations],
        TensorsData(CalibrationMethod.MinMax, found),
        [],
        sorted(names.nodes[name] for name in kept if name in names.nodes),
        list(QUANTIZED_OPERATORS),
        {"TensorQuantOverrides": {name: [{}] for name in sorted(matrices)}},
    )
    quantizer.quantize_model()
    # its own sorting does not see what subgraphs read
    ordered = TopologicalSortPass()(ir.from_proto(quantizer.model.model))
    result: onnx.ModelProto = ir.to_proto(ordered.model)
    return result


def _not_for_the_quantizer(model: onnx.ModelProto, rangeless: Collection[str]) -> frozenset[str]:
    """Nodes that it would take for what they are not: operators of other domains that share a name
    with ONNX's; those with a tensor that has no range, since its values are no numbers; and those
    behind a DequantizeLinear of the model's own, which has no scale to hand on."""
    graph = Graph(model)
    return frozenset(
        node.name
        for node in graph.nodes
        if node.op_type in QUANTIZED_OPERATORS
        and (
            node.domain
            or any(name in rangeless for name in (*node.input, *node.output))
            or (
                node.op_type not in onnx_file.WEIGHTED
                and (maker := graph.producer(node.input[0])) is not None
                and maker.op_type == "DequantizeLinear"
            )
        )
    )


def _free_logits(model: onnx.ModelProto) -> None:
    """Take away the Q/DQ pair behind the last Gemm or MatMul, in place.

    Its 32-bit sums then become float logits directly (onnxruntime fuses the node into QGemm or
    MatMulIntegerToFloat with a float output) instead of being rounded to 8 bits first.
    """
    graph = Graph(model)
    for dequantize in list(graph.nodes):
        quantize = graph.producer(dequantize.input[0])
        if dequantize.op_type != "DequantizeLinear" or quantize is None:
            continue
        source = graph.producer(quantize.input[0])
        reached = graph.reached(dequantize.output[0])
        if (
            source is not None
            and source.op_type in ("Gemm", "MatMul")
            and not any(n.op_type in (*onnx_file.WEIGHTED, "QuantizeLinear") for n in reached)
        ):
            _bridge(model, graph, source, quantize, dequantize)


def _bridge(
    model: onnx.ModelProto,
    graph: Graph,
    source: onnx.NodeProto,
    quantize: onnx.NodeProto,
    dequantize: onnx.NodeProto,
) -> None:
    """Remove the pair, so that what read its end reads its source. The tensor keeps the name that
    it had before quantization: an output of the model is the end of a pair."""
    old, new = quantize.input[0], dequantize.output[0]
    if new not in graph.outputs:
        old, new = new, old
    for node in graph.consumers(old):
        for position, name in enumerate(node.input):
            if name == old:
                node.input[position] = new
    for position, name in enumerate(source.output):
        if name == old:
            source.output[position] = new
    model.graph.node.remove(dequantize)
    model.graph.node.remove(quantize)


def _missing_pairs(graph: Graph) -> list[str]:
    counts = {
        kind: sum(n.op_type == kind for n in graph.nodes)
        for kind in ("QuantizeLinear", "DequantizeLinear")
    }
    return [f"it has no {kind} node" for kind, count in counts.items() if not count]


def _bad_scales(graph: Graph) -> list[str]:
    problems = []
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = graph.array(node.input[1])
            if scale is None or not (np.isfinite(scale).all() and (scale > 0).all()):
                problems.append(f"the scale of {node.name} is not a positive constant")
    return problems


def _weight_problems(weight: QuantizedWeight, options: Int8Options) -> list[str]:
    values, zero = weight.values, weight.zero_point
    problems = []
    if values.dtype.name != options.weights:
        problems.append(f"{weight.node} has {values.dtype.name} weights, not {options.weights}")
        return problems
    center = 0 if options.weights == "int8" else None
    if center is not None and zero.any():
        problems.append(f"{weight.node} has weight zero points other than 0")
    largest = int(np.abs(weight.centered).max(initial=0))
    if options.weights == "int8" and largest > _LARGEST[options.reduce_range]:
        problems.append(f"{weight.node} has weights up to {largest}, reduce_range allows 64")
    if options.weights == "uint8" and options.reduce_range and int(values.max(initial=0)) > 127:
        problems.append(f"{weight.node} has weights up to {values.max()}, reduce_range allows 127")
    if options.per_channel and not (weight.operator == "MatMul" and values.ndim != 2):
        if weight.scale.ndim != 1 or len(weight.scale) != values.shape[weight.channel_axis]:
            problems.append(f"{weight.node} is not quantized per channel")
        elif weight.axis != weight.channel_axis:
            problems.append(
                f"{weight.node} has its scales on axis {weight.axis}, not {weight.channel_axis}"
            )
    elif weight.scale.size != 1:
        problems.append(f"{weight.node} is quantized per channel, not per tensor")
    return problems


def _activation_problems(graph: Graph, weight: QuantizedWeight, asked: str) -> list[str]:
    found = graph.activation_type(weight.node)
    if found is None:
        return [f"the activations of {weight.node} are not quantized"]
    if found != asked:
        return [f"the activations of {weight.node} are {found}, not {asked}"]
    return []
