"""onnxruntime's QDQ quantizer, run on a model of any making: its weights, names and types are put
into the form that it understands, and its result is put back. Verifies nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import TopologicalSortPass
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from exporters.errors import QuantizeError
from exporters.graph import onnx_file
from exporters.graph.quantized import QUANTIZED_OPERATORS
from exporters.graph.silenced import quiet
from exporters.graph.temporary_names import TemporaryNames
from exporters.graph.walk import Graph
from exporters.options import Int8Options
from exporters.quantize.activation_ranges import ActivationStatistics, Ranges
from exporters.quantize.quantizable import plain_gemms, with_own_constants, with_types

TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
# a note to the quantizer that types are declared: it would infer them by ONNX alone
_INFERRED = {"onnx.infer": "onnxruntime.quant"}


def run_quantizer(
    model: onnx.ModelProto,
    options: Int8Options,
    statistics: ActivationStatistics,
    float_nodes: Iterable[str],
) -> onnx.ModelProto:
    """Quantize all but ``float_nodes`` and the excluded ones; raises QuantizeError when the tool
    fails."""
    ranges = statistics.ranges(options.calibration, options.percentile)
    rangeless = statistics.floats - set(ranges)
    kept = frozenset((*options.exclude_nodes, *float_nodes, *_misread(model, rangeless)))
    try:
        prepared = with_types(with_own_constants(model, kept), statistics.types)
        plain_gemms(prepared)
        names = TemporaryNames.of(prepared)
        with quiet():
            result = _quantized(names.apply(prepared), options, names, ranges, kept)
        names.restore(result)
    except Exception as exc:  # the quantizer raises whatever its helpers raise
        raise QuantizeError(
            f"variant {options.id!r}: onnxruntime.quantization failed: {type(exc).__name__}: {exc}"
        ) from exc
    return result


def _quantized(
    model: onnx.ModelProto,
    options: Int8Options,
    names: TemporaryNames,
    ranges: Ranges,
    kept: Collection[str],
) -> onnx.ModelProto:
    """``model`` has the temporary names; ``ranges`` and ``kept`` have the model's own."""
    onnx.helper.set_model_props(model, _INFERRED)
    graph = Graph(model)
    ends = {
        names.tensors[tensor]: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for tensor, (low, high) in ranges.items()
        if tensor in names.tensors
    }
    # per channel the quantizer takes axis 1, which in a stack of matrices is not a channel
    stacks = {
        str(node.input[1])
        for node in graph.constant_layers()
        if node.op_type == "MatMul" and len(graph.constants[node.input[1]].dims) != 2
    }
    quantizer = QDQQuantizer(
        model,
        options.per_channel,
        options.reduce_range,
        TYPES[options.weights],
        TYPES[options.activations],
        TensorsData(CalibrationMethod.MinMax, ends),
        [],
        sorted(names.nodes[name] for name in kept if name in names.nodes),
        list(QUANTIZED_OPERATORS),
        {"TensorQuantOverrides": {name: [{}] for name in sorted(stacks)}},
    )
    quantizer.quantize_model()
    # its own sorting does not see what subgraphs read
    ordered = TopologicalSortPass()(ir.from_proto(quantizer.model.model))
    result: onnx.ModelProto = ir.to_proto(ordered.model)
    return result


def _misread(model: onnx.ModelProto, rangeless: Collection[str]) -> frozenset[str]:
    """Name the nodes that the quantizer would misread: operators of other domains that share a
    name with ONNX's; those with a tensor that has no range, since its values are not numbers; and
    those after a DequantizeLinear of the model's own, which has no scale to hand on."""
    graph = Graph(model)
    return frozenset(
        node.name
        for node in graph.nodes
        if node.op_type in QUANTIZED_OPERATORS
        and (
            node.domain
            or any(name in rangeless for name in (*node.input, *node.output))
            or (node.op_type not in onnx_file.WEIGHTED and graph.dequantizer(node.input[0]))
        )
    )
