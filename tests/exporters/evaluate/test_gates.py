"""parity.py and gates.py: figures from the papers, hand-computed cases, and properties."""

from __future__ import annotations

import dataclasses
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.evaluate import gates, parity
from exporters.evaluate.paired_tests import (
    holm,
    mcnemar,
    mean_loss_upper,
    tango_statistic,
    tango_upper,
)
from exporters.evaluate.parity import stream
from exporters.evaluate.parity_values import Parity, Verdict
from exporters.evaluate.tasks import label_task
from exporters.options import TOLERANCES, GateOptions, Tolerance
from runtime import ModelSpec

CLASSES = ModelSpec("c", "multi-class", 2, 2, 1, ("a", "b", "c"))
ATTRIBUTES = ModelSpec("m", "multi-label", 2, 2, 1, ("hat", "beard"))
GATE = GateOptions()
CLASS_TASK = label_task("multi-class")


def compare(before: Any, after: Any, truth: Any, spec: ModelSpec, **options: Any) -> Parity:
    return parity.compare(label_task(spec.task), before, after, truth, spec.labels, **options)


def judged(comparison: Parity, options: GateOptions, *rows: Tolerance) -> Verdict:
    return gates.judge(label_task(comparison.task), comparison, options, rows)


def one_hot(answers: Any, width: int = 3, sure: float = 0.9) -> NDArray[np.float32]:
    rest = (1 - sure) / (width - 1)
    result = np.full((len(answers), width), rest, np.float32)
    result[np.arange(len(answers)), answers] = sure
    return result


# --- statistics against their sources --------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "won", "total", "alpha", "expected", "digits"),
    [
        # Tango 1998, section 6.1 (soft contact lenses): lower limit of the 90 % interval -0.096
        (1, 0, 44, 0.05, 0.096, 3),
        # PropCIs::scoreci.mp(25, 28, 618, conf.level = 0.90) in R: -0.0148 to 0.0247
        (25, 28, 618, 0.05, 0.0148, 4),
        (28, 25, 618, 0.05, 0.0247, 4),
    ],
)
def test_tango_as_published(
    lost: int, won: int, total: int, alpha: float, expected: float, digits: int
) -> None:
    assert round(tango_upper(lost, won, total, alpha), digits) == expected


def test_tango_statistic_as_published() -> None:
    # Tango 1998, section 6.1: Z = 1.709 at a margin of 0.1
    assert round(-tango_statistic(1, 0, 44, 0.1), 3) == 1.709


@pytest.mark.parametrize("total", [10, 1_000, 10_000])
def test_tango_without_discordant_pairs_has_a_closed_form(total: int) -> None:
    z2 = NormalDist().inv_cdf(0.95) ** 2
    assert tango_upper(0, 0, total, 0.05) == pytest.approx(z2 / (total + z2), rel=1e-9)


def test_tango_at_its_ends() -> None:
    assert tango_upper(10, 0, 10, 0.05) == pytest.approx(1.0)
    assert tango_upper(0, 10, 10, 0.05) < 0


def test_holm_by_hand() -> None:
    # 0.005 * 4, 0.01 * 3, then 0.03 * 2 and 0.04 * 1, which may not fall below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [
        (0, 0, 1.0),
        (0, 5, 1.0),
        (5, 0, 1 / 32),
        (1, 0, 1 / 2),
        (3, 1, 5 / 16),  # (4 + 1) / 16
        (8, 2, 56 / 1024),  # (45 + 10 + 1) / 1024
    ],
)
def test_mcnemar_by_hand(lost: int, won: int, p: float) -> None:
    assert mcnemar(lost, won) == pytest.approx(p, rel=1e-12)


def test_mcnemar_holds_for_large_counts() -> None:
    assert 0.4 < mcnemar(50_000, 50_000) < 0.6
    assert mcnemar(60_000, 40_000) == pytest.approx(0, abs=1e-12)


def test_mean_loss_by_hand() -> None:
    """One label, 3 lost and 1 won of 98: Bonett and Price's (4 - 2) / 100, its error, and the
    quantile of Student's t with 99 degrees of freedom from a table."""
    mean, square = 2 / 100, 6 / 100
    error = ((square - mean**2) / 99) ** 0.5
    expected = mean + 1.660391 * error
    bound = mean_loss_upper([(-1, 1), (0, 94), (1, 3)], 1, 0.05)
    assert bound == pytest.approx(expected, rel=1e-6)


# --- compare ---------------------------------------------------------------------------------


def test_compare_counts_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    comparison = compare(one_hot([0, 0, 1, 2, 0]), one_hot([0, 1, 1, 1, 0]), labels, CLASSES)
    assert dataclasses.astuple(comparison.pairs) == (2, 1, 1, 1)
    assert comparison.pairs.total == comparison.images == 5
    assert (comparison.pairs.reference_accuracy, comparison.pairs.candidate_accuracy) == (0.6, 0.6)
    assert comparison.agreement == 0.6
    assert [dataclasses.astuple(row.pairs) for row in comparison.labels] == [
        (1, 1, 0, 0),
        (1, 0, 1, 0),
        (0, 0, 0, 1),
    ]
    assert comparison.losses == ((-1, 1), (0, 3), (1, 1))
    assert [index for index, _ in comparison.worst[:2]] == [1, 3]
    assert comparison.max_abs == pytest.approx(0.85)
    assert comparison.mean_abs == pytest.approx(4 * 0.85 / 15)


def test_compare_multi_label_by_hand() -> None:
    labels = np.array([[1, 0], [1, 1], [0, 0]])
    before = np.array([[0.9, 0.1], [0.8, 0.7], [0.2, 0.4]], np.float32)
    after = np.array([[0.4, 0.6], [0.8, 0.7], [0.2, 0.4]], np.float32)
    comparison = compare(before, after, labels, ATTRIBUTES)
    assert comparison.pairs.reference_accuracy == 1
    assert comparison.pairs.candidate_accuracy == pytest.approx(4 / 6)
    assert comparison.losses == ((0, 2), (2, 1))
    assert [row.label for row in comparison.labels] == ["hat", "beard"]
    assert dataclasses.astuple(comparison.labels[0].pairs) == (2, 1, 0, 0)
    lenient = compare(
        before, after, labels, ATTRIBUTES, candidate_thresholds=np.array([0.35, 0.65])
    )
    assert lenient.pairs.candidate_accuracy == 1
    assert lenient.agreement == 1


GOOD = one_hot([0, 1])


@pytest.mark.parametrize(
    ("reference", "candidate", "labels", "spec", "thresholds", "message"),
    [
        (GOOD, GOOD[:1], np.array([0, 1]), CLASSES, None, r"candidate .*\(1, 3\).*\(2, 3\)"),
        (GOOD[:, :2], GOOD, np.array([0, 1]), CLASSES, None, r"reference .*\(2, 2\)"),
        (GOOD, GOOD * 3, np.array([0, 1]), CLASSES, None, "candidate .* 0.15 to 2.7"),
        (GOOD, GOOD * np.nan, np.array([0, 1]), CLASSES, None, "end in a softmax or sigmoid"),
        (GOOD, GOOD, np.array([[0], [1]]), CLASSES, None, r"labels have shape \(2, 1\)"),
        (GOOD, GOOD, np.array([0, 1]), CLASSES, np.ones(3), "multi-class model, which has none"),
        (
            GOOD[:, :2],
            GOOD[:, :2],
            np.array([[0, 1], [1, 1]]),
            ATTRIBUTES,
            np.ones(3),
            r"thresholds have shape \(3,\)",
        ),
        (GOOD[:0], GOOD[:0], np.array([], int), CLASSES, None, "with at least one image"),
    ],
)
def test_compare_refuses(
    reference: Any, candidate: Any, labels: Any, spec: Any, thresholds: Any, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        compare(reference, candidate, labels, spec, reference_thresholds=thresholds)


def test_stream_takes_any_callable_and_reports_progress() -> None:
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    sizes, steps = [], []

    def model(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        sizes.append(len(batch))
        return np.hstack([batch.reshape(-1, 1) / 10, 1 - batch.reshape(-1, 1) / 10])

    probabilities = stream(model, images, batch_size=4, progress=lambda *at: steps.append(at))
    assert np.allclose(probabilities[:, 0], np.arange(10) / 10)
    assert probabilities.dtype == np.float32
    assert sizes == [4, 4, 2]
    assert steps == [(4, 10), (8, 10), (10, 10)]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda batch: np.ones((1, 2)), r"shape \(1, 2\); expected \(3, labels\)"),
        (lambda batch: np.ones(3), r"shape \(3,\)"),
        (lambda batch: np.full((3, 2), -1.0), "values from -1 to -1"),
    ],
)
def test_stream_refuses(model: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        stream(model, np.zeros((3, 1, 1, 1), np.uint8))


def test_stream_needs_images() -> None:
    with pytest.raises(ExportError, match="no images"):
        stream(lambda batch: batch, np.zeros((0, 1, 1, 1), np.uint8))


# --- judge -----------------------------------------------------------------------------------


def parity_of(lost: int, won: int, total: int, label: int = 0) -> Parity:
    """A candidate that loses and wins so many of class ``label``, and changes a little else."""
    labels = np.arange(total) % 3
    where = np.flatnonzero(labels == label)
    before, after = labels.copy(), labels.copy()
    after[where[:lost]] = (label + 1) % 3
    before[where[lost : lost + won]] = (label + 1) % 3
    return compare(one_hot(before), one_hot(after, sure=0.89), labels, CLASSES)


def test_the_same_model_passes_however_few_the_images() -> None:
    answers = one_hot([0, 1, 2])
    verdict = judged(compare(answers, answers, np.array([0, 1, 0]), CLASSES), GATE)
    assert verdict.passed
    assert verdict.failures == ()


def test_nobody_errs_and_enough_images() -> None:
    verdict = judged(parity_of(0, 0, 10_000), GATE)
    assert verdict.passed
    assert "it loses 0.000 points, and at most 0.027 with 95 % confidence" in verdict.reasons[0]


def test_too_few_images_cannot_show_it_and_the_text_says_how_many_can() -> None:
    verdict = judged(parity_of(0, 0, 900), GATE)
    assert not verdict.passed
    assert "1801 are needed even if no answer changes" in verdict.failures[0]
    assert judged(parity_of(0, 0, 1801), GATE).passed
    assert not judged(parity_of(0, 0, 1800), GATE).passed


def test_a_loss_within_the_margin_passes_and_a_larger_one_does_not() -> None:
    assert judged(parity_of(5, 3, 9_999), GATE).passed
    failed = judged(parity_of(30, 3, 9_999), GATE)
    assert not failed.passed
    assert "30 images lost, 3 won of 9999" in failed.failures[0]


def test_one_bad_class_fails_even_when_the_total_is_within_the_margin() -> None:
    verdict = judged(parity_of(8, 0, 30_000, label=1), GATE)
    assert [check.name for check in verdict.checks if not check.passed] == ["labels"]
    assert "significantly worse: b (8 lost, 0 won of 10000, p 0.0117" in verdict.failures[0]
    assert verdict.reasons[0] == verdict.failures[0]


def test_multi_label_is_judged_by_the_mean_over_labels() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (5_000, 2))
    before = np.where(labels == 1, 0.9, 0.1).astype(np.float32)
    after = before.copy()
    after[:3, 0] = 1 - after[:3, 0]
    verdict = judged(compare(before, after, labels, ATTRIBUTES), GateOptions(0.10))
    assert verdict.passed
    assert "3 answers lost, 0 won of 10000" in verdict.reasons[0]
    after[:40, 1] = 1 - after[:40, 1]
    assert not judged(compare(before, after, labels, ATTRIBUTES), GateOptions(0.10)).passed


def test_tolerances_are_checked_and_give_their_reasons() -> None:
    row = Tolerance("max_abs", 1e-4, "sums in another order")
    verdict = judged(parity_of(0, 0, 9_999), GATE, row)
    assert not verdict.passed
    assert verdict.failures == (
        "largest difference of probabilities 0.01, allowed 0.0001 (sums in another order)",
    )


def test_every_precision_has_tolerances_with_reasons() -> None:
    assert set(TOLERANCES) == {"fp32", "fp16", "int8"}
    assert all(row.reason for rows in TOLERANCES.values() for row in rows)
    assert gates.tolerances_for("int8-u8s8-rr") == TOLERANCES["int8"]
    with pytest.raises(ExportError, match="no tolerances for variant 'int4'"):
        gates.tolerances_for("int4")


counts = st.integers(0, 40)


@given(counts, counts)
@settings(max_examples=60, deadline=None)
def test_one_more_loss_never_helps(lost: int, won: int) -> None:
    total = 10_000
    better = tango_upper(lost, won, total, 0.05)
    assert tango_upper(lost + 1, won, total, 0.05) >= better
    assert tango_upper(lost, won + 1, total, 0.05) <= better + 1e-4
    assert mcnemar(lost + 1, won) <= mcnemar(lost, won) + 1e-12
    assert better >= (lost - won) / total


@given(counts, counts)
@settings(max_examples=15, deadline=None)
def test_a_worse_candidate_never_passes_where_a_better_one_fails(lost: int, won: int) -> None:
    if not judged(parity_of(lost, won, 9_999), GATE).passed:
        assert not judged(parity_of(lost + 1, won, 9_999), GATE).passed


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 500)), min_size=1, max_size=6))
def test_mean_loss_bound_is_above_the_mean_and_grows_with_confidence(
    losses: list[tuple[int, int]],
) -> None:
    count = sum(images for _, images in losses)
    mean = sum(lost * images for lost, images in losses) / (count + 2) / 5
    likely, sure = (mean_loss_upper(losses, 5, alpha) for alpha in (0.05, 0.01))
    assert mean < likely < sure


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_comparison_is_symmetric_and_blind_to_order(seed: int, multi: bool) -> None:
    random = np.random.default_rng(seed)
    spec = ATTRIBUTES if multi else CLASSES
    width = len(spec.labels)
    before, after = random.random((2, 40, width), np.float32)
    labels = random.integers(0, 2, (40, width)) if multi else random.integers(0, width, 40)
    there = compare(before, after, labels, spec)
    back = compare(after, before, labels, spec)
    assert (there.max_abs, there.mean_abs) == pytest.approx((back.max_abs, back.mean_abs))
    assert there.pairs.only_reference == back.pairs.only_candidate
    assert there.losses == tuple((-lost, n) for lost, n in reversed(back.losses))
    order = random.permutation(40)
    mixed = compare(before[order], after[order], labels[order], spec)
    assert (mixed.pairs, mixed.labels, mixed.losses) == (there.pairs, there.labels, there.losses)
    assert sum(row.pairs.total for row in there.labels) == there.pairs.total


# --- choosing on validation images, and bounds -----------------------------------------------


def flipped(images: int, lost: int, won: int) -> Parity:
    """Two models that differ a little everywhere, and in ``lost`` and ``won`` answers."""
    labels = np.zeros(images, np.int64)
    before, after = labels.copy(), labels.copy()
    after[:lost] = 1
    before[lost : lost + won] = 1
    return compare(one_hot(before), one_hot(after, sure=0.89), labels, CLASSES)


def test_screening_few_images_uses_the_measured_loss() -> None:
    """300 images can never bound a loss below 0.15 points; a search must not fail for that."""
    same, lost = flipped(300, 0, 0), flipped(300, 3, 0)
    options = GateOptions()
    assert not judged(same, options).passed
    assert gates.screen(CLASS_TASK, same, options).passed
    assert not gates.screen(CLASS_TASK, lost, options).passed


def test_screening_enough_images_is_judging() -> None:
    for lost in (0, 1, 5, 30):
        flips = flipped(10_000, lost, 0)
        assert gates.screen(CLASS_TASK, flips, GateOptions()) == judged(flips, GateOptions())


@pytest.mark.parametrize(
    ("bounds", "failed"),
    [
        ({}, []),
        ({"max_size_bytes": 1000, "max_latency_ms": 2.0, "max_memory_mb": 60.0}, []),
        ({"max_size_bytes": 999}, ["size"]),
        ({"max_latency_ms": 1.9}, ["latency"]),
        ({"max_memory_mb": 59.0}, ["memory"]),
    ],
)
def test_bounds(bounds: dict[str, float], failed: list[str]) -> None:
    checks = gates.within_bounds(
        GateOptions(**bounds),  # type: ignore[arg-type]
        size_bytes=1000,
        latency_ms=2.0,
        memory_mb=60.0,
    )
    assert len(checks) == len(bounds)
    assert [check.name for check in checks if not check.passed] == failed
    for check in checks:
        assert "the recipe allows" in check.text


def test_memory_that_could_not_be_measured_keeps_no_bound() -> None:
    (check,) = gates.within_bounds(
        GateOptions(max_memory_mb=1e6), size_bytes=1, latency_ms=1, memory_mb=None
    )
    assert not check.passed
