"""The ranges of activations that their 8 bits are spread over. Every tensor that can be quantized
is observed once, over images of the train split, in bounded memory; each method of calibration
then takes its range from the same statistics.

Percentile and entropy are onnxruntime's own; it has no mean squared error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import HistogramCollector

from exporters.errors import GraphError, QuantizeError
from exporters.graph import onnx_file
from exporters.graph.onnx_file import TensorTypes
from exporters.graph.quantized import QUANTIZED_OPERATORS
from exporters.graph.silenced import quiet
from exporters.graph.temporary_names import tensor_names, unique
from exporters.options import Calibration
from exporters.quantize.calibration import ImageReader

Ranges = dict[str, tuple[float, float]]  # tensor -> (lowest, highest) that 8 bits must reach

_BINS = 2048
# onnxruntime's search for the entropy threshold takes (bins / 2 - 64) steps of pure Python; its
# default of 128 bins leaves no step at all, and so plain min-max.
_ENTROPY_BINS = 512
_LEVELS = 255  # steps between the smallest and the largest of 8 bits
_CLIPS = np.linspace(1.0, 0.2, 81)  # shares of an end of the range that are tried


@dataclass(frozen=True)
class Histogram:
    """Values of one tensor: ``counts`` [n] between ``edges`` [n + 1], and their true ends."""

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    lowest: float
    highest: float

    @property
    def centers(self) -> NDArray[np.float64]:
        """The middle of each bin, [n]."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    def clipped(self, low: float, high: float) -> float:
        """Return the share of the values outside ``low`` to ``high``."""
        outside = (self.centers < low) | (self.centers > high)
        return float(self.counts[outside].sum() / max(self.counts.sum(), 1))


class ActivationStatistics:
    """Ranges and histograms of a float model's tensors; each is computed on first use."""

    def __init__(self, model: onnx.ModelProto, reader: ImageReader) -> None:
        self._model, self.reader = model, reader
        self._ranges: dict[tuple[Calibration, float], Ranges] = {}  # a search asks repeatedly

    @cached_property
    def types(self) -> TensorTypes:
        """Types of every tensor that a node makes, whatever its domain."""
        return onnx_file.tensor_types(self._model)

    @cached_property
    def floats(self) -> frozenset[str]:
        """The float32 activations that operators with 8-bit kernels read and make."""
        constants = {tensor.name for tensor in self._model.graph.initializer}
        floats = {name for name, (kind, _) in self.types.items() if kind == "tensor(float)"}
        floats |= {
            value.name
            for value in self._model.graph.input
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        }
        return frozenset(
            name
            for node in self._model.graph.node
            if node.op_type in QUANTIZED_OPERATORS
            for name in (*node.input, *node.output)
            if name in floats and name not in constants
        )

    def ranges(self, method: Calibration, percentile: float = 99.99) -> Ranges:
        """Return the range that ``method`` gives each tensor; it always includes 0, as 8 bits must.
        Tensors with a value that is not a number (-inf, nan) and empty ones have none.

        Raises QuantizeError when the model cannot be run on the images.
        """
        if (method, percentile) not in self._ranges:
            ranges = self._computed(method, percentile).items()
            with_zero = {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in ranges}
            self._ranges[method, percentile] = with_zero
        return dict(self._ranges[method, percentile])

    def _computed(self, method: Calibration, percentile: float) -> Ranges:
        if method == "minmax":
            return self._extremes
        if method == "percentile":
            return self._percentile(percentile)
        range_of = _entropy_range if method == "entropy" else least_squares_range
        return {name: range_of(histogram) for name, histogram in self.histograms.items()}

    @cached_property
    def histograms(self) -> dict[str, Histogram]:
        """The values of every tensor that has a range."""
        return {
            name: Histogram(
                np.asarray(row[0], np.int64),
                np.asarray(row[1], np.float64),
                float(row[2]),
                float(row[3]),
            )
            for name, row in self._collector.get_histogram_dict().items()
        }

    @cached_property
    def _extremes(self) -> Ranges:
        tensors = sorted(self.floats)
        model, outputs = _with_extremes(self._model, tensors)
        ends: dict[str, list[NDArray[Any]]] = {}
        for values in self._runs(model, outputs):
            for tensor, triple in zip(tensors, zip(*[iter(values)] * 3, strict=True), strict=True):
                ends.setdefault(tensor, []).append(np.array(triple, np.float64))
        return {
            tensor: (float(rows[:, 0].min()), float(rows[:, 1].max()))
            for tensor, rows in ((tensor, np.stack(rows)) for tensor, rows in ends.items())
            if np.isfinite(rows[:, :2]).all() and not np.isnan(rows[:, 2]).any()
        }

    def _percentile(self, percentile: float) -> Ranges:
        collector = self._collector
        collector.percentile = percentile
        with quiet():
            ranges = collector.compute_percentile()
        return {name: (float(row[0]), float(row[1])) for name, row in ranges.items()}

    @cached_property
    def _collector(self) -> Any:
        """onnxruntime's histograms of all images, fed batch by batch: they would otherwise keep
        every activation of every image."""
        collector = HistogramCollector("percentile", False, _BINS, _BINS, 99.99, "same")
        tensors = sorted(self.floats)
        odd: set[str] = set()
        for values in self._runs(onnx_file.with_inner_outputs(self._model, tensors), tensors):
            batch = dict(zip(tensors, values, strict=True))
            odd |= {name for name, value in batch.items() if not np.isfinite(value).all()}
            with quiet():
                collector.collect({name: v for name, v in batch.items() if name not in odd})
        for name in odd:
            collector.histogram_dict.pop(name, None)
        return collector

    def _runs(self, model: onnx.ModelProto, outputs: list[str]) -> Iterator[list[NDArray[Any]]]:
        """Yield the outputs of each batch of images; without graph optimization, so that inner
        tensors are those of the file."""
        try:
            session = onnx_file.session(model, optimized=False)
            for feed in self.reader.batches():
                yield onnx_file.run_feed(session, outputs, feed)
        except GraphError as exc:
            raise QuantizeError(f"the float model cannot be calibrated: {exc}") from exc


def _with_extremes(model: onnx.ModelProto, tensors: list[str]) -> tuple[onnx.ModelProto, list[str]]:
    """Return a copy that puts out (lowest, highest, sum) of each tensor, and the outputs' names. A
    sum is nan where a value is; the other two may pass over it."""
    result = onnx_file.copied(model)
    taken = tensor_names(model)
    outputs = []
    for tensor in tensors:
        for operator in ("ReduceMin", "ReduceMax", "ReduceSum"):
            outputs.append(unique(f"{tensor}_{operator}", taken))
            node = onnx.helper.make_node(operator, [tensor], [outputs[-1]], keepdims=0)
            result.graph.node.append(node)
    result.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return result, outputs


def least_squares_range(histogram: Histogram) -> tuple[float, float]:
    """Return the range with the smallest mean squared error of rounding and clipping together.

    Both ends are tried at shares of themselves, one after the other, twice: the best end depends
    a little on the other one. Within the range the error of rounding is step^2 / 12 (uniform
    noise); outside it is the square of the clipped part. Source: Nagel et al., "A White Paper on
    Neural Network Quantization", 2021, section 3.1 (range setting by MSE).
    """
    lowest, highest = min(histogram.lowest, 0.0), max(histogram.highest, 0.0)
    low, high = lowest, highest
    for _ in range(2):
        high = min(_CLIPS * highest, key=lambda end: _error(histogram, low, end))
        low = min(_CLIPS * lowest, key=lambda end: _error(histogram, end, high))
    return float(low), float(high)


def _error(histogram: Histogram, low: float, high: float) -> float:
    """Sum the squared errors over all values."""
    if high <= low:
        return math.inf if histogram.highest > histogram.lowest else 0.0
    centers = histogram.centers
    cut = centers - np.clip(centers, low, high)
    rounding = ((high - low) / _LEVELS) ** 2 / 12
    return float((histogram.counts * np.where(cut == 0, rounding, cut * cut)).sum())


def _entropy_range(histogram: Histogram) -> tuple[float, float]:
    """Return onnxruntime's threshold of least Kullback-Leibler divergence, on coarser bins."""
    merge = max(len(histogram.counts) // _ENTROPY_BINS, 1)
    middle = len(histogram.counts) // 2  # the bins are symmetric around 0
    half = middle // merge * merge
    counts = histogram.counts[middle - half : middle + half].reshape(-1, merge).sum(axis=1)
    edges = histogram.edges[middle - half : middle + half + 1 : merge].astype(np.float32)
    if len(counts) <= 128:  # nothing to choose from
        return histogram.lowest, histogram.highest
    collector = HistogramCollector("entropy", False, len(counts), 128, 99.99, "same")
    ends = (np.float32(histogram.lowest), np.float32(histogram.highest))
    low, high = collector.get_entropy_threshold((counts, edges, *ends, ends[1]), 128)
    return float(low), float(high)
