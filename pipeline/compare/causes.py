"""Both forms layer by layer, and every cause that can be told: from the files, from the answers,
from the first layer that differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.evaluate.probabilities import Floats
from exporters.evaluate.tasks import LABEL_TASKS, LabelTask, label_task, task_of_answers
from exporters.explain import causes as diagnose
from exporters.explain.first_divergence import Pair, Parting, pair_up
from exporters.explain.graph_diff import graph_differences
from exporters.explain.trace import Point, trace_onnx
from exporters.explain.weight_causes import of_parameters
from exporters.quantize.portability import portability
from pipeline.compare.forms import Form
from pipeline.compare.sides import Sides


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
        from exporters.explain.trace_torch import trace_torch

        return trace_torch(form.network, images)
    assert form.graph is not None
    return trace_onnx(form.graph, images)


def from_files(sides: Sides, pairs: tuple[Pair, ...]) -> Iterator[str]:
    """What the files themselves show, whatever the images are."""
    a, b = sides.a, sides.b
    yield from of_parameters(pairs)
    if a.graph is not None and b.graph is not None:
        yield from graph_differences(a.graph, b.graph)
    if a.spec is not None and b.spec is not None and a.spec.labels != b.spec.labels:
        yield f"the labels are {', '.join(a.spec.labels)} in A and {', '.join(b.spec.labels)} in B"
    if a.spec is not None and a.thresholds and b.thresholds:
        for label, x, y in zip(a.spec.labels, a.thresholds, b.thresholds, strict=False):
            if x != y:
                yield f"the threshold of {label} is {x:g} in A and {y:g} in B"
    for side, form in (("A", a), ("B", b)):
        if form.precision == "int8" and form.graph is not None:
            verdict = portability(form.graph)
            if not verdict.portable:
                yield f"{side} is not portable: {verdict.reason}"


@dataclass(frozen=True)
class Evidence:
    """Two forms that differ."""

    sides: Sides
    a: Floats  # answers of A [n, labels], all of them numbers
    b: Floats
    pairs: tuple[Pair, ...]
    parting: Parting | None
    unsteady: bool  # a side changes its answers, so that nothing else explains them


def _task(found: Evidence) -> LabelTask:
    """The stated task; of recorded outputs the one that they look like."""
    spec = found.sides.spec
    if spec is not None:
        return label_task(spec.task)
    tasks = [task_of_answers((outputs,)) for outputs in (found.a, found.b)]
    labelled = [task for task in tasks if isinstance(task, LabelTask)]
    return min(labelled, key=lambda task: not task.sums_to_one, default=LABEL_TASKS[0])


def of_answers(found: Evidence, images: NDArray[np.uint8] | None) -> Iterator[str]:
    """Causes that explain the difference; the layers were traced on ``images``."""
    sides = found.sides
    if len(found.a) and not found.unsteady:
        labels = sides.labels(found.a.shape[1])
        yield from diagnose.of_outputs(found.a, found.b, labels, _task(found))
        # Foreign inputs need not be images: there is nothing to mirror or to exchange.
        a, b = sides.a.model, sides.b.model
        if images is not None and a is not None and b is not None and sides.takes is None:
            yield from diagnose.of_images(a, b, images, closed=not found.pairs)
            yield from diagnose.of_input(found.pairs, images, sides.precision)
    if found.parting is not None:
        yield from diagnose.of_parting(found.parting)
