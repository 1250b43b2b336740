"""Accuracy, balanced accuracy and average precision of several forms of a model on the same images,
against the majority answer and a baseline, with intervals. Takes probabilities and judges nothing.

A single proportion (accuracy of one label, recall of one class) has Wilson's interval; means over
labels, balanced accuracy, average precision and all differences have the percentile bootstrap's.
Every statistic is a function of how often each image counts, and counting each once gives the
figure itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.bootstrap import percentile_interval, resampled, wilson_interval
from exporters.evaluate.metrics import Objective
from exporters.evaluate.parity import Progress
from exporters.evaluate.probabilities import Floats
from exporters.evaluate.score_values import Estimate, FormScore, LabelScore, Metrics
from exporters.evaluate.tasks import LabelTask
from exporters.evaluate.weighted import Values, Weights, mean, share

OBJECTIVES: tuple[Objective, ...] = ("accuracy", "balanced")  # thresholds are chosen for both
SAMPLES = 1_000  # ends of intervals then repeat to about a twentieth of their width


@dataclass(frozen=True)
class ModelOutputs:
    """The probabilities that one form gives of the test images."""

    id: str
    probabilities: Floats = field(repr=False)  # [N, labels]
    # [labels], as chosen for each objective; empty for a task without thresholds
    thresholds: Mapping[Objective, NDArray[np.float64]] = field(default_factory=dict)
    labels: NDArray[np.bool_] | None = None  # [labels] that a baseline has; None: all


@dataclass(frozen=True)
class Scored:
    """The result; forms are in the order in which they were given."""

    majority: Estimate
    forms: tuple[FormScore, ...]
    baseline: FormScore | None


def score(
    task: LabelTask,
    forms: Sequence[ModelOutputs],
    truth: NDArray[np.integer],
    labels: Sequence[str],
    majority: NDArray[np.integer],
    baseline: ModelOutputs | None = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Scored:
    """Score forms of a model on images whose true labels are ``truth``.

    ``majority`` is the task's :meth:`majority_answer`. The same seed gives the same intervals. Only
    a few samples are in memory at a time, however many images there are.
    """
    everyone = [*forms, *([baseline] if baseline else [])]
    statistics = [task.statistic(outputs, truth) for outputs in everyone]
    common = truth == majority  # [N] or [N, labels]
    always: list[Values] = []
    pieces: list[list[tuple[Values, Values]]] = [[] for _ in everyone]
    for weights in _weights(len(truth), samples, seed, progress):
        always.append(share(common, weights))
        for statistic, parts in zip(statistics, pieces, strict=True):
            parts.append(statistic(weights))
    context = _Context(task, tuple(labels), truth, np.concatenate(always))
    tallies = [
        _Tally(outputs, *(np.concatenate(part) for part in zip(*parts, strict=True)))
        for outputs, parts in zip(everyone, pieces, strict=True)
    ]
    reference = tallies[-1] if baseline else None
    rows = tuple(_form(tally, context, reference) for tally in tallies)
    return Scored(
        majority=_certain(mean(context.always), context.images_of_mean),
        forms=rows[: len(forms)],
        baseline=rows[-1] if baseline else None,
    )


def _weights(images: int, samples: int, seed: int, progress: Progress | None) -> Iterator[Weights]:
    """Every image once, then the bootstrap samples, a few at a time."""
    yield np.ones((images, 1), np.uint8)
    done = 0
    for weights in resampled(images, samples, seed):
        yield weights
        done += weights.shape[1]
        if progress is not None:
            progress(done, samples)


# --- from samples to estimates --------------------------------------------------------------


@dataclass(frozen=True)
class _Tally:
    """The figures of one form, for every sample."""

    outputs: ModelOutputs
    overall: Values
    labels: Values


@dataclass(frozen=True)
class _Context:
    """The parts that all forms share."""

    task: LabelTask
    labels: tuple[str, ...]
    truth: NDArray[np.integer]
    always: Values  # accuracy of the majority answer [1 + samples, labels], or [.., 1] for all

    @property
    def images_of_mean(self) -> int | None:
        """The number of images that the overall accuracy is a plain proportion of; None: it is a
        mean."""
        single = not self.task.answers_each_label or len(self.labels) == 1
        return len(self.truth) if single else None


def _form(tally: _Tally, context: _Context, baseline: _Tally | None) -> FormScore:
    present = tally.outputs.labels
    places = np.arange(len(context.labels)) if present is None else np.flatnonzero(present)
    compared = None if baseline is tally else baseline
    each_label = context.task.answers_each_label
    over = None
    if compared is not None and each_label:
        over = _metrics(mean(tally.labels - compared.labels))
    elif compared is not None:
        over = _metrics(tally.overall - compared.overall)
    least = mean(context.always[:, places] if each_label else context.always)
    return FormScore(
        id=tally.outputs.id,
        own=_metrics(tally.overall, context.images_of_mean),
        over_majority=_estimate(tally.overall[:, 0] - least),
        over_baseline=over,
        labels=tuple(_label(int(place), tally, context, compared) for place in places),
    )


def _label(place: int, tally: _Tally, context: _Context, baseline: _Tally | None) -> LabelScore:
    own = tally.labels[:, place]
    over = None if baseline is None else _metrics(own - baseline.labels[:, place])
    always = context.always[:, place] if context.task.answers_each_label else None
    return LabelScore(
        label=context.labels[place],
        own=_metrics(own, context.task.images_of_label(context.truth, place)),
        majority=None if always is None else 100 * float(always[0]),
        over_majority=None if always is None else _estimate(own[:, 0] - always),
        over_baseline=None if over is None or over.accuracy is None else over,
    )


def _metrics(values: Values, images: int | None = None) -> Metrics:
    """The metrics of values [1 + samples, 3]; the accuracy is a proportion of so many images."""
    accuracy, balanced, precision = values.T
    return Metrics(_estimate(accuracy, images), _estimate(balanced), _estimate(precision))


def _estimate(values: Values, images: int | None = None) -> Estimate | None:
    """The estimate of values [1 + samples], in percent; None when the figure is undefined."""
    if np.isnan(values[0]):
        return None
    return _certain(values, images)


def _certain(values: Values, images: int | None) -> Estimate:
    value = float(values[0])
    if images is None:
        ends = percentile_interval(values[1:])
    else:
        ends = wilson_interval(round(value * images), images)
    low, high = (None, None) if ends is None else (100 * ends[0], 100 * ends[1])
    return Estimate(100 * value, low, high)
