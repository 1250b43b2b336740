"""The test images that a report shows: those on which variants differ most from PyTorch, and those
whose answer one variant changed. They have pictures only where the images may be passed on."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.metrics import correct, decide
from pipeline.datasets.arrays import Dataset
from pipeline.report.model import Flips, WorstImage
from pipeline.reports import JudgedVariant
from pipeline.tasks import training_task
from runtime.spec import ModelSpec

WORST_IMAGES = 12
FLIPPED_IMAGES = 24  # shown of those that changed; two rows of pictures on a wide screen
Thresholds = tuple[float, ...] | None


@dataclass(frozen=True)
class Answers:
    """Answers of PyTorch and of every variant to the test split."""

    spec: ModelSpec
    dataset: Dataset
    probabilities: Mapping[str, NDArray[np.float32]]  # "reference" and each variant: [n, labels]
    thresholds: Mapping[str, Thresholds]  # by the same names; None: the task has none

    def image(self, index: int, variant: str, label: int | None = None) -> WorstImage:
        """One test image, by one label, or as the task describes it by default."""
        before, after = (self.probabilities[name][index] for name in ("reference", variant))
        if label is None:
            label = training_task(self.spec.task).shown_label(before, after)
        labels = self.dataset.test.labels[index]
        truth = labels if label is None else labels[label]
        (was, was_probability), (now, now_probability) = (
            self._answer(row, name, label)
            for row, name in ((before, "reference"), (after, variant))
        )
        moved = np.abs(before - after)
        return WorstImage(
            id=str(self.dataset.test.ids[index]),
            truth=self._words(int(truth), label),
            variant=variant,
            reference_answer=was,
            reference_probability=was_probability,
            candidate_answer=now,
            candidate_probability=now_probability,
            difference=float(moved.max() if label is None else moved[label]),
            picture=(
                _png(self.dataset.test.images[index]) if self.dataset.info.redistributable else None
            ),
        )

    def decide(self, name: str) -> NDArray[np.int64]:
        """The answers of "reference" or a variant: [n], or 0/1 [n, labels]."""
        return decide(self.probabilities[name], self._limits(name))

    def correct(self, name: str) -> NDArray[np.bool_]:
        """Which of them are right, in the same shape."""
        return correct(self.probabilities[name], self.dataset.test.labels, self._limits(name))

    def _limits(self, name: str) -> NDArray[np.float64] | None:
        limits = self.thresholds[name]
        return None if limits is None else np.asarray(limits, np.float64)

    def _answer(self, row: NDArray[np.float32], name: str, label: int | None) -> tuple[str, float]:
        limits = self._limits(name)
        if limits is None or label is None:
            return self._words(int(row.argmax()), None), float(row.max())
        return self._words(int(row[label] >= limits[label]), label), float(row[label])

    def _words(self, answer: int, label: int | None) -> str:
        """A class's name; or an attribute's, with "no" where it is absent."""
        if label is None:
            return self.spec.labels[answer]
        return ("" if answer else "no ") + self.spec.labels[label]


def worst_images(answers: Answers, variants: Sequence[JudgedVariant]) -> tuple[WorstImage, ...]:
    """The images that differ most from PyTorch, over all variants; one variant for each image."""
    worst: dict[int, tuple[float, str]] = {}
    for variant in variants:
        for image, difference in variant.parity.worst:
            if difference > worst.get(image, (0.0, ""))[0]:
                worst[image] = (difference, variant.id)
    order = sorted(worst, key=lambda image: -worst[image][0])[:WORST_IMAGES]
    return tuple(answers.image(image, worst[image][1]) for image in order)


def flips(answers: Answers, variant: str) -> Flips:
    """The answers of PyTorch that a variant changed, and the images whose probabilities moved
    most, lost answers first."""
    was, now = answers.correct("reference"), answers.correct(variant)
    changed = answers.decide("reference") != answers.decide(variant)
    difference = np.abs(answers.probabilities["reference"] - answers.probabilities[variant])
    moved = training_task(answers.spec.task).moved(difference)
    indices = np.argwhere(changed)  # (image,) or (image, label)
    order = np.argsort(-moved[changed], kind="stable")[:FLIPPED_IMAGES]
    kinds = np.where(was & ~now, 0, np.where(~was & now, 1, 2))
    shown = sorted(map(tuple, indices[order].tolist()), key=lambda index: int(kinds[index]))
    return Flips(
        variant=variant,
        lost=int((was & ~now).sum()),
        won=int((~was & now).sum()),
        still_wrong=int((changed & ~was & ~now).sum()),
        answers=int(changed.size),
        images=tuple(answers.image(index[0], variant, *index[1:]) for index in shown),
    )


def _png(image: NDArray[np.uint8]) -> str:
    """Base64 of a PNG of one image [h, w, c]."""
    from PIL import Image

    array = np.array(image)
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
