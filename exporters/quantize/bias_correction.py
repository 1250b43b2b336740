"""Rounded weights shift the mean of what a layer puts out; biases can take the shift back.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
2019, section 4.2, in its empirical form: layer by layer, the mean difference of each output
channel between the float and the quantized model goes into the bias, before the next layer is
looked at."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from exporters.graph import onnx_file
from exporters.graph.walk import Graph
from exporters.quantize.calibration import ImageReader

# A mean needs fewer images than a range: one of 64 lies within an eighth of a deviation.
IMAGES = 64


def with_corrected_biases(
    original: onnx.ModelProto, quantized: onnx.ModelProto, reader: ImageReader
) -> onnx.ModelProto:
    """A copy of ``quantized`` with corrected 32-bit biases; nothing else changes.

    ``reader`` gives images of the train split, of which the first ``IMAGES`` are used. A layer
    without a bias stays as it is. The quantized model runs without graph optimisation, so that
    every layer's output can be seen; the arithmetic of Q and DQ is the same.
    """
    result = onnx.ModelProto()
    result.CopyFrom(quantized)
    before, after = Graph(original), Graph(result)
    nodes = [node for node in after.nodes if _bias_tensor(after, node) is not None]
    if not nodes:
        return result
    wanted = _means(original, [before.node(node.name) for node in nodes], reader)
    for node in nodes:
        found = _means(result, [node], reader)[node.name]
        _add(after, node, wanted[node.name] - found)
    return result


def _bias_tensor(graph: Graph, node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The int32 bias of an operator with 8-bit weights."""
    if node.op_type not in onnx_file.WEIGHTED or len(node.input) < 3 or not node.input[2]:
        return None
    dequantize = graph.producer(node.input[2])
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    tensor = graph.constants.get(dequantize.input[0])
    return tensor if tensor is not None and tensor.data_type == onnx.TensorProto.INT32 else None


def _means(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto | None], reader: ImageReader
) -> dict[str, NDArray[np.float64]]:
    """The mean output [channels] of each node over the images, by the node's name."""
    there = [node for node in nodes if node is not None]
    seen = onnx_file.with_outputs(model, [node.output[0] for node in there])
    session = onnx_file.session(seen, optimised=False)
    only_these = ort.RunOptions()
    only_these.only_execute_path_to_fetches = True  # nothing behind the last of them
    sums: dict[str, NDArray[np.float64]] = {}
    rows: dict[str, int] = {}  # of a matrix with a row for each place, more than images
    for piece in reader.first(IMAGES).pieces():
        feed = piece.get_next()
        assert feed is not None  # a piece has images
        for node, values in zip(
            there,
            onnx_file.run_feed(session, [n.output[0] for n in there], feed, only_these),
            strict=True,
        ):
            axis = _output_axis(node, values.ndim)
            others = tuple(i for i in range(values.ndim) if i not in (0, axis))
            total = values.astype(np.float64).mean(axis=others).sum(axis=0)
            sums[node.name] = sums.get(node.name, 0.0) + total
            rows[node.name] = rows.get(node.name, 0) + len(values)
    return {name: total / rows[name] for name, total in sums.items()}


def _output_axis(node: onnx.NodeProto, rank: int) -> int:
    """Where the channels are in an operator's output: second for Conv, last for matrices."""
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
