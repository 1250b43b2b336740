"""The answers to the test split, as the validate stage leaves them for later stages and for other
recipes that take this one as their baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.probabilities import Floats
from exporters.evaluate.scoring import ModelOutputs
from pipeline.datasets.arrays import Split

REFERENCE = "reference"  # name of the PyTorch network's answers
_PROBABILITIES_NAME = "probabilities.npz"
_TRUTH_NAME = "truth.npz"


def write_answers(
    folder: Path, test: Split, reference: ModelOutputs, forms: Sequence[ModelOutputs]
) -> None:
    """Write the probabilities of every model, and ids and true labels in the same order."""
    arrays: dict[str, Any] = {form.id: form.probabilities for form in forms}
    np.savez(folder / _PROBABILITIES_NAME, **{REFERENCE: reference.probabilities, **arrays})
    np.savez(folder / _TRUTH_NAME, ids=test.ids, labels=test.labels)


def read_probabilities(folder: Path) -> dict[str, Floats]:
    """Probabilities [images, labels] by candidate, ``REFERENCE`` first."""
    with np.load(folder / _PROBABILITIES_NAME) as arrays:
        return {name: arrays[name] for name in arrays.files}


def read_truth(folder: Path) -> tuple[NDArray[np.str_], NDArray[Any]]:
    """Ids and true labels of the test images."""
    with np.load(folder / _TRUTH_NAME) as arrays:
        return arrays["ids"], arrays["labels"]
