"""Preprocessing as ONNX graphs: one decoded image of any size to the pixels of the model.

    input   image   uint8 [H, W, C]   any H and W, C = 1 (gray) or 3 (RGB), rows first
    output  pixels  uint8 [h, w, c]   the size of the model, c = 1 or 3

``digit_graph`` finds a digit on paper and writes it as MNIST did; ``resize_graph`` crops and
resizes. Both are built with this module.

Three rules make the bytes equal everywhere (compared over 406 images between onnxruntime 1.15.1
and 1.32.0, with and without graph optimization, 1 and 2 threads, all on one x86 machine):
 - every decision is made in integers; no float tensor occurs in a graph;
 - every resampling is an antialiased `Resize` of uint8, whose kernels compute in fixed point
   (the plain `Resize` of uint8 was not measured: it is another kernel);
 - a `Resize` has rank 2 or 4, gives all sizes and no `axes`, and is not next to a `Transpose`:
   onnxruntime's transpose optimizer moves one through the other and forgets the axes
   (refused by 1.15.1, and by 1.32.0 in [1, C, H, W]: "Number of elements of input 'sizes' (0)
   does not match the number of axes").
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporters.errors import GraphError
from exporters.options import IR_VERSION, OPSET

METADATA_KEY = "edgeproof.preprocess"
FAR = 2**31 - 1  # the end of a Slice that goes to the end
_GRAY_WEIGHTS = (77, 150, 29)  # ITU-R BT.601 luma in 1/256


class GraphBuilder:
    """Nodes and constants of a graph that grows; a value is the name of a tensor.

    Scalars are int32 or int64 tensors of rank 1 with one element, so that they can be
    concatenated into shapes and broadcast against images.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def op(self, kind: str, *inputs: str, **attributes: int | str | list[int]) -> str:
        """Add a node of one output and return its name."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def tensor(self, value: object, dtype: type[np.generic] = np.int64) -> str:
        """Return a constant, which is stored once however often it is used."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._names:
            self._names[key] = f"const_{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(array, self._names[key]))
        return self._names[key]

    def number(self, value: int) -> str:
        """Return a constant int64 [1], for shapes and sums."""
        return self.tensor([value])

    def level(self, value: int) -> str:
        """Return a constant int32 [1], for gray levels."""
        return self.tensor([value], np.int32)

    def length(self, image: str, axis: int) -> str:
        """Return the size of an image along one axis, int64 [1]."""
        return self.op("Shape", image, start=axis, end=axis + 1)

    def cast(self, value: str, dtype: int) -> str:
        """Convert to an element type of ``TensorProto``."""
        return self.op("Cast", value, to=dtype)

    def int32(self, value: str) -> str:
        """Convert to int32."""
        return self.cast(value, TensorProto.INT32)

    def int64(self, value: str) -> str:
        """Convert to int64."""
        return self.cast(value, TensorProto.INT64)

    def uint8(self, value: str) -> str:
        """Convert to uint8."""
        return self.cast(value, TensorProto.UINT8)

    def div(self, value: str, by: str) -> str:
        """Divide integers, rounding towards zero; the process ends where ``by`` is 0."""
        return self.op("Div", value, by)

    def clip(self, value: str, low: str, high: str) -> str:
        """Limit a value to ``low``..``high``."""
        return self.op("Min", self.op("Max", value, low), high)

    def joined(self, *numbers: str) -> str:
        """Concatenate numbers into one vector."""
        return self.op("Concat", *numbers, axis=0)

    def total(self, image: str) -> str:
        """Return the sum of a [1, 1, h, w] image, int64 [1]."""
        wide = self.int64(image)
        one = self.op("ReduceSum", wide, keepdims=1)
        return self.op("Reshape", one, self.number(1))

    def peak(self, image: str) -> str:
        """Return the greatest value of an image, [1], in the image's own type."""
        return self.op("Reshape", self.op("ReduceMax", image, keepdims=1), self.number(1))

    def part(self, image: str, axes: Sequence[int], starts: str, ends: str) -> str:
        """Slice an image along some axes."""
        return self.op("Slice", image, starts, ends, self.tensor(list(axes)))

    def resize(self, image: str, sizes: str) -> str:
        """Resample uint8, linear and antialiased; ``sizes`` has one entry per dimension."""
        return self.op("Resize", image, "", "", sizes, mode="linear", antialias=1)

    def resize_plane(self, plane: str, height: str, width: str) -> str:
        """Resample uint8 [1, 1, h, w] to [1, 1, height, width]."""
        return self.resize(plane, self.joined(self.number(1), self.number(1), height, width))

    def dilate(self, plane: str, kernel: int) -> str:
        """Dilate uint8 [1, 1, h, w] by a square; what is outside the plane does not count."""
        for shape, pad in (
            ([kernel, 1], [kernel // 2, 0, kernel // 2, 0]),
            ([1, kernel], [0, kernel // 2, 0, kernel // 2]),
        ):
            plane = self.op("MaxPool", plane, kernel_shape=shape, pads=pad)
        return plane

    def inverted(self, image: str) -> str:
        """Return 255 - image for uint8: all bits flipped."""
        return self.op("BitwiseNot", image)

    def model(
        self, output: str, shape: tuple[int, int, int], doc: str, kind: dict[str, object]
    ) -> onnx.ModelProto:
        """Return the graph that ends in ``output`` of the given shape, checked; ``kind`` describes
        it in the metadata."""
        self.nodes.append(helper.make_node("Identity", [output], ["pixels"], name="pixels"))
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["H", "W", "C"])
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, list(shape))
        graph = helper.make_graph(self.nodes, "preprocess", [image], [pixels], self.constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="edgeproof",
            doc_string=doc,
        )
        helper.set_model_props(model, {METADATA_KEY: json.dumps(kind, separators=(",", ":"))})
        onnx.checker.check_model(model, full_check=True)
        return model


def gray(g: GraphBuilder, image: str) -> str:
    """Turn uint8 [H, W, C] into uint8 [1, 1, H, W]: (77 R + 150 G + 29 B + 128) >> 8.

    The tables are indexed by C. For C = 1 the result is (128 v + 64) >> 7 = v. Any other C has no
    weights, so that MatMulInteger refuses the image.
    """
    channels = g.length(image, 2)
    table = g.tensor([[0] * 3, [128, 0, 0], [0] * 3, list(_GRAY_WEIGHTS)], np.uint8)
    count = g.op("Gather", g.tensor([0, 1, 0, 3]), channels)
    weights = g.part(g.op("Gather", table, channels), [1], g.number(0), count)  # [1, C]
    # Weights times planes: four times as fast as interleaved pixels times weights.
    planes = g.op("Transpose", image, perm=[2, 0, 1])
    planes = g.op("Reshape", planes, g.joined(channels, g.number(-1)))
    sums = g.op("MatMulInteger", weights, planes)  # int32 [1, H * W]
    half = g.op("Gather", g.tensor([0, 64, 0, 128], np.int32), channels)
    shift = g.op("Gather", g.tensor([0, 7, 0, 8], np.uint32), channels)
    rounded = g.cast(g.op("Add", sums, half), TensorProto.UINT32)
    levels = g.uint8(g.op("BitShift", rounded, shift, direction="RIGHT"))
    plane = g.joined(g.tensor([1, 1]), g.op("Shape", image, start=0, end=2))
    return g.op("Reshape", levels, plane)


def check_positive(name: str, value: object) -> None:
    """Raise GraphError unless ``value`` is a whole number of pixels."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise GraphError(f"{name} is {value!r}; expected a whole number of pixels, 1 or more.")
