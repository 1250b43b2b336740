"""What another recipe's validate stage left in the same artifact folder, as something to compare
with: the PyTorch network's answers to the same test images, or in words why there are none.

Images are taken for the same when their ids, their true labels and the data set's name agree: two
recipes may prepare them in other sizes, or train on another part of the train split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from exporters.evaluate.scoring import ModelOutputs
    from pipeline.datasets.arrays import Dataset
    from runtime.spec import ModelSpec

PROBABILITIES_NAME = "probabilities.npz"  # of the test split: "reference" and every variant
TRUTH_NAME = "truth.npz"  # "ids" [N] and "labels" of the test split, in the order of the answers
NETWORK = "PyTorch"  # the form that is compared


@dataclass(frozen=True)
class Finished:
    """The validate stage of another recipe."""

    folder: Path
    report: Mapping[str, Any]  # what it returned


@dataclass(frozen=True)
class Compared:
    """A baseline that answered the same images."""

    answers: ModelOutputs  # columns are in the order of this model's labels
    common_labels: int
    parameters: int
    multiply_adds: int | None


def told_network(
    dataset: Dataset, spec: ModelSpec, parameters: int, multiply_adds: int | None
) -> dict[str, Any]:
    """What a baseline's report has to say of itself, for :func:`read_baseline` of others."""
    return {
        "data": dataset.info.name,
        "labels": list(spec.labels),
        "parameters": parameters,
        "multiply_adds": multiply_adds,
    }


def read_baseline(
    name: str, finished: Finished | None, spec: ModelSpec, dataset: Dataset
) -> Compared | str:
    """The baseline ``name``, or why it cannot be compared with this model on this data."""
    from exporters.evaluate.tasks import label_task

    if finished is None:
        return f"not trained here: pipeline run validate --recipe {name}"
    network = finished.report.get("network")
    if network is None:  # validated before there were baselines
        return f"its results are of an older version: pipeline run validate --recipe {name}"
    labels = tuple(network["labels"])
    theirs = finished.report["spec"]["task"]
    if theirs != spec.task:
        return f"it is a {theirs} model, this one {spec.task}"
    task = label_task(spec.task)
    if not task.answers_each_label and labels != spec.labels:
        return f"it tells {len(labels)} other classes apart ({', '.join(labels[:3])}, ...)"
    common = [label for label in spec.labels if label in labels]
    if not common:
        return f"it has none of these labels (its first is {labels[0]})"
    if problem := _other_images(finished, network, common, spec, dataset):
        return problem
    return Compared(
        answers=_answers(name, finished, labels, spec),
        common_labels=len(common),
        parameters=network["parameters"],
        multiply_adds=network["multiply_adds"],
    )


def _other_images(
    finished: Finished,
    network: dict[str, Any],
    common: list[str],
    spec: ModelSpec,
    dataset: Dataset,
) -> str | None:
    """In words how its test images are not those of ``dataset``; None when they are."""
    import numpy as np

    from exporters.evaluate.tasks import label_task

    with np.load(finished.folder / TRUTH_NAME) as truth:
        ids, labels = truth["ids"], truth["labels"]
    again = "train both recipes on the same data"
    if network["data"] != dataset.info.name:
        return f"it was tested on {network['data']}, this one on {dataset.info.name}: {again}"
    test = dataset.test
    if not np.array_equal(ids, test.ids):
        return (
            f"it was tested on {len(ids):,} images, this one on {len(test):,}, and they are not "
            f"the same: {again}"
        )
    if not label_task(spec.task).answers_each_label:
        same = np.array_equal(labels, test.labels)
    else:
        its = [network["labels"].index(label) for label in common]
        own = [spec.labels.index(label) for label in common]
        same = np.array_equal(labels[:, its], test.labels[:, own])
    return None if same else f"its test images have other true labels: {again}"


def _answers(
    name: str, finished: Finished, labels: tuple[str, ...], spec: ModelSpec
) -> ModelOutputs:
    """Its network's answers with a column for each of this model's labels."""
    import numpy as np

    from exporters.evaluate.scoring import ModelOutputs
    from exporters.evaluate.tasks import label_task

    with np.load(finished.folder / PROBABILITIES_NAME) as arrays:
        found = arrays["reference"]
    if not label_task(spec.task).answers_each_label:
        return ModelOutputs(name, found)
    known = np.array([label in labels for label in spec.labels])
    columns = [labels.index(label) if label in labels else 0 for label in spec.labels]
    told = finished.report["reference"]["thresholds_for"]
    thresholds: dict[Any, NDArray[np.float64]] = {
        objective: np.array(values)[columns] for objective, values in told.items()
    }
    return ModelOutputs(name, found[:, columns], thresholds, known)
