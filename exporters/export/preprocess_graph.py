"""Preprocessing as ONNX graphs: one decoded image of any size to the pixels of the model.

    input   image   uint8 [H, W, C]   any H and W, C = 1 (grey) or 3 (RGB), rows first
    output  pixels  uint8 [h, w, c]   the size of the model, c = 1 or 3

`digit_graph` finds a digit on paper and writes it as MNIST did; `resize_graph` crops and resizes.

Three rules are to make the bytes equal everywhere (compared over 406 images between onnxruntime
1.15.1 and 1.32.0, with and without graph optimisation, 1 and 2 threads, all on one x86 machine):
 - every decision is made in integers; no float tensor occurs in a graph;
 - every resampling is an antialiased `Resize` of uint8, whose kernels compute in fixed point
   (the plain `Resize` of uint8 was not measured: it is another kernel);
 - a `Resize` has rank 2 or 4, gives all sizes and no `axes`, and no `Transpose` stands beside it:
   onnxruntime's transpose optimizer moves one through the other and forgets the axes
   (refused by 1.15.1, and by 1.32.0 in [1, C, H, W]: "Number of elements of input 'sizes' (0)
   does not match the number of axes").

This module does not know datasets, files or bundles, and does not run the graphs it makes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporters.errors import GraphError
from exporters.options import IR_VERSION, OPSET

__all__ = ["digit_graph", "resize_graph"]

METADATA_KEY = "edgeproof.preprocess"

GREY_WEIGHTS = (77, 150, 29)  # ITU-R BT.601 luma in 1/256

FAR = 2**31 - 1  # the end of a Slice that goes to the end
SAMPLES = 4  # of a huge picture along each axis are averaged into a pixel of the result

# The digit graph. Lengths are in pixels of the image that they are used on.
SAMPLED = 512  # every n-th row and column is read, so that 512 to 1023 remain: 12 megapixels cost
# milliseconds, and still four samples are averaged into each pixel of the page
PAGE = 192  # long side of the page on which the digit is looked for
LIGHT = 48  # long side of the page on which the light is estimated
OPENING = 9  # of LIGHT: what is narrower than a fifth of the page is ink, not light (of 226 pages
# with the edge of a shadow across them 94 % were read, 90 % with 13, which follows it too roughly)
POLARITY = 12  # long side of the light that is taken off before polarity is judged (2 sees the lit
# corner of a shadowed page as bright ink: 87 % of the same pages; 16 takes some of MNIST's own
# images for dark ink)
SMOOTH = 16  # long side on which the light is smoothed
UNEVEN_PARTS = 3  # of the spread of the light, one third counts as paper: edges of shadows and
# corners of vignettes, which the opening follows only roughly (read on 300 very uneven pages: 88 %
# with no part of it, 91 % with a quarter, 92 % with a half, 85 % with three quarters)
NOISE_SAMPLES = 32  # the noise is measured on every n-th pixel, 32 to 63 along the long side
NOISE_SIGMAS = 3  # grain below this is paper
FAINTEST = 24  # grey levels; a page with less contrast is blank
CELL = 8  # pixels of the page in a cell of the density map
GROWTH_STEPS = 5  # each reaches 2 cells: 80 pixels from the dense cells along a stroke
BOX_LEVEL = 48  # of 255: ink fainter than this does not widen the bounding box
FITTED = 80  # long side of the digit on which the stroke is thickened: 4 times MNIST's 20
STROKE_TENTHS = 24  # wanted stroke width in a tenth of an output pixel; MNIST's median is 25
DILATIONS = 5  # at most this many pixels on each side of a stroke
MIN_BOX = 8  # pixels; a stroke of 2.4 pixels needs some room
MAX_SIZE = 128  # pixels; the page has PAGE, so a larger result would only be blurred


class _Graph:
    """Collects nodes and constants; a value is known by its name.

    Scalars are int32 or int64 tensors of rank 1 with one element, so that they can be
    concatenated into shapes; they broadcast against images.
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
        """A constant, stored once however often it is used."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._names:
            self._names[key] = f"const_{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(array, self._names[key]))
        return self._names[key]

    def number(self, value: int) -> str:
        """int64 [1], for shapes and sums."""
        return self.tensor([value])

    def level(self, value: int) -> str:
        """int32 [1], for grey levels."""
        return self.tensor([value], np.int32)

    def length(self, image: str, axis: int) -> str:
        """int64 [1]: the size of an image along one axis."""
        return self.op("Shape", image, start=axis, end=axis + 1)

    def cast(self, value: str, dtype: int) -> str:
        return self.op("Cast", value, to=dtype)

    def int32(self, value: str) -> str:
        return self.cast(value, TensorProto.INT32)

    def int64(self, value: str) -> str:
        return self.cast(value, TensorProto.INT64)

    def uint8(self, value: str) -> str:
        return self.cast(value, TensorProto.UINT8)

    def div(self, value: str, by: str) -> str:
        """Integer division; towards zero, and ends the process where `by` is 0."""
        return self.op("Div", value, by)

    def clip(self, value: str, low: str, high: str) -> str:
        return self.op("Min", self.op("Max", value, low), high)

    def joined(self, *numbers: str) -> str:
        return self.op("Concat", *numbers, axis=0)

    def total(self, image: str) -> str:
        """int64 [1]: the sum of a [1, 1, h, w] image."""
        wide = self.int64(image)
        one = self.op("ReduceSum", wide, keepdims=1)
        return self.op("Reshape", one, self.number(1))

    def peak(self, image: str) -> str:
        """[1]: the greatest value of an image, in the image's own type."""
        return self.op("Reshape", self.op("ReduceMax", image, keepdims=1), self.number(1))

    def part(self, image: str, axes: Sequence[int], starts: str, ends: str) -> str:
        return self.op("Slice", image, starts, ends, self.tensor(list(axes)))

    def resize(self, image: str, sizes: str) -> str:
        """Antialiased linear resampling of uint8; `sizes` has one entry for each dimension."""
        return self.op("Resize", image, "", "", sizes, mode="linear", antialias=1)

    def resize_plane(self, plane: str, height: str, width: str) -> str:
        """uint8 [1, 1, h, w] to [1, 1, height, width]."""
        return self.resize(plane, self.joined(self.number(1), self.number(1), height, width))

    def dilate(self, plane: str, kernel: int) -> str:
        """Grey dilation of uint8 [1, 1, h, w] with a square; what is outside does not count."""
        for shape, pad in (
            ([kernel, 1], [kernel // 2, 0, kernel // 2, 0]),
            ([1, kernel], [0, kernel // 2, 0, kernel // 2]),
        ):
            plane = self.op("MaxPool", plane, kernel_shape=shape, pads=pad)
        return plane

    def inverted(self, image: str) -> str:
        """255 - image, for uint8: all bits flipped."""
        return self.op("BitwiseNot", image)

    def model(
        self, output: str, shape: tuple[int, int, int], doc: str, kind: dict[str, object]
    ) -> onnx.ModelProto:
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


# --------------------------------------------------------------------------------------- digits


def _long_side(g: _Graph, height: str, width: str) -> str:
    return g.op("Max", height, width)


def _shrunk(g: _Graph, height: str, width: str, long_side: int) -> tuple[str, str]:
    """The size with the same aspect and at most `long_side` pixels on the long side."""
    longest = g.op("Max", _long_side(g, height, width), g.number(long_side))

    def side(length: str) -> str:
        scaled = g.div(g.op("Mul", length, g.number(long_side)), longest)
        return g.op("Max", scaled, g.number(1))

    return side(height), side(width)


def _sampled(g: _Graph, image: str) -> str:
    """uint8 [H, W, C]: every n-th row and column, 2 * SAMPLED - 1 at most on the long side."""
    longest = _long_side(g, g.length(image, 0), g.length(image, 1))
    step = g.op("Max", g.div(longest, g.number(SAMPLED)), g.number(1))
    return g.op(
        "Slice",
        image,
        g.tensor([0, 0]),
        g.tensor([FAR, FAR]),
        g.tensor([0, 1]),
        g.joined(step, step),
    )


def _grey(g: _Graph, image: str) -> str:
    """uint8 [H, W, C] to uint8 [1, 1, H, W]: (77 R + 150 G + 29 B + 128) >> 8, or grey as it is.

    The tables are indexed by C. For C = 1 it is (128 v + 64) >> 7 = v. For another C there are no
    weights, so that MatMulInteger refuses the image.
    """
    channels = g.length(image, 2)
    table = g.tensor([[0] * 3, [128, 0, 0], [0] * 3, list(GREY_WEIGHTS)], np.uint8)
    known = g.op("Gather", g.tensor([0, 1, 0, 3]), channels)
    weights = g.part(g.op("Gather", table, channels), [1], g.number(0), known)  # [1, C]
    # Weights times planes: four times as fast as interleaved pixels times weights.
    planes = g.op("Transpose", image, perm=[2, 0, 1])
    planes = g.op("Reshape", planes, g.joined(channels, g.number(-1)))
    sums = g.op("MatMulInteger", weights, planes)  # int32 [1, H * W]
    half = g.op("Gather", g.tensor([0, 64, 0, 128], np.int32), channels)
    shift = g.op("Gather", g.tensor([0, 7, 0, 8], np.uint32), channels)
    rounded = g.cast(g.op("Add", sums, half), TensorProto.UINT32)
    grey = g.uint8(g.op("BitShift", rounded, shift, direction="RIGHT"))
    plane = g.joined(g.tensor([1, 1]), g.op("Shape", image, start=0, end=2))
    return g.op("Reshape", grey, plane)


def _page(g: _Graph, image: str) -> str:
    """uint8 [H, W, C] to uint8 [1, 1, h, w], PAGE at most on the long side."""
    grey = _grey(g, _sampled(g, image))
    return g.resize_plane(grey, *_shrunk(g, g.length(grey, 2), g.length(grey, 3), PAGE))


def _dark_paper(g: _Graph, page: str) -> str:
    """bool [1]: whether the ink is brighter than the paper.

    Ink is the smaller part and far from the rest, so the sign of the third moment tells the
    side it is on. The light of the page, coarsely, is taken off first: it has edges, too.
    """
    height, width = g.length(page, 2), g.length(page, 3)
    light = g.resize_plane(page, *_shrunk(g, height, width, POLARITY))
    light = g.resize_plane(light, height, width)
    rest = g.int64(g.op("Sub", g.int32(page), g.int32(light)))
    # Less the mean, rounded: half a level is nothing beside the contrast of ink.
    rest = g.op("Sub", rest, g.div(g.total(rest), g.op("Size", rest)))
    cubes = g.op("Mul", g.op("Mul", rest, rest), rest)
    return g.op("Greater", g.total(cubes), g.number(0))


def _paper(g: _Graph, page: str) -> str:
    """uint8, the level of dark paper at each pixel of a page smaller than LIGHT: what is left
    when everything narrower than OPENING is taken off, smoothed."""
    eroded = g.inverted(g.dilate(g.inverted(page), OPENING))
    return g.dilate(eroded, OPENING)


def _noise(g: _Graph, rest: str) -> tuple[str, str]:
    """int32 [1] each: the median, and what one standard deviation adds to it, of paper that
    covers more than half of an int32 [1, 1, h, w] image."""
    longest = _long_side(g, g.length(rest, 2), g.length(rest, 3))
    step = g.op("Max", g.div(longest, g.number(NOISE_SAMPLES)), g.number(1))
    ends = g.tensor([FAR, FAR])
    axes = g.tensor([2, 3])
    samples = g.op("Slice", rest, g.tensor([0, 0]), ends, axes, g.joined(step, step))
    flat = g.op("Reshape", samples, g.number(-1))
    count = g.length(flat, 0)
    half = g.op("Add", g.div(count, g.number(2)), g.number(1))
    half = g.op("Min", half, count)
    g.nodes.append(
        helper.make_node("TopK", [flat, half], ["lowest", "_unused"], name="lowest", largest=0)
    )
    median = g.op("Gather", "lowest", g.op("Sub", half, g.number(1)))
    # In a normal distribution 16 % lie more than one standard deviation under the median.
    low = g.op("Gather", "lowest", g.div(g.op("Mul", half, g.number(32)), g.number(100)))
    return median, g.op("Sub", median, low)


def _bright(g: _Graph, image: str, flip: str) -> str:
    """int32: the image with bright ink on dark paper; `flip` is 255 where the ink is dark."""
    return g.op("Abs", g.op("Sub", g.int32(image), flip))


def _above_paper(g: _Graph, page: str) -> tuple[str, str]:
    """int32 [1, 1, h, w] and int32 [1]: how far each pixel is from the level of the paper
    there, positive for ink of either polarity; and how uneven the light is."""
    height, width = g.length(page, 2), g.length(page, 3)
    small = g.resize_plane(page, *_shrunk(g, height, width, LIGHT))
    flip = g.op("Where", _dark_paper(g, small), g.level(0), g.level(255))
    paper = _paper(g, g.uint8(_bright(g, small, flip)))
    darkest = g.inverted(g.peak(g.inverted(paper)))
    spread = g.op("Sub", g.int32(g.peak(paper)), g.int32(darkest))
    smooth = g.resize_plane(paper, *_shrunk(g, height, width, SMOOTH))
    smooth = g.resize_plane(smooth, height, width)
    return g.op("Sub", _bright(g, page, flip), g.int32(smooth)), spread


def _ink(g: _Graph, page: str) -> str:
    """uint8 page of either polarity to uint8 ink: 0 is paper, 255 the strongest ink."""
    rest, spread = _above_paper(g, page)
    median, sigma = _noise(g, rest)
    grain = g.op("Mul", sigma, g.level(NOISE_SIGMAS))
    floor = g.op("Add", g.op("Add", median, grain), g.div(spread, g.level(UNEVEN_PARTS)))
    rest = g.op("Max", g.op("Sub", rest, floor), g.level(0))
    range_ = g.peak(rest)
    # Beyond 3 sigma, the strongest grain of a page of 28,000 pixels adds less than 2 more.
    blank = g.op("Less", range_, g.op("Add", g.level(FAINTEST), grain))
    range_ = g.op("Where", blank, g.level(2**30), range_)  # then every pixel becomes 0
    return g.uint8(g.div(g.op("Mul", rest, g.level(255)), range_))


def _without_specks(g: _Graph, ink: str) -> str:
    """The ink that is dense, or that a few steps along other ink lead to from there."""
    height, width = g.length(ink, 2), g.length(ink, 3)

    def cells(length: str) -> str:
        return g.div(g.op("Add", length, g.number(CELL - 1)), g.number(CELL))

    density = g.int32(g.resize_plane(ink, cells(height), cells(width)))
    peak = g.peak(density)

    def above(parts: int) -> str:  # 255 where the density is over 1 / parts of the peak
        dense = g.op("Greater", g.op("Mul", density, g.level(parts)), peak)
        return g.op("Where", dense, g.tensor([255], np.uint8), g.tensor([0], np.uint8))

    kept, inked = above(2), above(10)
    for _ in range(GROWTH_STEPS):
        kept = g.op("BitwiseAnd", g.dilate(kept, 5), inked)
    kept = g.resize_plane(g.dilate(kept, 3), height, width)
    far = g.op("Less", g.int32(kept), g.level(128))
    return g.op("Where", far, g.tensor([0], np.uint8), ink)


def _cropped(g: _Graph, ink: str) -> str:
    """The bounding box of the ink; all of a blank page."""

    def span(axis: int) -> tuple[str, str]:
        across = g.op("ReduceMax", ink, g.number(5 - axis), keepdims=0)
        inked = g.int32(g.op("Greater", g.int32(across), g.level(BOX_LEVEL)))  # [1, 1, length]
        flat = g.op("Reshape", inked, g.number(-1))
        first = g.op("ArgMax", flat, keepdims=1)
        last = g.op("ArgMax", flat, keepdims=1, select_last_index=1)
        return first, g.op("Add", last, g.number(1))

    (top, bottom), (left, right) = span(2), span(3)
    return g.part(ink, [2, 3], g.joined(top, left), g.joined(bottom, right))


def _padded(g: _Graph, image: str, pads: str) -> str:
    return g.op("Pad", image, pads, g.tensor(0, np.uint8))


def _gradient(g: _Graph, ink: str) -> str:
    """int64 [1]: the sum of differences between neighbours along rows and along columns."""
    whole = g.int32(ink)

    def along(axis: int) -> str:
        after = g.part(whole, [axis], g.number(1), g.number(FAR))
        before = g.part(whole, [axis], g.number(0), g.number(-1))
        return g.total(g.op("Abs", g.op("Sub", after, before)))

    return g.op("Add", along(2), along(3))


def _thickening(g: _Graph, ink: str, long_side: str, box: int) -> str:
    """int64 [1]: by how many pixels to dilate, for strokes of STROKE_TENTHS in the box.

    A stroke of width w and length l holds w * l of ink, and the differences over it add up to
    2 * l * (|cos| + |sin|) of its direction, on average 2 * l * 4 / pi: so w = 2.55 * ink /
    gradient, in which blur and contrast cancel. A dilation by r makes w + 2 r of w and n + 2 r of
    the long side n, and the box scales the one by box over the other:
    (w + 2 r) * box / (n + 2 r) = STROKE_TENTHS / 10, solved for r.
    """
    mass = g.total(ink)
    gradient = _gradient(g, ink)
    wanted = g.op("Mul", g.op("Mul", long_side, gradient), g.number(STROKE_TENTHS * 10))
    present = g.op("Mul", mass, g.number(255 * box))
    missing = g.op("Sub", wanted, present)  # 100 * gradient * (n * t - w * box)
    per_pixel = g.op("Mul", gradient, g.number(200 * box - 20 * STROKE_TENTHS))
    radius = g.div(missing, g.op("Max", per_pixel, g.number(1)))
    return g.clip(radius, g.number(0), g.number(DILATIONS))


def _thickened(g: _Graph, ink: str, box: int) -> str:
    """Ink in its bounding box to the same with strokes at least as wide as MNIST's."""
    ink = g.resize_plane(ink, *_shrunk(g, g.length(ink, 2), g.length(ink, 3), FITTED))
    height, width = g.length(ink, 2), g.length(ink, 3)
    canvas = _padded(g, ink, g.tensor([0, 0, DILATIONS, DILATIONS] * 2))
    radius = _thickening(g, canvas, _long_side(g, height, width), box)
    wider = [canvas]
    for _ in range(DILATIONS):
        wider.append(g.dilate(wider[-1], 3))
    chosen = g.op("Gather", g.op("Concat", *wider, axis=0), radius, axis=0)
    start = g.op("Sub", g.number(DILATIONS), radius)
    end = g.op("Add", g.number(DILATIONS), radius)
    ends = g.joined(g.op("Add", height, end), g.op("Add", width, end))
    return g.part(chosen, [2, 3], g.joined(start, start), ends)


def _fitted(g: _Graph, ink: str, box: int) -> str:
    """Scaled so that the long side is `box`, and stretched so that the peak is 255."""
    height, width = g.length(ink, 2), g.length(ink, 3)
    longest = _long_side(g, height, width)
    half = g.div(longest, g.number(2))

    def side(length: str) -> str:
        scaled = g.op("Add", g.op("Mul", length, g.number(box)), half)
        return g.op("Max", g.div(scaled, longest), g.number(1))

    small = g.int32(g.resize_plane(ink, side(height), side(width)))
    peak = g.op("Max", g.peak(small), g.level(1))
    return g.uint8(g.div(g.op("Mul", small, g.level(255)), peak))


def _centred(g: _Graph, ink: str, size: int) -> str:
    """uint8 [1, 1, size, size], the centre of mass on pixel size / 2.

    Measured over MNIST's test images: the mean index of the ink is 14.0 +- 0.5 on both axes.
    """
    mass = g.op("Max", g.total(ink), g.number(1))

    def margins(axis: int) -> tuple[str, str]:
        length = g.length(ink, axis)
        profile = g.op("ReduceSum", g.int64(ink), g.number(5 - axis), keepdims=0)  # [1, 1, length]
        stop = g.op("Squeeze", length)
        index = g.op("Range", g.tensor(0), stop, g.tensor(1))
        moment = g.total(g.op("Mul", profile, index))
        # size / 2 - moment / mass, rounded to the nearest
        twice = g.op("Sub", g.op("Mul", mass, g.number(size + 1)), g.op("Mul", moment, g.number(2)))
        before = g.div(g.op("Max", twice, g.number(0)), g.op("Mul", mass, g.number(2)))
        free = g.op("Sub", g.number(size), length)
        before = g.op("Min", before, free)
        return before, g.op("Sub", free, before)

    (top, bottom), (left, right) = margins(2), margins(3)
    none = g.tensor([0, 0])
    return _padded(g, ink, g.joined(none, top, left, none, bottom, right))


def digit_graph(size: int = 28, box: int = 20) -> onnx.ModelProto:
    """The graph that makes a picture of one digit look as MNIST's do.

    image  uint8 [H, W, C], C = 1 or 3: a digit of any size anywhere on a page, dark on bright or
           bright on dark; onnxruntime refuses another C, and H or W of 0, when it runs
    pixels uint8 [size, size, 1]: bright on black, the long side of the digit's bounding box
           `box` pixels, its centre of mass on pixel size / 2; all 0 for a page without ink

    Steps: every n-th row and column of a large picture; grey; at most PAGE pixels; polarity by
    the third moment; minus the light of the page; minus grain; minus specks; bounding box;
    strokes as wide as MNIST's, if they are thinner; `box`; contrast; centre of mass.

    Raises GraphError for sizes in which nothing fits.
    Source: "THE MNIST DATABASE", yann.lecun.com/exdb/mnist: "size normalized to fit in a 20x20
    pixel box while preserving their aspect ratio ... centered in a 28x28 image by computing the
    center of mass of the pixels". Measured: 200 MNIST test images come out with a mean absolute
    difference of 0.2 grey levels.
    """
    _check_positive("size", size)
    _check_positive("box", box)
    if not MIN_BOX <= box <= size <= MAX_SIZE:
        raise GraphError(
            f"size is {size} and box is {box} pixels; expected {MIN_BOX} <= box <= size <= "
            f"{MAX_SIZE}. MNIST has size=28, box=20."
        )
    g = _Graph()
    ink = _without_specks(g, _ink(g, _page(g, "image")))
    digit = _fitted(g, _thickened(g, _cropped(g, ink), box), box)
    pixels = g.op("Reshape", _centred(g, digit, size), g.tensor([size, size, 1]))
    doc = (
        f"One picture of a digit, uint8 [H, W, C] with C = 1 or 3, to uint8 [{size}, {size}, 1] as "
        f"MNIST has them: bright on black, in a box of {box} pixels, centre of mass in the middle."
    )
    return g.model(pixels, (size, size, 1), doc, {"kind": "digit", "size": size, "box": box})


# ---------------------------------------------------------------------------------------- resize


def _kept(g: _Graph, length: str, crop: int, reference: int) -> tuple[str, str]:
    """int64 [1] each: start and end of the middle crop / reference of a side, rounded, at least
    one pixel."""
    scaled = g.op("Add", g.op("Mul", length, g.number(2 * crop)), g.number(reference))
    kept = g.op("Max", g.div(scaled, g.number(2 * reference)), g.number(1))
    start = g.div(g.op("Sub", length, kept), g.number(2))
    return start, g.op("Add", start, kept)


def _window(
    g: _Graph, image: str, wanted: tuple[int, int], fractions: tuple[tuple[int, int], ...]
) -> str:
    """uint8 [H, W, C]: the middle crop, and of it every n-th row and column, so that SAMPLES or
    more remain for each pixel of the result; a picture that has fewer keeps them all.

    One Slice for both: the crop of 12 megapixels alone costs 30 MB and 7 ms.
    """
    starts, ends, steps = [], [], []
    for axis, (crop, reference) in enumerate(fractions):
        start, end = _kept(g, g.length(image, axis), crop, reference)
        step = g.div(g.op("Sub", end, start), g.number(SAMPLES * wanted[axis]))
        steps.append(g.op("Max", step, g.number(1)))
        starts.append(g.op("Add", start, g.div(steps[-1], g.number(2))))
        ends.append(end)
    return g.op(
        "Slice", image, g.joined(*starts), g.joined(*ends), g.tensor([0, 1]), g.joined(*steps)
    )


def _rgb(g: _Graph, image: str) -> str:
    """uint8 [H, W, C] to uint8 [H, W, 3]: grey three times, or colour as it is."""
    return g.op("Expand", image, g.tensor([1, 1, 3]))


def resize_graph(
    height: int,
    width: int,
    color: Literal["gray", "rgb"],
    crop: tuple[int, int] | None = None,
    reference: tuple[int, int] | None = None,
) -> onnx.ModelProto:
    """The graph that crops the middle of a picture and resizes it.

    image  uint8 [H, W, C], C = 1 or 3; onnxruntime refuses another C, and H or W of 0, when it
           runs
    pixels uint8 [height, width, 3] for color="rgb", [height, width, 1] for "gray"

    `crop` is (rows, columns) of pictures of the size `reference`, (rows, columns) too. A picture
    of another size is cropped to the same fractions of its sides: crop=(178, 178) with
    reference=(218, 178) takes 178 / 218 of the height and the full width. The crop is stretched
    to height x width, whatever its aspect, by an antialiased linear `Resize`.

    Raises GraphError for sizes under 1, an unknown colour, a crop that exceeds its reference,
    and one of the two without the other.
    """
    _check_resize(height, width, color, crop, reference)
    g = _Graph()
    fractions = tuple(zip(crop, reference, strict=True)) if crop and reference else ((1, 1),) * 2
    image = _window(g, "image", (height, width), fractions)
    channels = 1 if color == "gray" else 3
    if color == "gray":
        pixels = g.resize_plane(_grey(g, image), g.number(height), g.number(width))
        pixels = g.op("Reshape", pixels, g.tensor([height, width, 1]))
    else:
        # Rows, columns and colours as [1, H, W, C]: the fastest of the six layouts tried.
        sizes = g.joined(g.tensor([1, height, width]), g.length(image, 2))
        batch = g.resize(g.op("Unsqueeze", image, g.number(0)), sizes)
        pixels = _rgb(g, g.op("Squeeze", batch, g.number(0)))
    doc = (
        f"One picture, uint8 [H, W, C] with C = 1 or 3, to uint8 [{height}, {width}, {channels}]"
        + (f", from the middle {crop} of {reference}." if crop else ".")
    )
    kind: dict[str, object] = {
        "kind": "resize",
        "height": height,
        "width": width,
        "color": color,
        "crop": crop,
        "reference": reference,
    }
    return g.model(pixels, (height, width, channels), doc, kind)


# ---------------------------------------------------------------------------------------- checks


def _check_positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise GraphError(f"{name} is {value!r}; expected a whole number of pixels, 1 or more.")


def _check_resize(
    height: int,
    width: int,
    color: str,
    crop: tuple[int, int] | None,
    reference: tuple[int, int] | None,
) -> None:
    _check_positive("height", height)
    _check_positive("width", width)
    if color not in ("gray", "rgb"):
        raise GraphError(f"color is {color!r}; expected 'gray' or 'rgb'.")
    if (crop is None) != (reference is None):
        raise GraphError(
            f"crop is {crop} and reference is {reference}; expected both or neither. Give the size "
            "(rows, columns) of the pictures on which the crop was chosen as the reference."
        )
    if crop is None or reference is None:
        return
    for name, pair in (("crop", crop), ("reference", reference)):
        if len(pair) != 2:
            raise GraphError(f"{name} is {pair}; expected two numbers, (rows, columns).")
        for part, value in zip(("rows", "columns"), pair, strict=True):
            _check_positive(f"{name} {part}", value)
    if crop[0] > reference[0] or crop[1] > reference[1]:
        raise GraphError(
            f"crop {crop} is larger than its reference {reference}; expected rows and columns "
            "within it. Both are (rows, columns); are they swapped?"
        )
