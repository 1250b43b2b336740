"""Saturation of the 16-bit pair sums that some CPUs use. ``portability.py`` judges from the weights
whether they can saturate at all; this module simulates how often they do on real and on extreme
images, and confirms it on this CPU where this CPU can show it.

x86 kernels for uint8 activations and int8 weights without VNNI multiply two neighbors along the
reduction and add them in a signed 16-bit number that stops at 32767 (``vpmaddubsw``). On CPUs with
VNNI, on ARM and in WebAssembly the sums are exact, so there only the simulation shows anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.errors import QuantizeError
from exporters.graph import onnx_file
from exporters.graph.quantized import QuantizedWeight, quantized_weights
from exporters.graph.walk import Graph, attribute
from exporters.quantize.portability import PAIR_LIMIT
from exporters.quantize.quantizable import with_own_weights
from exporters.quantize.saturation_values import Confirmation, LayerSaturation
from runtime.cpu import cpu_target

EXACT_KERNELS = {"session.x64quantprecision": "1"}  # U8U8 products, which cannot saturate
_POSITIONS = 64  # output positions that are simulated of each image and layer
_WORK = 40_000_000  # pair sums in memory at a time


def simulate(model: onnx.ModelProto, feed: dict[str, NDArray[Any]]) -> tuple[LayerSaturation, ...]:
    """Simulate the saturating arithmetic of every operator with int8 weights, on inputs by name.

    Each operator gets the quantized tensor that it gets in exact arithmetic, so that the damage
    is its own. Some output positions of each image are simulated, evenly spread. Operators with
    uint8 weights and with float inputs are left out: they have no 16-bit sums.
    """
    graph = Graph(model)
    layers = [
        (weight, inputs)
        for weight in quantized_weights(graph)
        if weight.values.dtype == np.int8 and (inputs := _Inputs.of(graph, weight))
    ]
    if not layers:
        return ()
    values = onnx_file.inner_values(model, [inputs.tensor for _, inputs in layers], feed)
    return tuple(_layer(weight, inputs, values[inputs.tensor]) for weight, inputs in layers)


def confirm(
    model: onnx.ModelProto, feed: dict[str, NDArray[Any]], *, portable: bool
) -> Confirmation:
    """Run the file with the default kernels, with exact ones, and without graph optimization.

    Raises QuantizeError when a portable file differs between the first two on a CPU that shows
    it: then the verdict from its weights would be wrong.
    """
    output = _first_float(model)
    default, exact, unfused = (
        onnx_file.run_feed(run, [output], feed)[0]
        for run in (
            onnx_file.session(model),
            # these kernels replace weights and zero points, and refuse to do so twice
            onnx_file.session(with_own_weights(model), config=EXACT_KERNELS),
            onnx_file.session(model, optimized=False),
        )
    )
    target = cpu_target()
    result = Confirmation(
        target,
        visible=target == "x86_64-avx2",
        exact_difference=_largest(default, exact),
        unfused_difference=_largest(default, unfused),
    )
    if portable and result.visible and not result.exact_difference <= 1e-6:
        raise QuantizeError(
            f"a file that counts as portable differs by {result.exact_difference:.3g} between the "
            "kernels of this CPU and exact ones; expected at most 1e-6. Please report the file."
        )
    return result


def _first_float(model: onnx.ModelProto) -> str:
    floats = [
        value.name
        for value in model.graph.output
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    return str((floats or [model.graph.output[0].name])[0])


def _largest(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the largest difference, at most float32's largest number, which also marks results of
    other shapes (fewer boxes, say) and a value that is a number on one side only."""
    limit = float(np.finfo(np.float32).max)
    if a.shape != b.shape:
        return limit
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    gaps = np.abs(np.where(same, 0, a).astype(np.float64) - np.where(same, 0, b))
    return float(np.nan_to_num(gaps, nan=limit, posinf=limit).max(initial=0.0))


@dataclass(frozen=True)
class _Inputs:
    """The quantized input of an operator, and the scale from it to its output."""

    node: onnx.NodeProto
    tensor: str  # of 8 bits
    zero_point: int  # as in the x86 kernel: int8 is shifted to uint8
    steps: float  # of the output's quantized tensor for one unit of the 32-bit sum

    @classmethod
    def of(cls, graph: Graph, weight: QuantizedWeight) -> _Inputs | None:
        node = graph.node(weight.node)
        dequantize = None if node is None else graph.dequantizer(node.input[0])
        if node is None or dequantize is None:
            return None
        scale = graph.array(dequantize.input[1])
        zero = graph.array(dequantize.input[2]) if len(dequantize.input) > 2 else np.uint8(0)
        if scale is None or zero is None or scale.size != 1:
            return None
        shift = 128 if zero.dtype == np.int8 else 0
        unit = float(scale.reshape(())) * float(weight.scale.max())
        return cls(
            node,
            dequantize.input[0],
            int(zero.reshape(())) + shift,
            unit / _output_step(graph, node),
        )


def _output_step(graph: Graph, node: onnx.NodeProto) -> float:
    """Return the scale of the tensor that the output is quantized to; 1 for float outputs."""
    for user in graph.consumers(node.output[0]):
        if user.op_type == "QuantizeLinear":
            scale = graph.array(user.input[1])
            if scale is not None and scale.size == 1:
                return float(scale.reshape(()))
    return 1.0


def _layer(weight: QuantizedWeight, inputs: _Inputs, values: NDArray[Any]) -> LayerSaturation:
    unsigned = values.astype(np.int32) + (128 if values.dtype == np.int8 else 0)
    outputs, saturated, worst = 0, 0, 0
    for rows, matrix in _products(weight, inputs, unsigned):
        # (rows, K) x (K, out), summed pair by pair as the kernel does
        if rows.shape[1] % 2:
            rows = np.pad(rows, ((0, 0), (0, 1)))
            matrix = np.pad(matrix, ((0, 1), (0, 0)))
        step = max(_WORK // (rows.shape[1] // 2 * matrix.shape[1]), 1)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]  # (R, K)
            pairs = (
                part[:, 0::2, None] * matrix[None, 0::2] + part[:, 1::2, None] * matrix[None, 1::2]
            )  # (R, K / 2, out)
            excess = pairs - np.clip(pairs, -PAIR_LIMIT - 1, PAIR_LIMIT)
            outputs += part.shape[0] * matrix.shape[1]
            saturated += int((excess != 0).any(axis=1).sum())
            worst = max(worst, int(np.abs(excess.sum(axis=1)).max(initial=0)))
    return LayerSaturation(weight.node, saturated / max(outputs, 1), worst * inputs.steps)


def _products(
    weight: QuantizedWeight, inputs: _Inputs, values: NDArray[np.int32]
) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Return the matrix products of an operator: rows (R, K) and a matrix (K, out)."""
    centered = weight.centered
    if weight.operator == "Conv":
        return _convolution(inputs, centered, values)
    if weight.operator in ("Gemm", "MatMul") and centered.ndim == 2:
        if attribute(inputs.node, "transA", 0):
            values = values.T
        matrix = np.moveaxis(centered, weight.channel_axis, 1)  # (K, out)
        return [(values.reshape(-1, values.shape[-1])[:4096], matrix)]
    return []  # ConvTranspose and batched products run on other kernels


def _pads(
    node: onnx.NodeProto,
    kernel: Sequence[int],
    size: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """Return [top, left, bottom, right], also where the file has SAME instead of numbers."""
    automatic = attribute(node, "auto_pad", b"NOTSET")
    if automatic not in (b"SAME_UPPER", b"SAME_LOWER"):
        return [0] * 4 if automatic == b"VALID" else list(attribute(node, "pads", [0] * 4))
    pads = [0] * 4
    for axis in (0, 1):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        steps = -(-size[axis] // strides[axis])
        total = max((steps - 1) * strides[axis] + reach - size[axis], 0)
        small, large = total // 2, total - total // 2
        pads[axis], pads[axis + 2] = (
            (small, large) if automatic == b"SAME_UPPER" else (large, small)
        )
    return pads


def _convolution(
    inputs: _Inputs, kernel: NDArray[np.int32], values: NDArray[np.int32]
) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Return one product for each group of a 2-d convolution, at evenly spread positions."""
    node = inputs.node
    if values.ndim != 4:
        return []
    groups = int(attribute(node, "group", 1))
    strides = attribute(node, "strides", [1, 1])
    dilations = attribute(node, "dilations", [1, 1])
    top, left, bottom, right = _pads(node, kernel.shape[2:], values.shape[2:], strides, dilations)
    padded = np.pad(
        values, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=inputs.zero_point
    )
    _, per_group, kh, kw = kernel.shape
    height = (padded.shape[2] - (kh - 1) * dilations[0] - 1) // strides[0] + 1
    width = (padded.shape[3] - (kw - 1) * dilations[1] - 1) // strides[1] + 1
    chosen = np.unique(np.linspace(0, height * width - 1, _POSITIONS).astype(int))
    ys = (chosen // width * strides[0])[:, None, None] + np.arange(kh)[:, None] * dilations[0]
    xs = (chosen % width * strides[1])[:, None, None] + np.arange(kw) * dilations[1]
    patches = padded[:, :, ys, xs]  # (N, C, P, kh, kw)
    patches = np.moveaxis(patches, 1, -1)  # (N, P, kh, kw, C): the kernels' order
    products = []
    out = len(kernel) // groups
    for group in range(groups):
        channels = slice(group * per_group, (group + 1) * per_group)
        rows = patches[..., channels].reshape(-1, kh * kw * per_group)
        part = kernel[group * out : (group + 1) * out]  # (out, C, kh, kw)
        products.append((rows, np.moveaxis(part, 1, -1).reshape(out, -1).T))
    return products
