"""What the validate stage says of the plain export."""

from __future__ import annotations

import re

import numpy as np
import pytest

from exporters.evaluate.gates import judge, tolerances_for
from exporters.evaluate.parity import compare
from exporters.evaluate.score_values import Estimate, FormScore, Metrics, doubt
from exporters.evaluate.tasks import label_task
from exporters.options import GateOptions
from pipeline.errors import GateError
from pipeline.stages.validate import _require_fp32
from runtime.spec import ModelSpec

SPEC = ModelSpec("m", "multi-class", 1, 1, 1, ("a", "b"))
TASK = label_task(SPEC.task)
TRUTH = np.zeros(60, np.int64)
SURE = np.tile(np.array([[0.9, 0.1]], np.float32), (60, 1))


def test_a_test_split_that_is_too_small_is_named() -> None:
    rounded = SURE + np.float32(1e-6)  # equal bits would be proof enough
    parity = compare(TASK, SURE, rounded, TRUTH, SPEC.labels)
    options = GateOptions(margin_points=0.1)
    with pytest.raises(
        GateError, match=r"test split is too small for the gate: .* set gate.margin_points"
    ):
        _require_fp32(parity, judge(TASK, parity, options, tolerances_for("fp32")))
    _require_fp32(
        parity, judge(TASK, parity, GateOptions(margin_points=20), tolerances_for("fp32"))
    )


def test_an_export_that_answers_otherwise_is_named() -> None:
    other = SURE.copy()
    other[:3] = other[:3, ::-1]
    parity = compare(TASK, SURE, other, TRUTH, SPEC.labels)
    verdict = judge(TASK, parity, GateOptions(margin_points=20), tolerances_for("fp32"))
    with pytest.raises(GateError, match=r"does not answer as the PyTorch network does: .*0\.8"):
        _require_fp32(parity, verdict)


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
