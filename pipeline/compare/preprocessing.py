"""How both sides prepare images: a bundle by its own ``preprocess.onnx``, a checkpoint or a bare
file by that of the run it belongs to. Any pixel that differs is a failure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from exporters.errors import GraphError
from exporters.explain.graph_diff import graph_differences
from exporters.explain.pixel_changes import move_between, tone_between
from exporters.explain.preprocess_difference import PreprocessDifference, preprocess_difference
from exporters.graph import onnx_file
from pipeline.compare.forms import Form
from pipeline.compare.result import PreprocessRow
from pipeline.compare.sides import Sides, run_of
from pipeline.errors import DataError
from pipeline.verify.images import DATA_FOLDER
from runtime.manifest import PREPROCESS_NAME

_NOTHING = PreprocessRow(None, None)


@dataclass(frozen=True)
class _Source:
    """The graph that prepares one side's images, and where it is from."""

    words: str
    graph: onnx.ModelProto


def compared(sides: Sides) -> PreprocessRow:
    """Both graphs on many pictures. Without one on either side nothing is compared, which
    ``unknown`` says. Raises DataError for a graph that cannot be loaded."""
    if sides.takes is not None:
        return _NOTHING  # foreign files take their inputs as they are
    a, b = _source(sides.a), _source(sides.b)
    if a is None or b is None:
        lacking = [f.name for f, s in ((sides.a, a), (sides.b, b)) if s is None]
        unknown = (
            f"PREPROCESSING WAS NOT COMPARED: no {PREPROCESS_NAME} belongs to "
            f"{' or '.join(lacking)}. Give a bundle, or a file inside the folder of its run, "
            f"where {DATA_FOLDER}/{PREPROCESS_NAME} is."
        )
        known_a, known_b = (None if s is None else s.words for s in (a, b))
        return PreprocessRow(known_a, known_b, unknown=unknown)
    if onnx_file.to_bytes(a.graph) == onnx_file.to_bytes(b.graph):
        return PreprocessRow(a.words, b.words, same_file=True)
    try:
        found = preprocess_difference(a.graph, b.graph, (*sides.a.golden, *sides.b.golden))
    except GraphError as exc:
        raise DataError(f"{PREPROCESS_NAME} of {a.words} or {b.words}: {exc}") from exc
    return PreprocessRow(
        a.words,
        b.words,
        pictures=found.tried,
        differing=found.differing,
        largest=found.largest,
        worst=found.worst,
        causes=tuple(_causes(a.graph, b.graph, found)),
    )


def failures(row: PreprocessRow) -> Iterator[str]:
    """A sentence, where any pixel differs or nothing could be tried."""
    if row.differing:
        yield (
            f"{PREPROCESS_NAME} makes other pixels of {row.differing} of {row.pictures} pictures, "
            f"by up to {row.largest} levels (A: {row.a}; B: {row.b}). Worst: {row.worst}"
        )
    elif not (row.pictures or row.same_file or row.unknown) and row.a:
        yield f"{PREPROCESS_NAME} of both sides refuses every picture: it cannot be compared"


def _source(form: Form) -> _Source | None:
    if form.preprocess is not None:
        return _Source(form.name, form.preprocess)
    folder = run_of(form)
    file = None if folder is None else folder / DATA_FOLDER / PREPROCESS_NAME
    if file is None or not file.is_file() or form.model is None:
        return None
    return _Source(str(file), onnx_file.load(file))


def _causes(a: onnx.ModelProto, b: onnx.ModelProto, found: PreprocessDifference) -> Iterator[str]:
    """What was done to the pixels, if one thing explains all; then the nodes that differ."""
    pairs = [(x, y) for x, y in found.pairs if x.shape == found.pairs[0][0].shape]
    if pairs:
        x, y = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
        words, tone = move_between(x, y, 0), tone_between(x, y.astype(np.float32))
        if words is None and tone is not None:
            words = tone.words
        if words is not None:
            yield f"{PREPROCESS_NAME}: B's pixels are A's {words}"
    differences = list(graph_differences(a, b))
    yield from (f"{PREPROCESS_NAME}: {text}" for text in differences[:_NODES])
    if not found.equal:
        yield f"{PREPROCESS_NAME} makes other pixels of {found.first}"
        return
    yield (
        f"{PREPROCESS_NAME}: the two graphs are not the same file, but make the same pixels of all "
        f"{found.tried} pictures"
    )


_NODES = 4  # differing nodes that are named
