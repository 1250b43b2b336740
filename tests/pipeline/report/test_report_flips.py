"""The images whose answer a variant changed."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.arrays import Dataset, Split
from pipeline.datasets.info import DatasetInfo
from pipeline.report.images import FLIPPED_IMAGES, Answers, flips
from runtime.spec import ModelSpec


def answers(
    labels: list[object],
    reference: list[list[float]],
    variant: list[list[float]],
    thresholds: dict[str, list[float] | None],
    *,
    redistributable: bool = True,
) -> Answers:
    """A test split of small gray images."""
    count, task = len(labels), "multi-label" if thresholds["reference"] else "multi-class"
    names = tuple("abc"[: len(reference[0])])
    spec = ModelSpec("small", task, 4, 4, 1, names)
    split = Split(
        np.zeros((count, 4, 4, 1), np.uint8),
        np.asarray(labels),
        np.asarray([f"test/{i}" for i in range(count)]),
    )
    info = DatasetInfo("small", task, names, {}, "", False, redistributable, "CC0")
    probabilities = {
        "reference": np.asarray(reference, np.float32),
        "int8": np.asarray(variant, np.float32),
    }
    return Answers(spec, Dataset(info, split, split, split), probabilities, thresholds)


def test_flips_of_classes() -> None:
    seen = answers(
        [0, 0, 1, 2, 1],
        [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.6, 0.4, 0], [0.1, 0.8, 0.1], [0.1, 0.9, 0]],
        [[0.6, 0.3, 0.1], [0.4, 0.5, 0.1], [0.3, 0.7, 0], [0.9, 0.1, 0.0], [0.2, 0.8, 0]],
        {"reference": None, "int8": None},
    )
    found = flips(seen, "int8")
    assert (found.lost, found.won, found.still_wrong, found.answers) == (1, 1, 1, 5)
    assert found.changed == 3
    assert [image.id for image in found.images] == ["test/1", "test/2", "test/3"]  # lost first
    first = found.images[0]
    assert (first.truth, first.reference_answer, first.candidate_answer) == ("a", "a", "b")
    assert first.difference == pytest.approx(0.1) and first.picture


def test_flips_of_attributes_follow_each_forms_own_thresholds() -> None:
    seen = answers(
        [[1, 0], [0, 1]],
        [[0.55, 0.2], [0.3, 0.45]],
        [[0.55, 0.2], [0.3, 0.45]],  # the same probabilities; the thresholds alone differ
        {"reference": [0.5, 0.5], "int8": [0.6, 0.4]},
        redistributable=False,
    )
    found = flips(seen, "int8")
    assert (found.lost, found.won, found.still_wrong, found.answers) == (1, 1, 0, 4)
    lost, won = found.images
    assert (lost.truth, lost.reference_answer, lost.candidate_answer) == ("a", "a", "no a")
    assert (won.truth, won.reference_answer, won.candidate_answer) == ("b", "no b", "b")
    assert lost.picture is None  # the data may not be passed on


def test_of_many_flips_those_that_moved_most_are_shown() -> None:
    count = FLIPPED_IMAGES + 5
    moved = np.linspace(0.01, 0.4, count)
    seen = answers(
        [0] * count,
        [[0.5 + step / 2, 0.5 - step / 2] for step in moved],
        [[0.5 - step / 2, 0.5 + step / 2] for step in moved],
        {"reference": None, "int8": None},
    )
    found = flips(seen, "int8")
    assert found.lost == count and len(found.images) == FLIPPED_IMAGES
    assert min(image.difference for image in found.images) >= moved[5] - 1e-6
