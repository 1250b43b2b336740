"""Compare two forms of a model on the same images. Only measures; ``gates.py`` judges. A form is
any callable from images to probabilities: PyTorch, an ONNX file, the packaged predictor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.evaluate.metrics import Floats, correct, decide
from exporters.evaluate.parity_values import LabelParity, Pairs, Parity
from runtime import AnswerError
from runtime.spec import ModelSpec

Model = Callable[[NDArray[np.uint8]], Floats]  # uint8 [n, h, w, c] -> float32 [n, labels]
Progress = Callable[[int, int], None]  # images done, images in all
Thresholds = NDArray[np.floating] | None


def stream(
    model: Model,
    images: NDArray[np.uint8],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Floats:
    """Probabilities [n, labels] of images [n, h, w, c] (memory-mapped is best), batch by batch.

    Raises ExportError when a batch comes back with another length, another number of labels, or
    values that are no probabilities.
    """
    total = len(images)
    if not total:
        raise ExportError("there are no images to compare on; expected at least one.")
    rows: list[Floats] = []
    for start in range(0, total, batch_size):
        batch = np.ascontiguousarray(images[start : start + batch_size])
        try:
            found = np.asarray(model(batch), dtype=np.float32)
        except AnswerError as exc:  # of this form alone: a search continues with the others
            raise ExportError(f"images from {start} on: {exc}") from exc
        _check_probabilities(found, len(batch), rows[0].shape[1] if rows else None)
        rows.append(found)
        if progress is not None:
            progress(min(start + batch_size, total), total)
    return np.concatenate(rows)


def compare(
    reference: Floats,
    candidate: Floats,
    labels: NDArray[np.integer],
    spec: ModelSpec,
    *,
    reference_thresholds: Thresholds = None,
    candidate_thresholds: Thresholds = None,
    worst: int = 16,
) -> Parity:
    """Compare probabilities [n, labels] of the same images.

    ``labels`` are the true classes [n], or 0/1 [n, labels] for multi-label; a multi-label model
    has thresholds [labels] or [n, labels], 0.5 where none are given. ``worst`` is how many of the
    images that differ most are named. Raises ExportError when the shapes do not belong together.
    """
    _check_shapes(reference, candidate, labels, spec)
    before, after = (
        _thresholds(given, spec, len(reference))
        for given in (reference_thresholds, candidate_thresholds)
    )
    difference = np.abs(reference.astype(np.float64) - candidate)
    was, now = correct(reference, labels, before), correct(candidate, labels, after)
    per_image = difference.max(axis=1)
    order = np.argsort(-per_image, kind="stable")[:worst]
    lost = was.astype(np.int64) - now.astype(np.int64)
    values, counts = np.unique(lost.reshape(len(lost), -1).sum(axis=1), return_counts=True)
    return Parity(
        task=spec.task,
        images=len(reference),
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        p99_abs=float(np.quantile(difference, 0.99)),
        agreement=float((decide(reference, before) == decide(candidate, after)).mean()),
        pairs=_pairs(was, now),
        labels=_by_label(was, now, labels, spec),
        losses=tuple(zip(values.tolist(), counts.tolist(), strict=True)),
        worst=tuple((int(i), float(per_image[i])) for i in order),
    )


def _by_label(
    was: NDArray[np.bool_], now: NDArray[np.bool_], labels: NDArray[np.integer], spec: ModelSpec
) -> tuple[LabelParity, ...]:
    if spec.task == "multi-label":
        pairs = [_pairs(was[:, i], now[:, i]) for i in range(len(spec.labels))]
    else:
        pairs = [_pairs(was[labels == i], now[labels == i]) for i in range(len(spec.labels))]
    return tuple(map(LabelParity, spec.labels, pairs))


def _pairs(was: NDArray[np.bool_], now: NDArray[np.bool_]) -> Pairs:
    return Pairs(
        both_right=int((was & now).sum()),
        only_reference=int((was & ~now).sum()),
        only_candidate=int((~was & now).sum()),
        both_wrong=int((~was & ~now).sum()),
    )


def _thresholds(given: Thresholds, spec: ModelSpec, images: int) -> Thresholds:
    if spec.task == "multi-class":
        if given is not None:
            raise ExportError("thresholds were given for a multi-class model, which has none.")
        return None
    values = np.full(len(spec.labels), 0.5) if given is None else np.asarray(given)
    labels = len(spec.labels)
    if values.shape not in ((labels,), (images, labels)):
        raise ExportError(
            f"thresholds have shape {values.shape}; expected one for each of {labels} labels, or "
            f"({images}, {labels}) for each image."
        )
    return values


def _check_shapes(
    reference: Floats, candidate: Floats, labels: NDArray[np.integer], spec: ModelSpec
) -> None:
    count, width = len(labels), len(spec.labels)
    wanted = (count,) if spec.task == "multi-class" else (count, width)
    if not count or labels.shape != wanted:
        raise ExportError(
            f"labels have shape {labels.shape}; expected {wanted} for {spec.task}, with at least "
            "one image."
        )
    for what, values in (("reference", reference), ("candidate", candidate)):
        _check_probabilities(values, count, width, what)


def _check_probabilities(
    values: Floats, rows: int, columns: int | None, what: str = "the model"
) -> None:
    if values.ndim != 2 or len(values) != rows or columns not in (None, values.shape[1]):
        raise ExportError(
            f"{what} gave probabilities of shape {values.shape}; expected "
            f"({rows}, {'labels' if columns is None else columns})."
        )
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1 + 1e-4):
        raise ExportError(
            f"{what} gave values from {values.min():g} to {values.max():g}; expected "
            "probabilities from 0 to 1. Does the network end in a softmax or sigmoid?"
        )
