"""values: any named float outputs, without labels. Judged by the centered signal-to-noise ratio of
each output against FP32; nothing is right or wrong."""

from __future__ import annotations

import numpy as np

from exporters.evaluate.parity_values import Assessment, Check, Verdict
from exporters.evaluate.probabilities import are_probabilities, has_unit_rows, matrix_of
from exporters.evaluate.tasks.protocol import (
    Bounds,
    Guess,
    OutputPair,
    Outputs,
    Task,
    not_comparable,
    too_noisy,
)
from exporters.options import MIN_SQNR_DB


class ValuesTask(Task):
    """Outputs that are not labels: pictures, boxes, embeddings, regressions."""

    name = "values"

    def figure(self, labelled: bool) -> str:
        return "signal %"

    def criterion(self, bounds: Bounds, labelled: bool, guessed: bool) -> str:
        return f"signal-to-noise against FP32, at least {bounds.min_sqnr_db:g} dB"

    def judge(self, pair: OutputPair, min_sqnr_db: float = MIN_SQNR_DB) -> Verdict:
        """Compare the worst part of the outputs with the minimum."""
        worst = pair.worst
        passed = worst.sqnr_db >= min_sqnr_db
        if passed:
            texts = [f"{worst.part} has a signal-to-noise ratio of {worst.own_db:.1f} dB"]
        else:
            reasons = map(not_comparable, pair.names, pair.reference, pair.candidate)
            texts = [too_noisy(worst, min_sqnr_db), *filter(None, reasons)]
        checks = [Check("signal", passed, worst.sqnr_db, min_sqnr_db, text) for text in texts]
        return Verdict(passed, tuple(checks))

    def assess(self, pair: OutputPair, bounds: Bounds, variant: str) -> Assessment:
        """The verdict, with the share of the outputs' power that is not noise as accuracy."""
        verdict, worst = self.judge(pair, bounds.min_sqnr_db), pair.worst
        noise = min(self.quick_loss(pair), 1.0)
        return Assessment(
            passed=verdict.passed,
            failures=verdict.failures,
            accuracy_percent=100 * (1 - noise),
            lost_points=100 * noise,
            loss=noise,
            sqnr_db=worst.sqnr_db,
            worst_part=worst.part,
        )

    def quick_loss(self, pair: OutputPair) -> float:
        return float(10 ** (-pair.worst.sqnr_db / 10))

    def loss_bound(self, pair: OutputPair, alpha: float) -> float | None:
        return None

    def fits(self, shape: tuple[int, ...], inputs: int) -> bool:
        return True

    def guess(self, values: Outputs, inputs: int, classes: int | None) -> Guess:
        return Guess(self.name, _reason(values, inputs, classes))

    def could_return(self, values: Outputs) -> bool:
        return True


def _reason(values: Outputs, inputs: int, classes: int | None) -> str:
    """The first thing that labels would not have."""
    if len(values) != 1:
        return f"there are {len(values)} outputs"
    matrix = matrix_of(values[0])
    if matrix is None:
        return f"the output is {list(values[0].shape)}, and classes are [n, k]"
    rows, columns = matrix.shape
    if rows != inputs:
        return f"{inputs} inputs get {rows} rows"
    if np.isnan(matrix).any():
        return "some are not numbers"
    if are_probabilities(matrix):
        return "they are in [0, 1] but are not like a yes or no"
    if columns == 1:
        return "it is one number that exceeds [0, 1]"
    if has_unit_rows(matrix):
        return "each row has length 1, as embeddings have"
    if classes is not None:
        return f"the data has {classes} classes, and each row {columns} numbers"
    return "the same number is the largest for every input"


VALUES = ValuesTask()
