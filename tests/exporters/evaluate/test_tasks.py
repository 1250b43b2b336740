"""The table of tasks as they are measured, and the judge of each for outputs of any making."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporters.errors import ExportError
from exporters.evaluate.tasks import (
    LABEL_TASKS,
    TASKS,
    Bounds,
    OutputPair,
    label_task,
    task_named,
    task_of_answers,
)
from exporters.evaluate.tasks.values import VALUES
from exporters.options import MIN_SQNR_DB, GateOptions

RANDOM = np.random.default_rng(0)
SIGNAL = RANDOM.normal(size=(200, 4)).astype(np.float32)
BOUNDS = Bounds(GateOptions(margin_points=1.0), MIN_SQNR_DB)


def noisy(decibels: float, values: np.ndarray = SIGNAL) -> np.ndarray:
    noise = RANDOM.normal(size=values.shape)
    noise *= np.sqrt(np.square(values - values.mean(axis=0)).sum() / np.square(noise).sum())
    return np.asarray(values + noise * 10 ** (-decibels / 20), np.float32)


def pair(*outputs: tuple[np.ndarray, np.ndarray], **options: Any) -> OutputPair:
    names = tuple(f"y{number}" for number in range(len(outputs)))
    return OutputPair(names, *zip(*outputs, strict=True), **options)


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(ExportError, match=r"'ranking'.*multi-class.*multi-label.*values"):
        task_named("ranking")


def test_a_task_without_labels_is_named() -> None:
    with pytest.raises(ExportError, match=r"values.*multi-class, multi-label"):
        label_task("values")


@pytest.mark.parametrize("name", list(TASKS))
def test_the_same_outputs_pass(name: str) -> None:
    task = task_named(name)
    values = label_task(name).probabilities(SIGNAL) if name != "values" else SIGNAL
    assessment = task.assess(pair((values, values)), BOUNDS, "int8")
    assert assessment.passed and assessment.lost_points < 1e-9 and assessment.sqnr_db == 200
    assert task.fits((200, 4), 200) and task.could_return((values,))


@pytest.mark.parametrize(("decibels", "passed"), [(23.0, True), (17.0, False)])
def test_values_are_judged_by_decibels(decibels: float, passed: bool) -> None:
    verdict = VALUES.judge(pair((SIGNAL, noisy(decibels))))
    assert verdict.passed is passed
    (check,) = verdict.checks
    assert (check.name, check.limit) == ("signal", MIN_SQNR_DB)
    assert check.value == pytest.approx(decibels, abs=0.5)


def test_the_worst_output_decides() -> None:
    verdict = VALUES.judge(pair((SIGNAL, SIGNAL), (1000 * SIGNAL, 1000 * noisy(10))))
    assert not verdict.passed and "'y1'" in verdict.failures[0]


def test_a_constant_part_does_not_hide_the_noise() -> None:
    verdict = VALUES.judge(pair((SIGNAL + 1e3, noisy(10) + 1e3)))
    assert not verdict.passed


def test_outputs_that_cannot_be_compared_are_named() -> None:
    fewer = VALUES.judge(pair((SIGNAL, SIGNAL[:100])))
    assert not fewer.passed and any("[100, 4]" in text for text in fewer.failures)
    infinite = SIGNAL.copy()
    infinite[7, 2] = np.inf
    lost = VALUES.judge(pair((SIGNAL, infinite)))
    assert not lost.passed and any("[7, 2]" in text for text in lost.failures)


def test_nothing_is_counted_in_values() -> None:
    outputs = pair((SIGNAL, noisy(20)))
    assert VALUES.loss_bound(outputs, 0.05) is None
    assert VALUES.quick_loss(outputs) == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("task", LABEL_TASKS, ids=lambda task: task.name)
def test_a_guess_has_to_hold_as_values_too(task: Any) -> None:
    values = task.probabilities(SIGNAL)
    lost = values.mean(axis=0) + np.float32(0.05) * (values - values.mean(axis=0))
    stated, guessed = (
        task.assess(pair((values, lost), guessed_db=minimum), BOUNDS, "int8")
        for minimum in (None, 10.0)
    )
    assert len(guessed.failures) == len(stated.failures) + 1
    assert f"--task {task.name}" in guessed.failures[-1]


def test_answers_show_their_task() -> None:
    classes, attributes = (task.probabilities(SIGNAL) for task in LABEL_TASKS)
    assert [task_of_answers((v,)).name for v in (classes, attributes, SIGNAL)] == [
        "multi-class",
        "multi-label",
        "multi-class",
    ]
    assert task_of_answers((SIGNAL, SIGNAL)).name == "values"
    assert task_of_answers((SIGNAL[:, :1],)).name == "values"
