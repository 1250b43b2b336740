"""The graph that finds a digit on a page and writes it as MNIST did."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from exporters.errors import GraphError
from exporters.export.graph_builder import FAR, GraphBuilder, check_positive, gray

# Lengths are in pixels of the image that they are used on.
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
FAINTEST = 24  # gray levels; a page with less contrast is blank
CELL = 8  # pixels of the page in a cell of the density map
GROWTH_STEPS = 5  # each reaches 2 cells: 80 pixels from the dense cells along a stroke
BOX_LEVEL = 48  # of 255: ink fainter than this does not widen the bounding box
FITTED = 80  # long side of the digit on which the stroke is thickened: 4 times MNIST's 20
STROKE_TENTHS = 24  # stroke width to reach, in tenths of an output pixel; MNIST's median is 25
DILATIONS = 5  # at most this many pixels on each side of a stroke
MIN_BOX = 8  # pixels; a stroke of 2.4 pixels needs some room
MAX_SIZE = 128  # pixels; the page has PAGE, so a larger result would only be blurred


def _shrunk(g: GraphBuilder, height: str, width: str, long_side: int) -> tuple[str, str]:
    """Return the size with the same aspect and at most ``long_side`` pixels on the long side."""
    longest = g.op("Max", g.op("Max", height, width), g.number(long_side))

    def side(length: str) -> str:
        scaled = g.div(g.op("Mul", length, g.number(long_side)), longest)
        return g.op("Max", scaled, g.number(1))

    return side(height), side(width)


def _sampled(g: GraphBuilder, image: str) -> str:
    """Take every n-th row and column of uint8 [H, W, C]: at most 2 * SAMPLED - 1 pixels on the long
    side."""
    longest = g.op("Max", g.length(image, 0), g.length(image, 1))
    step = g.op("Max", g.div(longest, g.number(SAMPLED)), g.number(1))
    return g.op(
        "Slice",
        image,
        g.tensor([0, 0]),
        g.tensor([FAR, FAR]),
        g.tensor([0, 1]),
        g.joined(step, step),
    )


def _page(g: GraphBuilder, image: str) -> str:
    """Shrink uint8 [H, W, C] to uint8 [1, 1, h, w], at most PAGE on the long side."""
    plane = gray(g, _sampled(g, image))
    return g.resize_plane(plane, *_shrunk(g, g.length(plane, 2), g.length(plane, 3), PAGE))


def _dark_paper(g: GraphBuilder, page: str) -> str:
    """Return bool [1]: the ink is brighter than the paper.

    Ink is the smaller part and far from the rest, so the sign of the third moment shows the side
    it is on. The light of the page has edges as well, so a coarse estimate of it is subtracted
    first.
    """
    height, width = g.length(page, 2), g.length(page, 3)
    light = g.resize_plane(page, *_shrunk(g, height, width, POLARITY))
    light = g.resize_plane(light, height, width)
    rest = g.int64(g.op("Sub", g.int32(page), g.int32(light)))
    # minus the rounded mean: half a level does not matter at the contrast of ink
    rest = g.op("Sub", rest, g.div(g.total(rest), g.op("Size", rest)))
    cubes = g.op("Mul", g.op("Mul", rest, rest), rest)
    return g.op("Greater", g.total(cubes), g.number(0))


def _paper(g: GraphBuilder, page: str) -> str:
    """Return the level of dark paper at each pixel of a page smaller than LIGHT, uint8: the page
    without everything narrower than OPENING."""
    eroded = g.inverted(g.dilate(g.inverted(page), OPENING))
    return g.dilate(eroded, OPENING)


def _noise(g: GraphBuilder, rest: str) -> tuple[str, str]:
    """Return the median and the standard deviation, int32 [1] each, of paper that covers more than
    half of an int32 [1, 1, h, w] image."""
    longest = g.op("Max", g.length(rest, 2), g.length(rest, 3))
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
    # In a normal distribution 16 % are more than one standard deviation below the median.
    low = g.op("Gather", "lowest", g.div(g.op("Mul", half, g.number(32)), g.number(100)))
    return median, g.op("Sub", median, low)


def _bright(g: GraphBuilder, image: str, flip: str) -> str:
    """Return the image with bright ink on dark paper, int32; ``flip`` is 255 where the ink is
    dark."""
    return g.op("Abs", g.op("Sub", g.int32(image), flip))


def _above_paper(g: GraphBuilder, page: str) -> tuple[str, str]:
    """Return the distance of each pixel from the local level of the paper, int32 [1, 1, h, w],
    positive for ink of either polarity; and the unevenness of the light, int32 [1]."""
    height, width = g.length(page, 2), g.length(page, 3)
    small = g.resize_plane(page, *_shrunk(g, height, width, LIGHT))
    flip = g.op("Where", _dark_paper(g, small), g.level(0), g.level(255))
    paper = _paper(g, g.uint8(_bright(g, small, flip)))
    darkest = g.inverted(g.peak(g.inverted(paper)))
    spread = g.op("Sub", g.int32(g.peak(paper)), g.int32(darkest))
    smooth = g.resize_plane(paper, *_shrunk(g, height, width, SMOOTH))
    smooth = g.resize_plane(smooth, height, width)
    return g.op("Sub", _bright(g, page, flip), g.int32(smooth)), spread


def _ink(g: GraphBuilder, page: str) -> str:
    """Turn a uint8 page of either polarity into uint8 ink: 0 is paper, 255 the strongest ink."""
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


def _without_specks(g: GraphBuilder, ink: str) -> str:
    """Keep the ink that is dense, or that a few steps along other ink connect to dense ink."""
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


def _cropped(g: GraphBuilder, ink: str) -> str:
    """Crop to the bounding box of the ink; a blank page stays whole."""

    def span(axis: int) -> tuple[str, str]:
        across = g.op("ReduceMax", ink, g.number(5 - axis), keepdims=0)
        inked = g.int32(g.op("Greater", g.int32(across), g.level(BOX_LEVEL)))  # [1, 1, length]
        flat = g.op("Reshape", inked, g.number(-1))
        first = g.op("ArgMax", flat, keepdims=1)
        last = g.op("ArgMax", flat, keepdims=1, select_last_index=1)
        return first, g.op("Add", last, g.number(1))

    (top, bottom), (left, right) = span(2), span(3)
    return g.part(ink, [2, 3], g.joined(top, left), g.joined(bottom, right))


def _padded(g: GraphBuilder, image: str, pads: str) -> str:
    return g.op("Pad", image, pads, g.tensor(0, np.uint8))


def _gradient(g: GraphBuilder, ink: str) -> str:
    """Return the sum of differences between neighbors along rows and columns, int64 [1]."""
    whole = g.int32(ink)

    def along(axis: int) -> str:
        after = g.part(whole, [axis], g.number(1), g.number(FAR))
        before = g.part(whole, [axis], g.number(0), g.number(-1))
        return g.total(g.op("Abs", g.op("Sub", after, before)))

    return g.op("Add", along(2), along(3))


def _thickening(g: GraphBuilder, ink: str, long_side: str, box: int) -> str:
    """Return the pixels by which to dilate, int64 [1], for strokes of STROKE_TENTHS in the box.

    A stroke of width w and length l holds w * l of ink, and the differences over it add up to
    2 * l * (|cos| + |sin|) of its direction, on average 2 * l * 4 / pi. So w = 2.55 * ink /
    gradient, in which blur and contrast cancel. A dilation by r widens w to w + 2 r and the long
    side n to n + 2 r, which is then scaled to ``box``:
    (w + 2 r) * box / (n + 2 r) = STROKE_TENTHS / 10 is solved for r.
    """
    mass = g.total(ink)
    gradient = _gradient(g, ink)
    target = g.op("Mul", g.op("Mul", long_side, gradient), g.number(STROKE_TENTHS * 10))
    present = g.op("Mul", mass, g.number(255 * box))
    missing = g.op("Sub", target, present)  # 100 * gradient * (n * t - w * box)
    per_pixel = g.op("Mul", gradient, g.number(200 * box - 20 * STROKE_TENTHS))
    radius = g.div(missing, g.op("Max", per_pixel, g.number(1)))
    return g.clip(radius, g.number(0), g.number(DILATIONS))


def _thickened(g: GraphBuilder, ink: str, box: int) -> str:
    """Widen the strokes of ink in its bounding box to at least those of MNIST."""
    ink = g.resize_plane(ink, *_shrunk(g, g.length(ink, 2), g.length(ink, 3), FITTED))
    height, width = g.length(ink, 2), g.length(ink, 3)
    canvas = _padded(g, ink, g.tensor([0, 0, DILATIONS, DILATIONS] * 2))
    radius = _thickening(g, canvas, g.op("Max", height, width), box)
    wider = [canvas]
    for _ in range(DILATIONS):
        wider.append(g.dilate(wider[-1], 3))
    chosen = g.op("Gather", g.op("Concat", *wider, axis=0), radius, axis=0)
    start = g.op("Sub", g.number(DILATIONS), radius)
    end = g.op("Add", g.number(DILATIONS), radius)
    ends = g.joined(g.op("Add", height, end), g.op("Add", width, end))
    return g.part(chosen, [2, 3], g.joined(start, start), ends)


def _fitted(g: GraphBuilder, ink: str, box: int) -> str:
    """Scale the long side to ``box`` pixels and stretch the contrast to a peak of 255."""
    height, width = g.length(ink, 2), g.length(ink, 3)
    longest = g.op("Max", height, width)
    half = g.div(longest, g.number(2))

    def side(length: str) -> str:
        scaled = g.op("Add", g.op("Mul", length, g.number(box)), half)
        return g.op("Max", g.div(scaled, longest), g.number(1))

    small = g.int32(g.resize_plane(ink, side(height), side(width)))
    peak = g.op("Max", g.peak(small), g.level(1))
    return g.uint8(g.div(g.op("Mul", small, g.level(255)), peak))


def _centered(g: GraphBuilder, ink: str, size: int) -> str:
    """Place the center of mass on pixel size / 2 of uint8 [1, 1, size, size].

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
    """Return the graph that makes a picture of one digit look like MNIST's.

    image  uint8 [H, W, C], C = 1 or 3: a digit of any size anywhere on a page, dark on bright or
           bright on dark; onnxruntime refuses another C, and H or W of 0, when it runs
    pixels uint8 [size, size, 1]: bright on black, the long side of the digit's bounding box
           ``box`` pixels, its center of mass on pixel size / 2; all 0 for a page without ink

    Steps: every n-th row and column of a large picture; gray; at most PAGE pixels; polarity by
    the third moment; minus the light of the page; minus grain; minus specks; bounding box;
    strokes at least as wide as MNIST's; ``box``; contrast; center of mass.

    Raises GraphError for sizes in which nothing fits.
    Source: "THE MNIST DATABASE", yann.lecun.com/exdb/mnist: "size normalized to fit in a 20x20
    pixel box while preserving their aspect ratio ... centered in a 28x28 image by computing the
    center of mass of the pixels". Measured: 200 MNIST test images come out with a mean absolute
    difference of 0.2 gray levels.
    """
    check_positive("size", size)
    check_positive("box", box)
    if not MIN_BOX <= box <= size <= MAX_SIZE:
        raise GraphError(
            f"size is {size} and box is {box} pixels; expected {MIN_BOX} <= box <= size <= "
            f"{MAX_SIZE}. MNIST has size=28, box=20."
        )
    g = GraphBuilder()
    ink = _without_specks(g, _ink(g, _page(g, "image")))
    digit = _fitted(g, _thickened(g, _cropped(g, ink), box), box)
    pixels = g.op("Reshape", _centered(g, digit, size), g.tensor([size, size, 1]))
    doc = (  # part of the file's bytes, and so of a bundle's id
        f"One picture of a digit, uint8 [H, W, C] with C = 1 or 3, to uint8 [{size}, {size}, 1] as "
        f"MNIST has them: bright on black, in a box of {box} pixels, centre of mass in the middle."
    )
    return g.model(pixels, (size, size, 1), doc, {"kind": "digit", "size": size, "box": box})
