"""The scores of a model on the test split, as values: ``scoring.py`` computes them and reports
carry them. Standard library only. Figures are in percent, differences in percentage points; None
always means that a figure is not defined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


class _Strict:
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class Estimate(_Strict):
    """A figure with the ends of its 95 % interval."""

    value: float
    low: float | None = None  # None: too few images or mistakes to say anything
    high: float | None = None


@dataclass(frozen=True)
class Metrics(_Strict):
    """Figures of one label, or means over labels; or how much two models differ in them.

    Attributes are judged by plain accuracy with thresholds that were chosen for it, and by balanced
    accuracy with thresholds that were chosen for that, both on the validation split. The
    ``accuracy`` of one class is its recall: the share of its own images.
    """

    accuracy: Estimate | None
    balanced_accuracy: Estimate | None  # of classes: the mean of their recalls
    average_precision: Estimate | None  # of attributes; None: no test image has the label


@dataclass(frozen=True)
class LabelScore(_Strict):
    """One label of one form of a model."""

    label: str
    own: Metrics
    majority: float | None = None  # of an attribute: accuracy of the train split's commoner answer
    over_majority: Estimate | None = None
    over_baseline: Metrics | None = None  # None: the baseline does not have the label


@dataclass(frozen=True)
class FormScore(_Strict):
    """One form of a model, or the baseline, on the test images."""

    id: str
    own: Metrics  # over all images; of attributes, the mean over those that define a figure
    over_majority: Estimate | None  # in accuracy
    over_baseline: Metrics | None  # over the labels that both have
    labels: tuple[LabelScore, ...]


@dataclass(frozen=True)
class Baseline(_Strict):
    """The network of another recipe, in PyTorch, on the same images."""

    recipe: str
    missing: str | None = None  # why nothing is compared, and what to do; then the rest is None
    score: FormScore | None = None
    common_labels: int | None = None  # labels that both have
    parameters: int | None = None
    multiply_adds: int | None = None  # of one image


def doubt(images: int, form: FormScore) -> str | None:
    """Return why a form may have learned nothing; None where it beats the majority answer by more
    than chance."""
    gain = form.over_majority
    if gain is None or (gain.low is not None and gain.low > 0):
        return None
    interval = "too few images to say"
    if gain.low is not None and gain.high is not None:
        interval = f"95 % interval {gain.low:+.2f} to {gain.high:+.2f}"
    return (
        f"{gain.value:+.2f} points of accuracy over the majority answer on {images:,} test images "
        f"({interval})"
    )


@dataclass(frozen=True)
class Scores(_Strict):
    """Every form of a model on the test split. All intervals of a run come from the same samples,
    so differences are paired."""

    images: int
    samples: int  # of the bootstrap
    majority: Estimate  # accuracy of the train split's commonest answer; mean over labels
    forms: tuple[FormScore, ...]  # the PyTorch network first
    baseline: Baseline | None = None  # None: the recipe names none
