"""The proof that a prepared model still gives the original's answers, on data."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.errors import GraphError
from exporters.evaluate.tasks.protocol import not_comparable
from exporters.foreign.foreign_model import ForeignModel, set_batch
from exporters.graph import onnx_file, opset_conversion

# Share of the largest value of an output: sums in another order differ by some 1e-6 of it.
SAME = 1e-4


def difference(foreign: ForeignModel, images: NDArray[Any]) -> float:
    """Return the largest difference between the outputs of the original and the prepared model, as
    a share of the largest value of that output; raises GraphError when it exceeds ``SAME``. Equal
    infinities and values that are not numbers on both sides do not differ."""
    feed = {foreign.input.name: images}
    before, after = (
        onnx_file.run_by_image(onnx_file.session(model), foreign.outputs, feed)
        for model in (foreign.original, foreign.model)
    )
    worst = 0.0
    for name, was, now in zip(foreign.outputs, before, after, strict=True):
        distance = _distance(was, now)
        if distance > SAME:
            described = not_comparable(name, was, now) or (
                f"output {name!r} differs by {distance:.3g} of its largest value, allowed {SAME:g}"
            )
            raise GraphError(
                "the model changed while it was prepared "
                f"({'; '.join(foreign.changes) or 'nothing was changed in the file itself'}): "
                f"{described}. {_advice(foreign)}"
            )
        worst = max(worst, distance)
    return worst


def _advice(foreign: ForeignModel) -> str:
    if any(change.startswith("opset raised") for change in foreign.changes):
        return f"Export it again with opset {opset_conversion.MIN_OPSET} or later."
    return "Please report the file."


def one_at_a_time(foreign: ForeignModel, pair: NDArray[Any]) -> ForeignModel:
    """Return the model with a batch of 1 where its batch is free in name only: a Reshape inside
    says 1, for example, and two images ``pair`` [2, ...] together are refused or get other answers
    than one by one. Raises GraphError when even a single image is refused."""
    if foreign.input.batch is not None or len(pair) < 2:
        return foreign
    reason = _batch_problem(foreign, pair)
    if not reason:
        return foreign
    name = _batch_name(foreign)
    original, model = onnx_file.from_bytes(foreign.original), onnx_file.copied(foreign.model)
    for part in (original, model):
        set_batch(part, foreign.input.name, 1)
    return replace(
        foreign,
        original=onnx_file.to_bytes(original),
        model=model,
        input=replace(foreign.input, shape=(1, *foreign.input.shape[1:])),
        changes=(
            *foreign.changes,
            f"one image at a time: its batch {name!r} is free in name only ({reason})",
        ),
        named_batch=name,
    )


def _batch_problem(foreign: ForeignModel, pair: NDArray[Any]) -> str:
    """Return why two images cannot go together; "" where they can."""
    session = onnx_file.session(foreign.original)

    def answers(images: NDArray[Any]) -> list[NDArray[Any]]:
        return onnx_file.run_by_image(session, foreign.outputs, {foreign.input.name: images})

    single = (answers(pair[:1]), answers(pair[1:2]))
    alone = [onnx_file.joined(parts) for parts in zip(*single, strict=True)]
    try:
        together = answers(pair[:2])
    except GraphError as exc:
        return _refusing_node(str(exc))
    if all(_distance(a, b) <= SAME for a, b in zip(alone, together, strict=True)):
        return ""
    if any(a.ndim < 1 or len(a) != 2 for a in alone):
        return ""  # results whose number depends on the image
    return "two images together get other answers than one by one"


def _batch_name(foreign: ForeignModel) -> str:
    graph = onnx_file.from_bytes(foreign.original).graph
    (value,) = [value for value in graph.input if value.name == foreign.input.name]
    return str(value.type.tensor_type.shape.dim[0].dim_param)


def _refusing_node(error: str) -> str:
    """Name the node that refuses, from onnxruntime's message."""
    match = re.search(r"while running (\S+) node\. Name:'([^']*)'", error)
    return f"{match[1]} {match[2]!r} refuses two" if match else "two images together are refused"


def _distance(was: NDArray[Any], now: NDArray[Any]) -> float:
    """Return the largest difference as a share of the largest value; infinite for other shapes,
    and where only one side is a number."""
    if was.shape != now.shape:
        return math.inf
    numbers = np.isfinite(was) & np.isfinite(now)
    if not ((was == now) | (np.isnan(was) & np.isnan(now)))[~numbers].all():
        return math.inf
    before, after = was[numbers].astype(np.float64), now[numbers].astype(np.float64)
    largest = float(np.abs(before).max(initial=0.0)) or 1.0
    return float(np.abs(before - after).max(initial=0.0)) / largest
