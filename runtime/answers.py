"""The check of what a model returned, at every call: one row of probabilities for each image.

A model that lost its batch returns one row for many images, which NumPy would spread over all of
them; logits and NaN would become answers. Independent of sessions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import AnswerError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .spec import ModelSpec

_FLOAT32 = np.dtype(np.float32)
# How far a probability may lie outside [0, 1], and the sum of a softmax from 1. A softmax in half
# precision rounds each by 2^-11 of itself, so its sum may be 0.0005 off; float32 needs 1e-6.
SLACK = 1e-3
_LOW, _HIGH = -SLACK, 1 + SLACK
_ADVICE = "Run the selftest; if it fails here alone, try another device or variant."


class AnswerCheck:
    """The check for one spec. It takes 3 us for one image, without any allocation that lasts."""

    def __init__(self, spec: ModelSpec) -> None:
        self._labels = len(spec.labels)
        self._sums_to_one = spec.task == "multi-class"

    def __call__(self, answer: Any, images: int) -> NDArray[np.float32]:
        """Return ``answer`` if it is float32 [images, labels], each value in [0, 1] and, for a
        multi-class model, each row summing to 1; raises AnswerError."""
        shape = (images, self._labels)
        if getattr(answer, "shape", None) != shape or answer.dtype != _FLOAT32:
            raise AnswerError(
                f"the model returned {_described(answer)} for {images} "
                f"image{'s' * (images != 1)}; expected float32 {shape}, a row of probabilities "
                "for each image. Which row belongs to which image cannot be seen. Export the model "
                "again, with its batch dimension free."
            )
        values: NDArray[np.float32] = answer
        # argmin and argmax stop at NaN and cost a third of min and max
        if not (values.item(values.argmin()) >= _LOW and values.item(values.argmax()) <= _HIGH):
            self._refuse(values)
        if self._sums_to_one:
            sums = np.add.reduce(values, 1)
            if sums.item(sums.argmin()) < 1 - SLACK or sums.item(sums.argmax()) > _HIGH:
                self._refuse(values)
        return values

    def _refuse(self, values: NDArray[np.float32]) -> None:
        """Raise AnswerError naming the first image whose row is not one of probabilities; a row
        at the limit passes by its exact sum."""
        for image, reason in faults(values, self._sums_to_one):
            raise AnswerError(
                f"the model's answer {reason} (image {image} of {len(values)} in its batch). "
                f"{_ADVICE}",
                image,
            )


def faults(probabilities: NDArray[np.float32], sums_to_one: bool) -> Iterator[tuple[int, str]]:
    """The rows of float32 [N, labels] that are not probabilities, each with what it is instead."""
    for row, values in enumerate(probabilities.tolist()):
        if reason := _fault(values, sums_to_one):
            yield row, reason


def _fault(row: list[float], sums_to_one: bool) -> str | None:
    if not all(map(math.isfinite, row)):
        return "holds NaN or infinity; expected probabilities from 0 to 1"
    low, high, total = min(row), max(row), math.fsum(row)
    if low < _LOW or high > _HIGH:
        return f"has values from {low:.3g} to {high:.3g}; expected probabilities from 0 to 1"
    if sums_to_one and abs(total - 1) > SLACK:
        return f"sums to {total:.4g}; expected a softmax, which sums to 1"
    return None


def _described(answer: Any) -> str:
    if isinstance(answer, np.ndarray):
        return f"{answer.dtype} {answer.shape}"
    return f"a {type(answer).__name__}"
