"""``fp32.onnx`` -> the FP16 variant, by ``onnxruntime.transformers``. Independent of whether half
precision is faster or accurate enough anywhere."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.onnx_model import OnnxModel

from exporters.errors import QuantizeError
from exporters.graph import onnx_file
from exporters.graph.silenced import quiet
from exporters.graph.walk import Graph, outside
from exporters.quantize.int8_from_fp32 import shipped
from runtime.spec import ModelSpec

_LARGEST = float(np.finfo(np.float16).max)


def fp16_from_fp32(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """Halve a model that :func:`onnx_from_torch.onnx_from_torch` made.

    Pixels stay uint8 and probabilities float32; normalization before the first and the softmax
    or sigmoid after the last operator with weights compute in float32. CPU runtimes without
    half-precision kernels compute in float32 too, with halved weights.

    Raises QuantizeError when a weight does not fit into half precision, when the converter left
    a weight in float32, or when the result does not load.
    """
    kept = outside(Graph(model))
    _refuse_overflow(model, kept)
    wrapped = OnnxModel(onnx_file.copied(model))
    with quiet():
        try:
            wrapped.convert_float_to_float16(
                keep_io_types=True,
                node_block_list=sorted(kept),
                op_block_list=[],
                use_symbolic_shape_infer=False,
            )
            # between two nodes kept in float32 the converter goes to float16 and back
            wrapped.remove_cascaded_cast_nodes()
            wrapped.remove_useless_cast_nodes()
            wrapped.topological_sort()
        except Exception as exc:  # the converter raises whatever its helpers raise
            raise QuantizeError(f"the FP16 converter failed: {type(exc).__name__}: {exc}") from exc
    result = shipped(wrapped.model, spec, "fp16")
    verify_fp16(result)
    return result


def verify_fp16(model: onnx.ModelProto) -> None:
    """Raise QuantizeError unless every Conv, Gemm and MatMul has finite float16 weights."""
    graph = Graph(model)
    problems = []
    for node in graph.layers():
        for name in node.input[1:]:
            tensor = graph.constants.get(name)
            if tensor is None:
                continue
            if tensor.data_type != TensorProto.FLOAT16:
                kind = TensorProto.DataType.Name(tensor.data_type)
                problems.append(f"{node.name} has {kind} weights")
            elif not np.isfinite(numpy_helper.to_array(tensor)).all():
                problems.append(f"{node.name} has weights that are not finite")
    if problems:
        raise QuantizeError(
            "the FP16 variant is not what was asked for: " + "; ".join(problems) + "; expected "
            "FLOAT16 everywhere."
        )


def _refuse_overflow(model: onnx.ModelProto, kept: Collection[str]) -> None:
    """Refuse values that are too large, which the converter would clip silently."""
    graph = Graph(model)
    for node in graph.nodes:
        for name in () if node.name in kept else node.input:
            tensor = graph.constants.get(name)
            if tensor is None or tensor.data_type != TensorProto.FLOAT:
                continue
            largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
            if not largest <= _LARGEST:
                raise QuantizeError(
                    f"{name} has values up to {largest:g}; half precision ends at {_LARGEST:g}. "
                    "Switch the FP16 variant off with quantize.fp16 = false."
                )
