"""Both forms layer by layer, and every cause that can be told: from the files, from the answers,
from the first layer that differs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters import diagnose, onnx_file
from exporters.errors import ExportError
from exporters.first_difference import Pair, pair_up
from exporters.graph_difference import graph_differences
from exporters.portability import portability
from exporters.trace import Point, trace_onnx
from runtime.spec import PREPROCESS_INPUT, PREPROCESS_OUTPUT

from .forms import Form
from .sides import Sides


def traced(sides: Sides, images: NDArray[np.uint8] | None) -> tuple[tuple[Pair, ...], str]:
    """The layers of both on ``images``; nothing, and why, where a form cannot be looked into."""
    closed = [f.name for f in (sides.a, sides.b) if f.graph is None and f.network is None]
    if closed or images is None:
        return (), f"{' and '.join(closed)}: no layers to look into"
    try:
        return pair_up(_trace(sides.a, images), _trace(sides.b, images)), ""
    except ExportError as exc:
        return (), str(exc)


def _trace(form: Form, images: NDArray[np.uint8]) -> tuple[Point, ...]:
    if form.network is not None:
        from exporters.trace_torch import trace_torch

        return trace_torch(form.network, images)
    assert form.graph is not None
    return trace_onnx(form.graph, images)


def from_files(sides: Sides, pairs: tuple[Pair, ...]) -> Iterator[str]:
    """What the files themselves show, whatever the images are."""
    a, b = sides.a, sides.b
    yield from diagnose.of_parameters(pairs)
    if a.graph is not None and b.graph is not None:
        yield from graph_differences(a.graph, b.graph)
    if a.spec is not None and b.spec is not None and a.spec.labels != b.spec.labels:
        yield f"the labels are {', '.join(a.spec.labels)} in A and {', '.join(b.spec.labels)} in B"
    if a.spec is not None and a.thresholds and b.thresholds:
        for label, x, y in zip(a.spec.labels, a.thresholds, b.thresholds, strict=False):
            if x != y:
                yield f"the threshold of {label} is {x:g} in A and {y:g} in B"
    if a.preprocess is not None and b.preprocess is not None:
        yield from _preprocessing(a.preprocess, b.preprocess, (*a.golden, *b.golden))
    for side, form in (("A", a), ("B", b)):
        if form.precision == "int8" and form.graph is not None:
            verdict = portability(form.graph)
            if not verdict.portable:
                yield f"{side} is not portable: {verdict.reason}"


def _preprocessing(
    a: onnx.ModelProto, b: onnx.ModelProto, images: tuple[NDArray[np.uint8], ...]
) -> Iterator[str]:
    """Two bundles prepare images for themselves."""
    yield from (f"preprocess.onnx: {text}" for text in graph_differences(a, b))
    sessions = onnx_file.session(a), onnx_file.session(b)
    for index, image in enumerate(images):
        x, y = (s.run([PREPROCESS_OUTPUT], {PREPROCESS_INPUT: image})[0] for s in sessions)
        if x.shape != y.shape:
            yield f"preprocess.onnx makes {x.shape} pixels in A and {y.shape} in B"
            return
        if not np.array_equal(x, y):
            far = np.abs(x.astype(int) - y).max()
            where = f"golden image {index} by up to {far} levels"
            yield f"preprocess.onnx makes other pixels of {where}"
            return
