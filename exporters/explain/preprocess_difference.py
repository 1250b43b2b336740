"""Two preprocessing graphs on the same pictures: any pixel that differs counts.
``pixel_changes.py`` looks for the cause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from exporters.explain.pictures import Picture, Pixels, pictures, sizes
from exporters.graph import onnx_file
from runtime.images import as_image
from runtime.spec import PREPROCESS_INPUT, PREPROCESS_OUTPUT

_ENOUGH = 64  # pictures that differ; more of them show nothing new
_USUAL = 224  # side of a model whose graph does not state its size
_MENTIONED = 6  # sizes that occur in only one graph; each costs some 70 pictures


@dataclass(frozen=True)
class PreprocessDifference:
    """The results of two preprocessing graphs on the same pictures."""

    tried: int  # pictures that at least one of them takes
    differing: int  # pictures with any pixel or shape that differs, or that only one refuses
    largest: int  # difference in levels; 255 where the shapes differ or one graph refuses
    worst: str  # the picture with it, and its difference
    first: str  # the first picture that differs, and its difference
    pairs: tuple[tuple[Pixels, Pixels], ...]  # results that differ, of equal shape [h, w, c]

    @property
    def equal(self) -> bool:
        """True where every pixel of every picture is the same."""
        return not self.differing


def preprocess_difference(
    a: onnx.ModelProto, b: onnx.ModelProto, more: tuple[Pixels, ...] = ()
) -> PreprocessDifference:
    """Run both graphs, uint8 [H, W, C] to uint8 [h, w, c], on ``more`` and on generated pictures.

    Sizes that occur in only one of the graphs are tried as well: pictures of 999, 1,000 and 1,001
    rows find a branch at 1,000. Raises GraphError for a graph that cannot be loaded.
    """
    run_a, run_b = PreprocessGraph(a), PreprocessGraph(b)
    tried = differing = 0
    largest, worst, first = 0, "", ""
    pairs: list[tuple[Pixels, Pixels]] = []
    for picture in _all_pictures(a, b, more):
        x, y = run_a(picture.pixels), run_b(picture.pixels)
        tried += x is not None or y is not None
        gap, words = _gap(x, y)
        if not words:
            continue
        differing += 1
        first = first or f"{picture.words} by up to {gap} levels"
        if gap > largest:
            largest, worst = gap, f"{picture.words}: {words}"
        if x is not None and y is not None and x.shape == y.shape:
            pairs.append((x, y))
        if differing == _ENOUGH:
            break
    return PreprocessDifference(tried, differing, largest, worst, first, tuple(pairs))


class PreprocessGraph:
    """A preprocessing graph as a function that returns None for a picture it refuses."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session = onnx_file.session(model)
        self._options = ort.RunOptions()
        self._options.log_severity_level = 4  # refusals are part of the comparison

    def __call__(self, image: Pixels) -> NDArray[np.uint8] | None:
        """Preprocess an image [H, W, C]."""
        try:
            (pixels,) = self._session.run(
                [PREPROCESS_OUTPUT], {PREPROCESS_INPUT: image}, self._options
            )
        except Exception:  # onnxruntime raises a dozen unrelated classes
            return None
        return np.asarray(pixels)


def _gap(x: NDArray[np.uint8] | None, y: NDArray[np.uint8] | None) -> tuple[int, str]:
    """Return the largest difference in levels with its description; "" where there is none."""
    if x is None or y is None:
        if x is None and y is None:
            return 0, ""
        return 255, f"only {'A' if x is None else 'B'} refuses it"
    if x.shape != y.shape or x.dtype != y.dtype:
        return 255, f"{x.dtype} {list(x.shape)} in A and {y.dtype} {list(y.shape)} in B"
    gap = np.abs(x.astype(np.int64) - y)
    far = int(gap.max(initial=0))
    share = 100 * float((gap > 0).mean()) if gap.size else 0.0
    return far, f"{share:.3g} % of the pixels differ, by up to {far} levels" if far else ""


def _all_pictures(
    a: onnx.ModelProto, b: onnx.ModelProto, more: tuple[Pixels, ...]
) -> Iterator[Picture]:
    for index, image in enumerate(more):
        yield Picture(f"golden image {index}", image)
    height, width = _output_size(a)
    mentioned = sorted(_integers(a) ^ _integers(b))[:_MENTIONED]
    for picture in pictures(sizes(height, width, mentioned)):
        yield picture
        if picture.pixels.shape[2] == 4:  # as the predictor gives it to the graph
            yield Picture(f"{picture.words}, laid over white", as_image(picture.pixels))


def _output_size(model: onnx.ModelProto) -> tuple[int, int]:
    shape = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    height, width = (*shape[:2], 0, 0)[:2]
    return height or _USUAL, width or _USUAL


def _integers(model: onnx.ModelProto) -> set[int]:
    """Return the whole numbers in a graph's constants that may be sizes of pictures."""
    stored = list(model.graph.initializer)
    for node in model.graph.node:
        stored += [entry.t for entry in node.attribute if entry.name == "value"]
    sizes_in_graph: set[int] = set()
    for tensor in stored:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind in "iu" and values.size < 16:
            sizes_in_graph.update(int(v) for v in values.reshape(-1) if 8 <= v <= 5_000)
    return sizes_in_graph
