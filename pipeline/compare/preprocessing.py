"""The preprocessing of both sides: a bundle has its own ``preprocess.onnx``, a checkpoint or a bare
file that of the run it belongs to. Any pixel that differs is a failure."""

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
from pipeline.compare.model_forms import ModelForm
from pipeline.compare.pair import ModelPair, run_of
from pipeline.compare.result import PreprocessRow
from pipeline.errors import DataError
from pipeline.verify.images import DATA_FOLDER
from runtime.manifest import PREPROCESS_NAME

_NODES = 4  # differing nodes that are named


@dataclass(frozen=True)
class _Source:
    """The graph that prepares one side's images."""

    name: str  # the bundle or the file
    graph: onnx.ModelProto


def compare_preprocessing(pair: ModelPair) -> PreprocessRow:
    """Run both graphs on many pictures; ``unknown`` of the result names a side without a graph.
    Raises DataError for a graph that cannot be loaded."""
    if pair.takes is not None:
        return PreprocessRow(None, None)  # foreign files take their inputs as they are
    a, b = _source(pair.a), _source(pair.b)
    if a is None or b is None:
        lacking = [f.name for f, s in ((pair.a, a), (pair.b, b)) if s is None]
        unknown = (
            f"PREPROCESSING WAS NOT COMPARED: no {PREPROCESS_NAME} belongs to "
            f"{' or '.join(lacking)}. Give a bundle, or a file inside the folder of its run, "
            f"where {DATA_FOLDER}/{PREPROCESS_NAME} is."
        )
        name_a, name_b = (None if s is None else s.name for s in (a, b))
        return PreprocessRow(name_a, name_b, unknown=unknown)
    if onnx_file.to_bytes(a.graph) == onnx_file.to_bytes(b.graph):
        return PreprocessRow(a.name, b.name, same_file=True)
    try:
        gap = preprocess_difference(a.graph, b.graph, (*pair.a.golden, *pair.b.golden))
    except GraphError as exc:
        raise DataError(f"{PREPROCESS_NAME} of {a.name} or {b.name}: {exc}") from exc
    return PreprocessRow(
        a.name,
        b.name,
        pictures=gap.tried,
        differing=gap.differing,
        largest=gap.largest,
        worst=gap.worst,
        causes=tuple(_causes(a.graph, b.graph, gap)),
    )


def failures(row: PreprocessRow) -> Iterator[str]:
    """Yield a sentence where any pixel differs or no picture could be tried."""
    if row.differing:
        yield (
            f"{PREPROCESS_NAME} makes different pixels of {row.differing} of {row.pictures} "
            f"pictures, by up to {row.largest} levels (A: {row.a}; B: {row.b}). Worst: {row.worst}"
        )
    elif not (row.pictures or row.same_file or row.unknown) and row.a:
        yield f"{PREPROCESS_NAME} of both sides refuses every picture: it cannot be compared"


def _source(form: ModelForm) -> _Source | None:
    if form.preprocess is not None:
        return _Source(form.name, form.preprocess)
    folder = run_of(form)
    file = None if folder is None else folder / DATA_FOLDER / PREPROCESS_NAME
    if file is None or not file.is_file() or form.model is None:
        return None
    return _Source(str(file), onnx_file.load(file))


def _causes(a: onnx.ModelProto, b: onnx.ModelProto, gap: PreprocessDifference) -> Iterator[str]:
    """Yield the one change of pixels that explains all of them, then the nodes that differ."""
    pairs = [(x, y) for x, y in gap.pairs if x.shape == gap.pairs[0][0].shape]
    if pairs:
        x, y = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
        words, tone = move_between(x, y, 0), tone_between(x, y.astype(np.float32))
        if words is None and tone is not None:
            words = tone.words
        if words is not None:
            yield f"{PREPROCESS_NAME}: B's pixels are A's {words}"
    differences = list(graph_differences(a, b))
    yield from (f"{PREPROCESS_NAME}: {text}" for text in differences[:_NODES])
    if not gap.equal:
        yield f"{PREPROCESS_NAME} makes different pixels of {gap.first}"
        return
    yield (
        f"{PREPROCESS_NAME}: the two graphs are different files, but make the same pixels of all "
        f"{gap.tried} pictures"
    )
