"""Compare two forms of a model on the same images. Only measures; ``gates.py`` judges. A form is
any callable from images to probabilities: PyTorch, an ONNX file, the packaged predictor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.evaluate.error_metrics import absolute_difference
from exporters.evaluate.metrics import Thresholds, correct, decide
from exporters.evaluate.parity_values import LabelParity, Pairs, Parity
from exporters.evaluate.probabilities import Floats, check_probabilities
from runtime.errors import AnswerError

if TYPE_CHECKING:
    from exporters.evaluate.tasks import LabelTask

Model = Callable[[NDArray[np.uint8]], Floats]  # uint8 [n, h, w, c] -> float32 [n, labels]
Progress = Callable[[int, int], None]  # images done, images in all


def stream(
    model: Model,
    images: NDArray[np.uint8],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Floats:
    """Return the probabilities [n, labels] of images [n, h, w, c] (memory-mapped is best), batch by
    batch.

    Raises ExportError when a batch comes back with another length, another number of labels, or
    values that are not probabilities.
    """
    total = len(images)
    if not total:
        raise ExportError("there are no images to compare on; expected at least one.")
    rows: list[Floats] = []
    for start in range(0, total, batch_size):
        batch = np.ascontiguousarray(images[start : start + batch_size])
        try:
            probabilities = np.asarray(model(batch), dtype=np.float32)
        except AnswerError as exc:  # of this form alone: a search continues with the others
            raise ExportError(f"images from {start} on: {exc}") from exc
        check_probabilities(probabilities, len(batch), rows[0].shape[1] if rows else None)
        rows.append(probabilities)
        if progress is not None:
            progress(min(start + batch_size, total), total)
    return np.concatenate(rows)


def compare(
    task: LabelTask,
    reference: Floats,
    candidate: Floats,
    truth: NDArray[np.integer],
    labels: Sequence[str],
    *,
    reference_thresholds: Thresholds = None,
    candidate_thresholds: Thresholds = None,
) -> Parity:
    """Compare probabilities [n, labels] of the same images.

    Where the task has thresholds, they are [labels] or [n, labels], 0.5 by default. Raises
    ExportError when the shapes do not belong together.
    """
    _check_shapes(task, reference, candidate, truth, len(labels))
    before, after = (
        _thresholds(task, given, len(labels), len(reference))
        for given in (reference_thresholds, candidate_thresholds)
    )
    difference = absolute_difference(reference, candidate)
    was, now = correct(reference, truth, before), correct(candidate, truth, after)
    lost = was.astype(np.int64) - now.astype(np.int64)
    values, counts = np.unique(lost.reshape(len(lost), -1).sum(axis=1), return_counts=True)
    return Parity(
        task=task.name,
        images=len(reference),
        max_abs=difference.max_abs,
        mean_abs=difference.mean_abs,
        p99_abs=difference.p99_abs,
        agreement=float((decide(reference, before) == decide(candidate, after)).mean()),
        pairs=_pairs(was, now),
        labels=tuple(
            LabelParity(label, _pairs(task.of_label(was, truth, i), task.of_label(now, truth, i)))
            for i, label in enumerate(labels)
        ),
        losses=tuple(zip(values.tolist(), counts.tolist(), strict=True)),
        worst=difference.worst,
    )


def _pairs(was: NDArray[np.bool_], now: NDArray[np.bool_]) -> Pairs:
    return Pairs(
        both_right=int((was & now).sum()),
        only_reference=int((was & ~now).sum()),
        only_candidate=int((~was & now).sum()),
        both_wrong=int((~was & ~now).sum()),
    )


def _thresholds(task: LabelTask, given: Thresholds, labels: int, images: int) -> Thresholds:
    if not task.has_thresholds:
        if given is not None:
            raise ExportError(f"thresholds were given for a {task.name} model, which has none.")
        return None
    values = np.full(labels, 0.5) if given is None else np.asarray(given)
    if values.shape not in ((labels,), (images, labels)):
        raise ExportError(
            f"thresholds have shape {values.shape}; expected one for each of {labels} labels, or "
            f"({images}, {labels}) for each image."
        )
    return values


def _check_shapes(
    task: LabelTask, reference: Floats, candidate: Floats, truth: NDArray[np.integer], labels: int
) -> None:
    count = len(truth)
    expected = task.truth_shape(count, labels)
    if not count or truth.shape != expected:
        raise ExportError(
            f"labels have shape {truth.shape}; expected {expected} for {task.name}, with at least "
            "one image."
        )
    for what, values in (("reference", reference), ("candidate", candidate)):
        check_probabilities(values, count, labels, what)
