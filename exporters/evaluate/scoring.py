"""Accuracy, balanced accuracy and average precision of several forms of a model on the same images,
against the majority answer and a baseline, with intervals. Takes probabilities; knows neither files
nor networks, and judges nothing.

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

from exporters.evaluate.average_precision import Ranking
from exporters.evaluate.bootstrap import percentile_interval, resampled, wilson_interval
from exporters.evaluate.metrics import Floats, Objective, correct, decide
from exporters.evaluate.parity import Progress
from exporters.evaluate.score_values import Estimate, FormScore, LabelScore, Metrics
from runtime.spec import ModelSpec

OBJECTIVES: tuple[Objective, ...] = ("accuracy", "balanced")  # thresholds are chosen for both
SAMPLES = 1_000  # ends of intervals then repeat to about a twentieth of their width
# Shares of one, [1 + samples, labels, 3], or over all images [1 + samples, 3]: accuracy, balanced
# accuracy and average precision. The first row counts each image once; nan is undefined.
Values = NDArray[np.float64]
Weights = NDArray[np.uint8]  # [N, samples], how often an image counts


@dataclass(frozen=True)
class Answers:
    """What one form says of the test images."""

    id: str
    probabilities: Floats = field(repr=False)  # [N, labels]
    # multi-label: [labels], as chosen for each objective; multi-class: none
    thresholds: Mapping[Objective, NDArray[np.float64]] = field(default_factory=dict)
    known: NDArray[np.bool_] | None = None  # [labels] that it has; None: all. For a baseline


@dataclass(frozen=True)
class Scored:
    """The result; forms are in the order in which they were given."""

    majority: Estimate
    forms: tuple[FormScore, ...]
    baseline: FormScore | None


def majority_answer(train_labels: NDArray[np.integer], spec: ModelSpec) -> NDArray[np.int64]:
    """The commonest answer of the train split: a class [], or 0 and 1 for each label [labels]."""
    if spec.task == "multi-label":
        return np.asarray(train_labels.mean(axis=0) >= 0.5, np.int64)
    return np.asarray(np.bincount(train_labels, minlength=len(spec.labels)).argmax(), np.int64)


def score(
    forms: Sequence[Answers],
    labels: NDArray[np.integer],
    spec: ModelSpec,
    majority: NDArray[np.integer],
    baseline: Answers | None = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Scored:
    """Score forms of a model on images whose truth is ``labels``, classes [N] or 0/1 [N, labels].

    ``majority`` is what :func:`majority_answer` says. The same seed gives the same intervals. Only
    a few samples are in memory at a time, however many images there are.
    """
    everyone = [*forms, *([baseline] if baseline else [])]
    statistics = [_statistics(answers, labels, spec) for answers in everyone]
    common = labels == majority  # [N] or [N, labels]
    always: list[Values] = []
    found: list[list[tuple[Values, Values]]] = [[] for _ in everyone]
    for weights in _weights(len(labels), samples, seed, progress):
        always.append(_share(common, weights))
        for statistic, pieces in zip(statistics, found, strict=True):
            pieces.append(statistic.values(weights))
    context = _Context(spec, labels, np.concatenate(always))
    tallies = [
        _Tally(answers, *(np.concatenate(parts) for parts in zip(*pieces, strict=True)))
        for answers, pieces in zip(everyone, found, strict=True)
    ]
    reference = tallies[-1] if baseline else None
    rows = tuple(_form(tally, context, reference) for tally in tallies)
    return Scored(
        majority=_certain(_mean(context.always), context.images_of_mean),
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


# --- statistics, for any weights ------------------------------------------------------------


class _MultiLabel:
    """Of each label: accuracy, balanced accuracy, average precision."""

    def __init__(self, answers: Answers, labels: NDArray[np.integer]) -> None:
        found, truth = answers.probabilities, labels == 1
        said = decide(found, answers.thresholds["balanced"]) == 1
        self._right = correct(found, labels, answers.thresholds["accuracy"])
        self._truth, self._hits, self._rejected = truth, said & truth, ~(said | truth)
        self._rankings = [Ranking.of(*pair) for pair in zip(found.T, labels.T, strict=True)]
        self._known = answers.known

    def values(self, weights: Weights) -> tuple[Values, Values]:
        """(means over labels [samples, 3], of each label [samples, labels, 3])."""
        positives = _sum(self._truth, weights)
        negatives = len(self._truth) - positives  # a sample has as many draws as there are images
        sensitivity = _ratio(_sum(self._hits, weights), positives)
        specificity = _ratio(_sum(self._rejected, weights), negatives)
        precision = [ranking.average_precision(weights) for ranking in self._rankings]
        values = np.stack(
            [
                _share(self._right, weights),
                (sensitivity + specificity) / 2,
                np.stack(precision, axis=-1),
            ],
            axis=-1,
        )
        if self._known is not None:
            values[:, ~self._known] = np.nan
        return _mean(values), values


class _MultiClass:
    """Of all images accuracy and the mean recall; of each class its recall, as its accuracy."""

    def __init__(self, answers: Answers, labels: NDArray[np.integer]) -> None:
        right = correct(answers.probabilities, labels, None)
        self._truth = labels[:, None] == np.arange(answers.probabilities.shape[1])
        self._hits = self._truth & right[:, None]

    def values(self, weights: Weights) -> tuple[Values, Values]:
        """(over all images [samples, 3], of each class [samples, classes, 3])."""
        hits = _sum(self._hits, weights)
        recall = _ratio(hits, _sum(self._truth, weights))
        undefined = np.full_like(recall, np.nan)
        accuracy = hits.sum(axis=1) / len(self._hits)
        overall = np.stack([accuracy, _mean(recall), undefined[:, 0]], axis=-1)
        return overall, np.stack([recall, undefined, undefined], axis=-1)


def _statistics(
    answers: Answers, labels: NDArray[np.integer], spec: ModelSpec
) -> _MultiLabel | _MultiClass:
    multi_label = spec.task == "multi-label"
    return _MultiLabel(answers, labels) if multi_label else _MultiClass(answers, labels)


def _sum(flags: NDArray[np.bool_], weights: Weights) -> Values:
    """How many images have a flag, by weight: [samples, flags] for [N] or [N, flags]."""
    # whole numbers up to 2^24 are exact in float32, whose product is quick
    total = weights.T.astype(np.float32) @ flags.reshape(len(flags), -1).astype(np.float32)
    return np.asarray(total, np.float64)


def _share(flags: NDArray[np.bool_], weights: Weights) -> Values:
    return _sum(flags, weights) / len(flags)


def _ratio(part: Values, whole: Values) -> Values:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: Values) -> Values:
    """Over labels, axis 1, of those that are defined; nan where none is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1).astype(float))


# --- from samples to estimates --------------------------------------------------------------


@dataclass(frozen=True)
class _Tally:
    """What was found of one form."""

    answers: Answers
    overall: Values
    labels: Values


@dataclass(frozen=True)
class _Context:
    """What is the same for all forms."""

    spec: ModelSpec
    labels: NDArray[np.integer]
    always: Values  # accuracy of the majority answer [1 + samples, labels], multi-class: [.., 1]

    @property
    def multi_label(self) -> bool:
        return self.spec.task == "multi-label"

    @property
    def images_of_mean(self) -> int | None:
        """How many images the overall accuracy is a plain proportion of; None: it is a mean."""
        single = not self.multi_label or len(self.spec.labels) == 1
        return len(self.labels) if single else None

    def images_of(self, place: int) -> int:
        """How many images the accuracy of a label is a proportion of."""
        return len(self.labels) if self.multi_label else int((self.labels == place).sum())


def _form(tally: _Tally, context: _Context, baseline: _Tally | None) -> FormScore:
    known = tally.answers.known
    places = np.arange(len(context.spec.labels)) if known is None else np.flatnonzero(known)
    compared = None if baseline is tally else baseline
    over = None
    if compared is not None:
        gained = tally.labels - compared.labels
        over = _mean(gained) if context.multi_label else tally.overall - compared.overall
    least = _mean(context.always[:, places] if context.multi_label else context.always)
    return FormScore(
        id=tally.answers.id,
        own=_metrics(tally.overall, context.images_of_mean),
        over_majority=_estimate(tally.overall[:, 0] - least),
        over_baseline=None if over is None else _metrics(over),
        labels=tuple(_label(int(place), tally, context, compared) for place in places),
    )


def _label(place: int, tally: _Tally, context: _Context, baseline: _Tally | None) -> LabelScore:
    own = tally.labels[:, place]
    over = None if baseline is None else _metrics(own - baseline.labels[:, place])
    always = context.always[:, place] if context.multi_label else None
    return LabelScore(
        label=context.spec.labels[place],
        own=_metrics(own, context.images_of(place)),
        majority=None if always is None else 100 * float(always[0]),
        over_majority=None if always is None else _estimate(own[:, 0] - always),
        over_baseline=None if over is None or over.accuracy is None else over,
    )


def _metrics(values: Values, images: int | None = None) -> Metrics:
    """Of values [1 + samples, 3]; the accuracy is a proportion of so many images, if any."""
    accuracy, balanced, precision = values.T
    return Metrics(_estimate(accuracy, images), _estimate(balanced), _estimate(precision))


def _estimate(values: Values, images: int | None = None) -> Estimate | None:
    """Of values [1 + samples], in percent; None when the figure itself is undefined."""
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
