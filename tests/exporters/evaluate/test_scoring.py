"""scoring.py: figures by hand, intervals against plain loops, differences that are paired."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from exporters.evaluate.average_precision import average_precision
from exporters.evaluate.bootstrap import percentile_interval, resampled, wilson_interval
from exporters.evaluate.metrics import balanced_accuracy, best_thresholds, decide
from exporters.evaluate.score_values import Estimate
from exporters.evaluate.scoring import OBJECTIVES, ModelOutputs, score
from exporters.evaluate.tasks import label_task

EACH, ONE = label_task("multi-label"), label_task("multi-class")
NEVER = np.zeros(3, np.int64)  # the answer "no" to all three
ATTRIBUTES, CLASSES = ("common", "rare", "never"), ("a", "b", "c")


def faces(
    images: int = 400, noise: float = 1.0, seed: int = 0
) -> tuple[ModelOutputs, NDArray[np.uint8]]:
    truth = (np.random.default_rng(7).random((images, 3)) < (0.5, 0.05, 0.0)).astype(np.uint8)
    logits = 2.0 * truth - 1 + noise * np.random.default_rng(seed).normal(size=truth.shape)
    result = (1 / (1 + np.exp(-logits))).astype(np.float32)
    thresholds = {name: best_thresholds(result, truth, name) for name in OBJECTIVES}
    return ModelOutputs(f"noise {noise}", result, thresholds), truth


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def ends(estimate: Estimate | None) -> tuple[float, float]:
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    return estimate.low, estimate.high


def test_attributes_have_the_plain_figures() -> None:
    answers, truth = faces()
    majority = EACH.majority_answer(truth, 3)
    (form,) = score(EACH, [answers], truth, ATTRIBUTES, majority, samples=50).forms
    right = decide(answers.probabilities, answers.thresholds["accuracy"]) == truth
    balanced = balanced_accuracy(
        decide(answers.probabilities, answers.thresholds["balanced"]), truth
    )
    precision = average_precision(answers.probabilities, truth)
    for index, row in enumerate(form.labels[:2]):
        assert value(row.own.accuracy) == pytest.approx(100 * right[:, index].mean())
        assert value(row.own.balanced_accuracy) == pytest.approx(100 * balanced[index])
        assert value(row.own.average_precision) == pytest.approx(100 * precision[index])
        of_one = wilson_interval(int(right[:, index].sum()), len(truth))
        assert ends(row.own.accuracy) == pytest.approx(tuple(100 * end for end in of_one))
        commoner = truth[:, index].mean() >= 0.5
        assert row.majority == pytest.approx(100 * (truth[:, index] == commoner).mean())
        assert value(row.over_majority) == pytest.approx(
            value(row.own.accuracy) - (row.majority or 0)
        )
    assert value(form.own.accuracy) == pytest.approx(100 * right.mean())
    assert value(form.own.average_precision) == pytest.approx(100 * np.nanmean(precision))


def test_an_undefined_figure_is_not_zero() -> None:
    answers, truth = faces()
    (form,) = score(EACH, [answers], truth, ATTRIBUTES, NEVER, samples=20).forms
    never = form.labels[2]
    assert never.own.average_precision is None and never.own.balanced_accuracy is None
    assert value(never.own.accuracy) > 50
    # the mean is over the two labels that define it
    assert value(form.own.balanced_accuracy) == pytest.approx(
        np.mean([value(row.own.balanced_accuracy) for row in form.labels[:2]])
    )


def test_intervals_are_those_of_a_plain_loop() -> None:
    """Each sample written out as images, judged by the plain functions."""
    (one, truth), (two, _) = faces(150), faces(150, noise=1.5, seed=1)
    result = score(EACH, [one], truth, ATTRIBUTES, NEVER, two, samples=40, seed=5)
    means, differences = [], []
    for counts in np.concatenate(list(resampled(150, 40, 5)), axis=1).T:
        drawn = np.repeat(np.arange(150), counts)
        right = [
            decide(a.probabilities[drawn], a.thresholds["accuracy"]) == truth[drawn]
            for a in (one, two)
        ]
        means.append(right[0].mean())
        differences.append(
            np.nanmean(average_precision(one.probabilities[drawn], truth[drawn]))
            - np.nanmean(average_precision(two.probabilities[drawn], truth[drawn]))
        )
    form = result.forms[0]
    of_mean = percentile_interval(np.array(means))
    assert of_mean is not None
    assert ends(form.own.accuracy) == pytest.approx(tuple(100 * end for end in of_mean))
    paired = percentile_interval(np.array(differences))
    assert paired is not None and form.over_baseline is not None
    assert ends(form.over_baseline.average_precision) == pytest.approx(
        tuple(100 * end for end in paired)
    )


def test_a_model_gains_nothing_over_itself() -> None:
    answers, truth = faces()
    result = score(EACH, [answers], truth, ATTRIBUTES, NEVER, answers, samples=20)
    over = result.forms[0].over_baseline
    assert over is not None
    for estimate in (over.accuracy, over.balanced_accuracy, over.average_precision):
        assert estimate == Estimate(0.0)  # paired: the same in every sample
    assert result.baseline is not None and result.baseline.over_baseline is None


def test_a_baseline_may_have_only_some_labels() -> None:
    (answers, truth), (other, _) = faces(), faces(noise=2.0, seed=1)
    only = ModelOutputs(
        "one", other.probabilities, other.thresholds, np.array([True, False, False])
    )
    result = score(EACH, [answers], truth, ATTRIBUTES, NEVER, only, samples=20)
    assert result.baseline is not None
    assert [row.label for row in result.baseline.labels] == ["common"]
    common, rare, _ = result.forms[0].labels
    assert rare.over_baseline is None and common.over_baseline is not None
    over = result.forms[0].over_baseline
    assert over is not None and over.accuracy == common.over_baseline.accuracy
    assert value(over.accuracy) > 0


def test_one_attribute_alone_is_a_proportion() -> None:
    answers, truth = faces()
    one = ModelOutputs(
        "one",
        answers.probabilities[:, :1],
        {name: values[:1] for name, values in answers.thresholds.items()},
    )
    result = score(EACH, [one], truth[:, :1], ("common",), np.ones(1, np.int64), samples=20)
    assert result.forms[0].own.accuracy == result.forms[0].labels[0].own.accuracy


def test_classes() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    answers_given = np.array([0, 0, 0, 1, 1, 1, 2, 0])
    answers = ModelOutputs("net", np.eye(3, dtype=np.float32)[answers_given])
    majority = ONE.majority_answer(np.array([0, 0, 1]), 3)
    other = ModelOutputs("other", np.eye(3, dtype=np.float32)[np.zeros(8, np.int64)])
    result = score(ONE, [answers], truth, CLASSES, majority, other, samples=50)
    (form,) = result.forms
    assert value(form.own.accuracy) == 75
    assert ends(form.own.accuracy) == pytest.approx(
        tuple(100 * end for end in wilson_interval(6, 8))
    )
    assert value(form.own.balanced_accuracy) == pytest.approx(100 * (3 / 4 + 1 + 1 / 2) / 3)
    assert form.own.average_precision is None
    assert [value(row.own.accuracy) for row in form.labels] == [75, 100, 50]
    assert result.majority.value == 50
    assert value(form.over_majority) == 25
    assert form.over_baseline is not None and value(form.over_baseline.accuracy) == 25


def test_progress_reaches_the_end() -> None:
    answers, truth = faces()
    steps: list[tuple[int, int]] = []
    score(
        EACH,
        [answers],
        truth,
        ATTRIBUTES,
        NEVER,
        samples=100,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps[-1] == (100, 100)
