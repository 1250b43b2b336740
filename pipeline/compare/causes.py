"""Both sides layer by layer, and the causes of a difference: in the files, in the answers, and at
the first layer that differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.evaluate.probabilities import Floats
from exporters.evaluate.tasks import LABEL_TASKS, LabelTask, label_task, task_of_answers
from exporters.explain.causes import (
    divergence_causes,
    image_causes,
    input_causes,
    output_causes,
)
from exporters.explain.first_divergence import Divergence, PointPair, pair_points
from exporters.explain.graph_diff import graph_differences
from exporters.explain.trace import Point, trace_onnx
from exporters.explain.weight_causes import parameter_causes
from exporters.quantize.portability import portability
from pipeline.compare.model_forms import ModelForm
from pipeline.compare.pair import ModelPair


def traced_layers(
    pair: ModelPair, images: NDArray[np.uint8] | None
) -> tuple[tuple[PointPair, ...], str]:
    """Return the layers of both sides on ``images``, or none and the reason."""
    closed = [f.name for f in (pair.a, pair.b) if f.graph is None and f.network is None]
    if closed or images is None:
        return (), f"{' and '.join(closed)} has no layers that can be read"
    try:
        return pair_points(_trace(pair.a, images), _trace(pair.b, images)), ""
    except ExportError as exc:
        return (), str(exc)


def _trace(form: ModelForm, images: NDArray[np.uint8]) -> tuple[Point, ...]:
    if form.network is not None:
        from exporters.explain.trace_torch import trace_torch

        return trace_torch(form.network, images)
    assert form.graph is not None
    return trace_onnx(form.graph, images)


def file_causes(pair: ModelPair, layers: tuple[PointPair, ...]) -> Iterator[str]:
    """Yield what the files themselves show, independent of the images."""
    a, b = pair.a, pair.b
    yield from parameter_causes(layers)
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
    """Two sides that differ."""

    pair: ModelPair
    a: Floats  # answers of A [n, labels], all finite
    b: Floats
    layers: tuple[PointPair, ...]
    divergence: Divergence | None
    unsteady: bool  # one side changes its answers, which explains any difference


def _task(evidence: Evidence) -> LabelTask:
    """Return the stated task; for recorded outputs the one that they look like."""
    spec = evidence.pair.spec
    if spec is not None:
        return label_task(spec.task)
    tasks = [task_of_answers((outputs,)) for outputs in (evidence.a, evidence.b)]
    labeled = [task for task in tasks if isinstance(task, LabelTask)]
    return min(labeled, key=lambda task: not task.sums_to_one, default=LABEL_TASKS[0])


def answer_causes(evidence: Evidence, images: NDArray[np.uint8] | None) -> Iterator[str]:
    """Yield causes that explain the difference; the layers were traced on ``images``."""
    pair = evidence.pair
    if len(evidence.a) and not evidence.unsteady:
        labels = pair.labels(evidence.a.shape[1])
        yield from output_causes(evidence.a, evidence.b, labels, _task(evidence))
        # inputs of foreign files need not be images that could be mirrored
        a, b = pair.a.model, pair.b.model
        if images is not None and a is not None and b is not None and pair.takes is None:
            yield from image_causes(a, b, images, closed=not evidence.layers)
            yield from input_causes(evidence.layers, images, pair.precision)
    if evidence.divergence is not None:
        yield from divergence_causes(evidence.divergence)
