"""The network of another recipe as a baseline: its answers to the same test images, as its validate
stage left them in the same artifact folder, or the reason why there are none.

Images count as the same when their ids, their true labels and the data set's name agree: two
recipes may prepare them in other sizes, or train on another part of the train split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.metrics import Objective
from exporters.evaluate.scoring import OBJECTIVES, ModelOutputs
from exporters.evaluate.tasks import label_task
from pipeline.datasets.arrays import Dataset
from pipeline.reports import NetworkFacts, ValidateReport
from pipeline.validation.saved_answers import REFERENCE, read_probabilities, read_truth
from runtime.spec import ModelSpec


@dataclass(frozen=True)
class Validated:
    """The validate stage of another recipe."""

    folder: Path
    report: ValidateReport


@dataclass(frozen=True)
class Compared:
    """A baseline that answered the same images."""

    answers: ModelOutputs  # columns are in the order of this model's labels
    common_labels: int
    parameters: int
    multiply_adds: int | None


def read_baseline(
    name: str, validated: Validated | None, spec: ModelSpec, dataset: Dataset
) -> Compared | str:
    """The baseline ``name``, or why it cannot be compared with this model on this data."""
    if validated is None:
        return f"not trained here: pipeline run validate --recipe {name}"
    network, task = validated.report.network, validated.report.spec.task
    labels = network.labels
    if task != spec.task:
        return f"it is a {task} model, this one {spec.task}"
    if not label_task(task).answers_each_label and labels != spec.labels:
        return f"it has {len(labels)} other classes ({', '.join(labels[:3])}, ...)"
    common = [label for label in spec.labels if label in labels]
    if not common:
        return f"it has none of these labels (its first is {labels[0]})"
    if problem := _other_images(validated.folder, network, common, spec, dataset):
        return problem
    return Compared(
        answers=_answers(name, validated, spec),
        common_labels=len(common),
        parameters=network.parameters,
        multiply_adds=network.multiply_adds,
    )


def _other_images(
    folder: Path,
    network: NetworkFacts,
    common: list[str],
    spec: ModelSpec,
    dataset: Dataset,
) -> str | None:
    """The difference between its test images and those of ``dataset``; None when there is none."""
    ids, labels = read_truth(folder)
    again = "train both recipes on the same data"
    if network.data != dataset.info.name:
        return f"it was tested on {network.data}, this one on {dataset.info.name}: {again}"
    test = dataset.test
    if not np.array_equal(ids, test.ids):
        return (
            f"it was tested on {len(ids):,} images, this one on {len(test):,}, and they are not "
            f"the same: {again}"
        )
    if not label_task(spec.task).answers_each_label:
        same = np.array_equal(labels, test.labels)
    else:
        its = [network.labels.index(label) for label in common]
        own = [spec.labels.index(label) for label in common]
        same = np.array_equal(labels[:, its], test.labels[:, own])
    return None if same else f"its test images have other true labels: {again}"


def _answers(name: str, validated: Validated, spec: ModelSpec) -> ModelOutputs:
    """Its network's answers, with a column for each of this model's labels."""
    labels = validated.report.network.labels
    probabilities = read_probabilities(validated.folder)[REFERENCE]
    if not label_task(spec.task).answers_each_label:
        return ModelOutputs(name, probabilities)
    shared = np.array([label in labels for label in spec.labels])
    columns = [labels.index(label) if label in labels else 0 for label in spec.labels]
    stored: dict[str, tuple[float, ...]] = validated.report.reference.thresholds_for
    thresholds: dict[Objective, NDArray[np.float64]] = {
        objective: np.array(stored[objective])[columns] for objective in OBJECTIVES
    }
    return ModelOutputs(name, probabilities[:, columns], thresholds, shared)
