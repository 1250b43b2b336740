"""The cost of a single scale or range of an INT8 file. Weights that differ from the float model's,
and ranges that cut values off, are put back into float one at a time, and the signal-to-noise ratio
of the answers is measured before and after. Each is blamed only for what undoing it gives back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx_ir.passes.common import TopologicalSortPass

from exporters.errors import ExportError
from exporters.evaluate.error_metrics import error_db, relative_error
from exporters.evaluate.probabilities import Floats, log_odds
from exporters.explain.first_divergence import PointPair
from exporters.explain.trace import Parameters
from exporters.explain.weight_causes import common_factor, differs, weights_apart
from exporters.graph import onnx_file
from exporters.graph.intermediate_outputs import quantized_tensors, with_typed_outputs
from exporters.graph.walk import Graph, channel_axis

# Decibels that a suspect must give back to be blamed, by its kind. In healthy files entropy
# calibration cuts off 0.3 to 0.5 %, which returns up to 1.7 dB, and a corrected bias returns 0.2 dB
# at most. A scale that is 5 % off costs 1.3 to 13 dB, half a range 6 to 20 dB (24 files of a small
# network). Weights that differ by more than half a step are not rounding at all.
COSTLY_DB = {"scale": 1.0, "range": 3.0, "bias": 3.0}
_CUT = 2e-3  # share of an activation at the end of its range; min-max leaves some 1e-4
_MUCH = 1e-2  # share above which it is reported even where it costs nothing
_SURE = 1e-4  # probabilities closer to 0 and 1 than this are not distinguished
_SINGLE = 2  # layers; where more have other weights, the network was trained further
_TRIED = 8  # suspects of each kind that are put back
_INSPECTED = 8  # images whose 8-bit activations are inspected


@dataclass(frozen=True)
class Damage:
    """A scale, range or bias of an INT8 file, and what float gives back."""

    layer: str  # of the INT8 file
    words: str  # the fault, as measured
    kind: str  # a key of COSTLY_DB
    reported: bool  # even where it costs nothing
    snr_db: float  # of the log-odds of the file's answers against the float model's
    without_db: float  # the same with only this back in float

    @property
    def costly(self) -> bool:
        """True where it costs more than rounding to 8 bits does."""
        return self.without_db - self.snr_db >= COSTLY_DB[self.kind]


@dataclass(frozen=True)
class _Suspect:
    layer: str
    words: str
    kind: str
    reported: bool
    changed: onnx.ModelProto  # the file with only this back in float


def damages(
    pairs: Sequence[PointPair], model: onnx.ModelProto, images: NDArray[np.uint8], expected: Floats
) -> tuple[Damage, ...]:
    """Return the scales and ranges of an INT8 ``model`` (side B of ``pairs``) that look wrong.

    Each has its cost on ``images``, whose answers in float are ``expected``; the most expensive
    comes first. It is the cause where several are costly: ranges behind a wrong scale follow from
    it. Everything runs without graph optimization, so that a kernel's saturation is not mistaken
    for a scale. Raises GraphError when onnxruntime refuses the file.
    """
    suspects = [*_weights(pairs, model), *_ranges(model, images[:_INSPECTED])]
    if not suspects:
        return ()
    before = _snr(model, images, expected)
    measured = []
    for s in suspects:
        try:
            after = _snr(s.changed, images, expected)
        except ExportError:  # float weights of a shape that this layer does not take
            continue
        measured.append(Damage(s.layer, s.words, s.kind, s.reported, before, after))
    measured.sort(key=lambda damage: -damage.without_db)
    costly = [damage for damage in measured if damage.costly]
    factors = [damage for damage in measured if damage.kind == "scale"]
    if costly:
        return tuple(dict.fromkeys((costly[0], *factors)))
    return tuple(damage for damage in measured if damage.reported)


def _snr(model: onnx.ModelProto, images: NDArray[np.uint8], expected: Floats) -> float:
    """Return the SNR of log-odds minus their mean, which do not saturate as probabilities do."""
    answers = onnx_file.run(onnx_file.session(model, optimized=False), images)
    signal = log_odds(expected, _SURE, _SURE)
    middle = signal.mean(axis=0)
    return error_db(relative_error(signal - middle, log_odds(answers, _SURE, _SURE) - middle))


# --- weights -------------------------------------------------------------------------------------


def _weights(pairs: Sequence[PointPair], model: onnx.ModelProto) -> Iterator[_Suspect]:
    wrong = [
        (pair.b.layer, pair.a.parameters, pair.b.parameters)
        for pair in pairs
        if pair.a.parameters is not None
        and pair.b.parameters is not None
        and pair.a.parameters.weight.size == pair.b.parameters.weight.size
        and differs(pair.a.parameters, pair.b.parameters)
    ]
    for layer, a, b in wrong[:_TRIED]:
        factor = common_factor(a, b)
        apart = weights_apart(a, b)
        words = f"its {'weights' if apart else 'bias'} differ by more than rounding"
        if factor is not None:
            words = f"all its weights are {factor:.4g} times the float model's"
        kind = "scale" if apart else "bias"
        reported = factor is not None or (apart and len(wrong) <= _SINGLE)
        yield _Suspect(layer, words, kind, reported, _float_weights(model, layer, a, b))


def _float_weights(
    model: onnx.ModelProto, layer: str, a: Parameters, b: Parameters
) -> onnx.ModelProto:
    """Return a copy in which a layer has the float model's bias, and its weights where they differ
    by more than rounding."""
    result = onnx_file.copied(model)
    node = next(node for node in result.graph.node if node.name == layer)
    weight = np.moveaxis(a.weight, 0, channel_axis(node, a.weight.ndim))
    values = [weight if weights_apart(a, b) else None, a.bias]
    for position, array in enumerate(values, start=1):
        if array is not None and len(node.input) > position and node.input[position]:
            name = f"{node.name}.float.{position}"
            stored = np.ascontiguousarray(array, np.float32)
            result.graph.initializer.append(numpy_helper.from_array(stored, name))
            node.input[position] = name
    return result


# --- ranges --------------------------------------------------------------------------------------


def _ranges(model: onnx.ModelProto, images: NDArray[np.uint8]) -> Iterator[_Suspect]:
    """Yield activations with too much at the end of their range, and those that are rounded with
    one scale and read with another."""
    graph = Graph(model)
    taps = {tap.name: tap.layer for tap in quantized_tensors(model)}
    session = onnx_file.session(with_typed_outputs(model, list(taps)))
    values = onnx_file.run_feed(session, list(taps), {"images": images})
    stored = dict(zip(taps, values, strict=True))
    tried: set[bytes] = set()
    for name, layer in taps.items():
        node = graph.producer(name)
        assert node is not None
        key = _key(graph, node)
        factor, (share, words) = _other_scale(graph, node), _cut_off(graph, node, stored[name])
        words = factor or words
        if not words or key is None or key in tried or len(tried) == _TRIED:
            continue
        tried.add(key)  # a pool behind it has the same scale, and is the same suspect
        kind, reported = ("scale", True) if factor else ("range", share > _MUCH)
        yield _Suspect(layer, f"its result {words}", kind, reported, _float_activations(model, key))


def _key(graph: Graph, node: onnx.NodeProto) -> bytes | None:
    """Return scale and zero point of a QuantizeLinear or DequantizeLinear as bytes; None where they
    are computed."""
    arrays = [graph.array(name) for name in node.input[1:3]]
    if any(array is None for array in arrays):
        return None
    return b"|".join(np.asarray(array).tobytes() for array in arrays)


def _readers(graph: Graph, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [n for n in graph.consumers(node.output[0]) if n.op_type == "DequantizeLinear"]


def _other_scale(graph: Graph, node: onnx.NodeProto) -> str:
    scale = graph.array(node.input[1])
    for reader in _readers(graph, node):
        other = graph.array(reader.input[1])
        if scale is None or other is None or scale.size != 1 or other.size != 1:
            continue
        if not np.array_equal(scale, other):
            factor = float(other.reshape(-1)[0] / scale.reshape(-1)[0])
            return f"is read with {factor:.4g} times the scale it was rounded with"
    return ""


def _cut_off(graph: Graph, node: onnx.NodeProto, stored: NDArray[np.integer]) -> tuple[float, str]:
    """Return the share at the end of its range, and a sentence where that is too much."""
    scale = graph.array(node.input[1])
    zero = graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.uint8(0)
    if stored.dtype.itemsize > 1 or scale is None or zero is None or scale.size != 1:
        return 0.0, ""
    info = np.iinfo(stored.dtype)
    top, bottom = float((stored == info.max).mean()), float((stored == info.min).mean())
    if int(zero) == info.min:
        bottom = 0.0  # zero itself: a ReLU has become the range
    share = max(top, bottom)
    low, high = ((end - float(zero)) * float(scale) for end in (info.min, info.max))
    words = f"is cut off at {low:.4g} to {high:.4g} ({100 * share:.2g} % of it)"
    return share, words if share > _CUT else ""


def _float_activations(model: onnx.ModelProto, key: bytes) -> onnx.ModelProto:
    """Return a copy in which activations of one scale are not rounded, and are cut off only where a
    ReLU has become the range."""
    result = onnx_file.copied(model)
    graph = Graph(result)
    nodes = []
    for node in result.graph.node:
        if node.op_type == "QuantizeLinear" and _key(graph, node) == key:
            zero = graph.array(node.input[2]) if len(node.input) > 2 else None
            lowest = 0 if zero is None else np.iinfo(zero.dtype).min
            kind = "Relu" if zero is not None and int(zero) == lowest else "Identity"
            for reader in _readers(graph, node):
                nodes.append(helper.make_node(kind, [node.input[0]], [reader.output[0]]))
                reader.output[0] = f"{reader.output[0]}.unused"
    result.graph.node.extend(nodes)
    ordered = TopologicalSortPass()(ir.from_proto(result))
    changed: onnx.ModelProto = ir.to_proto(ordered.model)
    return changed
