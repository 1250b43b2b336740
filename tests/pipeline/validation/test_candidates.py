"""validation/candidates.py: each candidate against the network, and the plain export first."""

from __future__ import annotations

import re

import numpy as np
import pytest

from exporters.evaluate.score_values import Estimate, FormScore, Metrics, doubt
from exporters.evaluate.scoring import OBJECTIVES, ModelOutputs
from exporters.evaluate.tasks import label_task
from exporters.options import GateOptions
from exporters.search.trial import Trial
from pipeline.datasets.arrays import Split
from pipeline.errors import GateError
from pipeline.reports import JudgedVariant
from pipeline.validation.candidates import judge_candidate, reference_facts, require_fp32
from runtime.spec import ModelSpec

SPEC = ModelSpec("m", "multi-class", 1, 1, 1, ("a", "b"))
TRUTH = np.zeros(60, np.int64)
SURE = np.tile(np.array([[0.9, 0.1]], np.float32), (60, 1))
TEST = Split(np.zeros((60, 1, 1, 1), np.uint8), TRUTH, np.arange(60).astype(str))
FP32 = Trial("fp32", "fp32", "as exported", {}, 0.1)


def judged(answers: np.ndarray, gate: GateOptions) -> JudgedVariant:
    reference, candidate = ModelOutputs("PyTorch", SURE), ModelOutputs("fp32", answers)
    return judge_candidate(FP32, candidate, reference, TEST, SPEC, gate)


def test_a_candidate_is_held_against_the_network() -> None:
    other = SURE.copy()
    other[:3] = other[:3, ::-1]
    variant = judged(other, GateOptions(margin_points=20))
    assert (variant.id, variant.accuracy_percent) == ("fp32", 95.0)
    assert variant.parity.pairs.only_reference == 3 and not variant.verdict.passed
    assert variant.difference.max == pytest.approx(0.8)
    assert (variant.difference.p50, variant.difference.p90) == (0.0, 0.0)
    assert variant.thresholds is None and variant.balanced_percent is None
    facts = reference_facts(
        label_task(SPEC.task), ModelOutputs("PyTorch", SURE), TEST, GateOptions()
    )
    assert facts.accuracy_percent == 100.0  # of the network, whatever came last


def test_each_form_is_judged_with_its_own_thresholds() -> None:
    spec = ModelSpec("m", "multi-label", 1, 1, 1, ("a", "b"))
    truth = np.tile(np.array([[1, 0], [0, 1]], np.uint8), (30, 1))
    test = Split(TEST.images, truth, TEST.ids)
    probabilities = np.where(truth == 1, 0.8, 0.2).astype(np.float32)
    low = probabilities / 2  # the same order, other thresholds
    reference, candidate = (
        ModelOutputs(name, values, {objective: np.full(2, at) for objective in OBJECTIVES})
        for name, values, at in (("PyTorch", probabilities, 0.5), ("int8", low, 0.25))
    )
    trial = Trial("int8", "int8", "schemes", {}, 0.1)
    variant = judge_candidate(trial, candidate, reference, test, spec, GateOptions())
    assert variant.thresholds == (0.25, 0.25)
    assert variant.balanced_percent == (100.0, 100.0)
    assert variant.balanced_before_percent == (50.0, 50.0)


def test_a_test_split_that_is_too_small_is_named() -> None:
    rounded = SURE + np.float32(1e-6)  # equal bits would be proof enough
    with pytest.raises(GateError, match=r"too small .* of 60\).* gate\.margin_points"):
        require_fp32(judged(rounded, GateOptions(margin_points=0.1)))
    require_fp32(judged(rounded, GateOptions(margin_points=20)))


def test_an_export_that_answers_otherwise_is_named() -> None:
    other = SURE.copy()
    other[:3] = other[:3, ::-1]
    with pytest.raises(GateError, match=r"fp32 export .*PyTorch.*0\.8"):
        require_fp32(judged(other, GateOptions(margin_points=20)))


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (Estimate(3.0, 0.1, 5.9), None),
        (Estimate(7.41, -18.52, 33.33), r"\+7.41 points .* on 27 .*interval -18.52 to \+33.33"),
        (
            Estimate(-4.0, -5.0, -3.0),
            r"-4.00 points .* on 27 test images \(95 % interval -5.00",
        ),
        (Estimate(0.0), r"\+0.00 points .* on 27 test images"),
    ],
)
def test_a_network_that_may_have_learned_nothing_is_named(
    gain: Estimate, words: str | None
) -> None:
    own = Metrics(Estimate(40.0), None, None)
    form = FormScore("PyTorch", own, gain, None, ())
    found = doubt(27, form)
    assert found is None if words is None else re.search(words, found or "")
