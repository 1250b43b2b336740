"""The layers that cost the accuracy of one INT8 variant, from its inner tensors and weights.
Explains; decides nothing."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.evaluate.signal_to_noise import sqnr_db, weight_sqnr_db
from exporters.graph import onnx_file
from exporters.graph.quantized import QuantizedWeight, quantized_weights
from exporters.graph.walk import Graph
from exporters.quantize.activation_ranges import ActivationStatistics, Histogram
from exporters.quantize.float_layers import is_barrier
from exporters.search.explanation import Clipping, LayerNoise

IMAGES = 32  # for signal-to-noise ratios; every inner tensor of them is in memory
_SHOWN_BINS = 64  # of a histogram in a report


def layer_noise(
    original: onnx.ModelProto, quantized: onnx.ModelProto, feed: dict[str, NDArray[np.generic]]
) -> tuple[LayerNoise, ...]:
    """Measure the signal-to-noise ratio of every operator with weights, on the inputs of ``feed``.

    onnxruntime's quantizer keeps the names of float tensors, also that of an activation which it
    folds into the operator before it, so outputs are compared under the quantized model's names.
    The graphs run without optimization, so that inner tensors exist.
    """
    before, after = Graph(original), Graph(quantized)
    tensors = before.tensors
    nodes = [node for node in after.layers() if node.output[0] in tensors]
    names = [node.output[0] for node in nodes]
    clean, noisy = (onnx_file.inner_values(model, names, feed) for model in (original, quantized))
    weights = {weight.node: weight for weight in quantized_weights(after)}
    rows = []
    for node, name in zip(nodes, names, strict=True):
        values = noisy[name]
        folded = _first_user(after, name)
        if folded is not None and folded.op_type == "QuantizeLinear":
            values = _quantized_values(after, folded, values)
        rows.append(
            LayerNoise(
                node.name,
                node.op_type,
                sqnr_db(clean[name], values),
                _weight_sqnr(before, weights.get(node.name)),
            )
        )
    return tuple(rows)


def _first_user(graph: Graph, tensor: str) -> onnx.NodeProto | None:
    """Return the first reader of ``tensor``, after the node that keeps a float layer float."""
    users = graph.consumers(tensor)
    if users and is_barrier(users[0]):
        return _first_user(graph, users[0].output[0])
    return users[0] if users else None


def clippings(quantized: onnx.ModelProto, statistics: ActivationStatistics) -> tuple[Clipping, ...]:
    """Describe every quantized activation, the one that uses its levels worst first."""
    graph = Graph(quantized)
    rows = []
    for node in graph.nodes:
        histogram = statistics.histograms.get(node.input[0])
        if node.op_type != "QuantizeLinear" or histogram is None:
            continue
        rows.append(_clipping(node.input[0], *_reach(graph, node), histogram))
    return tuple(sorted(rows, key=lambda row: (row.used_levels - row.clipped, row.tensor)))


def _reach(graph: Graph, node: onnx.NodeProto) -> tuple[float, float]:
    """Return the real numbers of a QuantizeLinear's smallest and largest integer."""
    scale, zero = graph.array(node.input[1]), graph.array(node.input[2])
    assert scale is not None and zero is not None  # verified by verify_int8
    ends = np.iinfo(zero.dtype)
    step, offset = float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0])
    return (ends.min - offset) * step, (ends.max - offset) * step


def _quantized_values(
    graph: Graph, node: onnx.NodeProto, values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Round and clip ``values`` as QuantizeLinear and DequantizeLinear do."""
    low, high = _reach(graph, node)
    step = (high - low) / 255
    return np.asarray(np.clip(np.rint(values / step) * step, low, high), np.float32)


def _weight_sqnr(before: Graph, weight: QuantizedWeight | None) -> float:
    if weight is None:
        return 200.0
    node = before.node(weight.node)
    original = None if node is None else before.array(node.input[1])
    if original is None or original.shape != weight.values.shape:
        return 200.0
    return weight_sqnr_db(original, weight.dequantized)


def _clipping(tensor: str, low: float, high: float, histogram: Histogram) -> Clipping:
    step = (high - low) / 255
    inside = histogram.counts.cumsum() / max(histogram.counts.sum(), 1)
    first = histogram.edges[int(np.searchsorted(inside, 0.0005))]
    last = histogram.edges[min(int(np.searchsorted(inside, 0.9995)) + 1, len(histogram.counts))]
    spread = min(last, high) - max(first, low)
    bins = np.linspace(
        histogram.lowest, max(histogram.highest, histogram.lowest + 1e-12), _SHOWN_BINS + 1
    )
    counts, _ = np.histogram(
        np.clip(histogram.centers, bins[0], bins[-1]), bins, weights=histogram.counts
    )
    return Clipping(
        tensor,
        low,
        high,
        histogram.lowest,
        histogram.highest,
        # values that rounding alone takes to the ends are not clipped
        histogram.clipped(low - step / 2, high + step / 2),
        float(np.clip(spread / (high - low), 0, 1)) if high > low else 0.0,
        tuple(int(count) for count in counts),
    )
