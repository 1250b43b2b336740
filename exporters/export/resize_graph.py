"""The graph that crops the middle of a picture and resizes it."""

from __future__ import annotations

from typing import Literal

import onnx

from exporters.errors import GraphError
from exporters.export.graph_builder import GraphBuilder, check_positive, gray

_SAMPLES = 4  # of a huge picture along each axis are averaged into a pixel of the result


def _kept(g: GraphBuilder, length: str, crop: int, reference: int) -> tuple[str, str]:
    """Return start and end, int64 [1] each, of the middle crop / reference of a side, rounded to at
    least one pixel."""
    scaled = g.op("Add", g.op("Mul", length, g.number(2 * crop)), g.number(reference))
    kept = g.op("Max", g.div(scaled, g.number(2 * reference)), g.number(1))
    start = g.div(g.op("Sub", length, kept), g.number(2))
    return start, g.op("Add", start, kept)


def _window(
    g: GraphBuilder, image: str, size: tuple[int, int], fractions: tuple[tuple[int, int], ...]
) -> str:
    """Take the middle crop of uint8 [H, W, C], and every n-th row and column of it.

    At least _SAMPLES remain for each pixel of the result; a smaller picture keeps all of its own.
    One Slice does both: the crop of 12 megapixels alone costs 30 MB and 7 ms.
    """
    starts, ends, steps = [], [], []
    for axis, (crop, reference) in enumerate(fractions):
        start, end = _kept(g, g.length(image, axis), crop, reference)
        step = g.div(g.op("Sub", end, start), g.number(_SAMPLES * size[axis]))
        steps.append(g.op("Max", step, g.number(1)))
        starts.append(g.op("Add", start, g.div(steps[-1], g.number(2))))
        ends.append(end)
    return g.op(
        "Slice", image, g.joined(*starts), g.joined(*ends), g.tensor([0, 1]), g.joined(*steps)
    )


def resize_graph(
    height: int,
    width: int,
    color: Literal["gray", "rgb"],
    crop: tuple[int, int] | None = None,
    reference: tuple[int, int] | None = None,
) -> onnx.ModelProto:
    """Return the graph that crops the middle of a picture and resizes it.

    image  uint8 [H, W, C], C = 1 or 3; onnxruntime refuses another C, and H or W of 0, when it
           runs
    pixels uint8 [height, width, 3] for color="rgb", [height, width, 1] for "gray"

    ``crop`` is (rows, columns) of pictures of the size ``reference``, (rows, columns) too. A
    picture of another size is cropped to the same fractions of its sides: crop=(178, 178) with
    reference=(218, 178) takes 178 / 218 of the height and the full width. The crop is stretched
    to height x width, whatever its aspect, by an antialiased linear `Resize`.

    Raises GraphError for sizes under 1, an unknown color, a crop that exceeds its reference, and
    one of the two without the other.
    """
    _check_resize(height, width, color, crop, reference)
    g = GraphBuilder()
    fractions = tuple(zip(crop, reference, strict=True)) if crop and reference else ((1, 1),) * 2
    image = _window(g, "image", (height, width), fractions)
    channels = 1 if color == "gray" else 3
    if color == "gray":
        pixels = g.resize_plane(gray(g, image), g.number(height), g.number(width))
        pixels = g.op("Reshape", pixels, g.tensor([height, width, 1]))
    else:
        # rows, columns and colors as [1, H, W, C]: the fastest of the six layouts tried
        sizes = g.joined(g.tensor([1, height, width]), g.length(image, 2))
        batch = g.resize(g.op("Unsqueeze", image, g.number(0)), sizes)
        image = g.op("Squeeze", batch, g.number(0))
        pixels = g.op("Expand", image, g.tensor([1, 1, 3]))  # gray three times, color as it is
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


def _check_resize(
    height: int,
    width: int,
    color: str,
    crop: tuple[int, int] | None,
    reference: tuple[int, int] | None,
) -> None:
    check_positive("height", height)
    check_positive("width", width)
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
            check_positive(f"{name} {part}", value)
    if crop[0] > reference[0] or crop[1] > reference[1]:
        raise GraphError(
            f"crop {crop} is larger than its reference {reference}; expected rows and columns "
            "within it. Both are (rows, columns); are they swapped?"
        )
