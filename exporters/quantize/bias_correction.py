"""Bias correction: rounded weights shift the mean output of a layer, and its bias takes the shift
back.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
2019, section 4.2, in its empirical form: layer by layer, the mean difference of each output
channel between the float and the quantized model is added to the bias, before the next layer is
measured."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from exporters.graph import onnx_file
from exporters.graph.walk import Graph
from exporters.quantize.calibration import ImageReader

# A mean needs fewer images than a range: one of 64 is within an eighth of a deviation.
IMAGES = 64


def with_corrected_biases(
    original: onnx.ModelProto, quantized: onnx.ModelProto, reader: ImageReader
) -> onnx.ModelProto:
    """Return a copy of ``quantized`` with corrected 32-bit biases; nothing else changes.

    ``reader`` gives images of the train split, of which ``IMAGES`` are used, evenly spread. A layer
    without a bias stays as it is. The quantized model runs without graph optimization, so that
    every layer's output is visible; the arithmetic of Q and DQ is the same.
    """
    result = onnx_file.copied(quantized)
    before, after = Graph(original), Graph(result)
    nodes = [node for node in after.nodes if _bias_tensor(after, node) is not None]
    if not nodes:
        return result
    expected = _means(original, [before.node(node.name) for node in nodes], reader)
    for node in nodes:
        actual = _means(result, [node], reader)[node.name]
        _add(after, node, expected[node.name] - actual)
    return result


def _bias_tensor(graph: Graph, node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the int32 bias of an operator with 8-bit weights."""
    if node.op_type not in onnx_file.WEIGHTED or len(node.input) < 3 or not node.input[2]:
        return None
    dequantize = graph.dequantizer(node.input[2])
    if dequantize is None:
        return None
    tensor = graph.constants.get(dequantize.input[0])
    return tensor if tensor is not None and tensor.data_type == onnx.TensorProto.INT32 else None


def _means(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto | None], reader: ImageReader
) -> dict[str, NDArray[np.float64]]:
    """Return the mean output [channels] of each node over the images, by the node's name."""
    present = [node for node in nodes if node is not None]
    outputs = [node.output[0] for node in present]
    session = onnx_file.session(onnx_file.with_inner_outputs(model, outputs), optimized=False)
    sums: dict[str, NDArray[np.float64]] = {}
    rows: dict[str, int] = {}  # a matrix with a row for each position has more than images
    for feed in reader.first(IMAGES).batches():
        tensors = onnx_file.run_feed(session, outputs, feed, onnx_file.to_fetches())
        for node, values in zip(present, tensors, strict=True):
            axis = _output_axis(node, values.ndim)
            others = tuple(i for i in range(values.ndim) if i not in (0, axis))
            total = values.astype(np.float64).mean(axis=others).sum(axis=0)
            sums[node.name] = sums.get(node.name, 0.0) + total
            rows[node.name] = rows.get(node.name, 0) + len(values)
    return {name: total / rows[name] for name, total in sums.items()}


def _output_axis(node: onnx.NodeProto, rank: int) -> int:
    """Return the channel axis of an operator's output: 1 for Conv, the last for matrices."""
    return 1 if node.op_type in ("Conv", "ConvTranspose") else rank - 1


def _add(graph: Graph, node: onnx.NodeProto, shift: NDArray[np.float64]) -> None:
    """Add ``shift`` [channels], in real numbers, to the stored integers, in place."""
    dequantize = graph.producer(node.input[2])
    tensor = _bias_tensor(graph, node)
    assert dequantize is not None and tensor is not None  # _bias_tensor found both before
    scale = graph.array(dequantize.input[1])
    assert scale is not None
    steps = np.rint(shift / scale.astype(np.float64)).astype(np.int64)
    values = numpy_helper.to_array(tensor).astype(np.int64) + steps
    limit = np.iinfo(np.int32)
    clipped = np.clip(values, limit.min, limit.max).astype(np.int32)
    tensor.CopyFrom(numpy_helper.from_array(clipped, tensor.name))
