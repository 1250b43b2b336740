"""validation/baseline.py: another recipe's answers count only for the same images."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporters.evaluate.score_values import Estimate, Scores
from exporters.evaluate.scoring import ModelOutputs
from pipeline.datasets.arrays import Dataset, Split
from pipeline.datasets.info import DatasetInfo
from pipeline.reports import NetworkFacts, Reference, ValidateReport
from pipeline.validation.baseline import Compared, Validated, read_baseline
from pipeline.validation.saved_answers import REFERENCE, read_probabilities, write_answers
from runtime.spec import ModelSpec

FACES = ModelSpec("faces", "multi-label", 8, 8, 3, ("Smiling", "Bald", "Male"))
SMILE = replace(FACES, labels=("Smiling",))
DIGITS = ModelSpec("digits", "multi-class", 8, 8, 1, ("0", "1", "2"))
TRUTH = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 0]], np.uint8)


def dataset(spec: ModelSpec, labels: np.ndarray, name: str = "celeba", first: int = 1) -> Dataset:
    count = len(labels)
    images = np.zeros((count, 8, 8, spec.channels), np.uint8)
    split = Split(images, labels, np.array([f"{i + first:06}.jpg" for i in range(count)]))
    counts = dict.fromkeys(("train", "val", "test"), count)
    info = DatasetInfo(name, spec.task, spec.labels, counts, "ab", False, False, "mine")
    return Dataset(info, split, split, split)


def finished(folder: Path, spec: ModelSpec, data: Dataset) -> Validated:
    """What validate leaves behind of such a model."""
    count, labels = len(data.test), len(spec.labels)
    probabilities = np.linspace(0, 1, count * labels, dtype=np.float32).reshape(count, labels)
    write_answers(folder, data.test, ModelOutputs("PyTorch", probabilities), [])
    values = tuple(0.1 * (place + 1) for place in range(labels))
    thresholds = {"accuracy": values, "balanced": values} if spec.task == "multi-label" else {}
    report = ValidateReport(
        headline="",
        spec=spec,
        reference=Reference(90.0, thresholds_for=thresholds),
        variants=(),
        network=NetworkFacts(data.info.name, spec.labels, 1234, 5678),
        scores=Scores(count, 0, Estimate(50.0), ()),
    )
    return Validated(folder, report)


def test_the_same_attributes_in_another_order(tmp_path: Path) -> None:
    theirs = replace(FACES, labels=("Male", "Smiling", "Bald"))
    other = finished(tmp_path, theirs, dataset(theirs, TRUTH[:, [2, 0, 1]]))
    found = read_baseline("textbook", other, FACES, dataset(FACES, TRUTH))
    assert isinstance(found, Compared)
    assert (found.common_labels, found.parameters, found.multiply_adds) == (3, 1234, 5678)
    probabilities = read_probabilities(tmp_path)[REFERENCE]
    assert np.array_equal(found.answers.probabilities, probabilities[:, [1, 2, 0]])
    assert found.answers.thresholds["accuracy"] == pytest.approx([0.2, 0.3, 0.1])
    assert found.answers.labels is not None and found.answers.labels.all()


def test_one_attribute_of_many(tmp_path: Path) -> None:
    other = finished(tmp_path, SMILE, dataset(SMILE, TRUTH[:, :1]))
    found = read_baseline("smile", other, FACES, dataset(FACES, TRUTH))
    assert isinstance(found, Compared)
    assert found.common_labels == 1
    assert found.answers.labels is not None
    assert found.answers.labels.tolist() == [True, False, False]
    # and the other way round
    many = finished(tmp_path, FACES, dataset(FACES, TRUTH))
    found = read_baseline("many", many, SMILE, dataset(SMILE, TRUTH[:, :1]))
    assert isinstance(found, Compared) and found.answers.probabilities.shape == (4, 1)


def test_classes(tmp_path: Path) -> None:
    data = dataset(DIGITS, np.array([0, 1, 2, 1]), "mnist")
    found = read_baseline("textbook", finished(tmp_path, DIGITS, data), DIGITS, data)
    assert isinstance(found, Compared)
    assert found.answers.labels is None and not found.answers.thresholds


OWN = dataset(FACES, TRUTH)


@pytest.mark.parametrize(
    ("theirs", "data", "why"),
    [
        (DIGITS, dataset(DIGITS, np.array([0, 1, 2, 1])), "multi-class model, this one multi-lab"),
        (
            replace(FACES, labels=("Hat", "Hair", "Old")),
            OWN,
            r"none of these labels \(its first is Hat\)",
        ),
        (FACES, dataset(FACES, TRUTH, "drawn"), "was tested on drawn, this one on celeba: train"),
        (FACES, dataset(FACES, TRUTH[:3]), "was tested on 3 images, this one on 4, and they are"),
        (FACES, dataset(FACES, TRUTH, first=9), "4 images, this one on 4, and they are not the"),
        (FACES, dataset(FACES, 1 - TRUTH), "its test images have other true labels"),
    ],
)
def test_what_cannot_be_compared_says_why(
    theirs: ModelSpec, data: Dataset, why: str, tmp_path: Path
) -> None:
    found = read_baseline("other", finished(tmp_path, theirs, data), FACES, OWN)
    assert isinstance(found, str)
    assert re.search(why, found), found


def test_other_classes(tmp_path: Path) -> None:
    theirs = replace(DIGITS, labels=("a", "b", "c"))
    other = finished(tmp_path, theirs, dataset(theirs, np.array([0, 1, 2])))
    found = read_baseline("letters", other, DIGITS, dataset(DIGITS, np.array([0, 1, 2])))
    assert found == "it tells 3 other classes apart (a, b, c, ...)"


def test_a_missing_baseline_says_the_command() -> None:
    command = "pipeline run validate --recipe textbook"
    assert command in str(read_baseline("textbook", None, FACES, OWN))
