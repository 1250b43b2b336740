"""What the long benchmark of training concludes from its runs; the runs themselves are made by
``make bench-train``."""

from __future__ import annotations

from typing import Any

import pytest
from bench_train import SHORT, sentence, verdict


def _row(recipe: str, percent: float, seconds: float) -> dict[str, Any]:
    return {"recipe": recipe, "accuracy_percent": percent, "cpu_seconds": seconds}


@pytest.mark.parametrize(
    ("short", "textbook", "passed"),
    [
        ([(99.14, 20.0)], [400.0], True),
        ([(100 * 0.9914, 20.0)], [400.0], True),  # whatever its last bit
        ([(99.13, 20.0)], [400.0], False),
        ([(99.5, 20.1)], [400.0], False),
        # the worst of the one against the best of the other
        ([(99.5, 10.0), (99.0, 10.0)], [400.0], False),
        ([(99.5, 10.0), (99.5, 25.0)], [600.0, 400.0], False),
    ],
)
def test_a_twentieth(short: list[tuple[float, float]], textbook: list[float], passed: bool) -> None:
    rows = [_row(SHORT, *values) for values in short]
    rows += [_row("mnist-textbook", 99.2, seconds) for seconds in textbook]
    rows.append(_row("mnist", 99.6, 90.0))  # takes no part
    outcome = verdict(rows)
    assert outcome is not None and outcome.passed is passed
    assert ("NOT kept" in sentence(outcome)) is not passed


def test_one_side_alone_is_no_verdict() -> None:
    assert verdict([_row(SHORT, 99.5, 10.0), _row("mnist", 99.5, 10.0)]) is None
    assert verdict([_row("mnist-textbook", 99.5, 10.0)]) is None
