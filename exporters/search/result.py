"""The result of a search. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from exporters.options import Strict
from exporters.search.explanation import Explanation
from exporters.search.trial import Trial


@dataclass(frozen=True)
class SearchResult(Strict):
    """The result of a search; the models are stored in its log."""

    trials: tuple[Trial, ...]  # in the order in which they were tried
    front: tuple[str, ...]  # ids of the Pareto front, fastest first
    chosen: tuple[str, ...]  # ids that are judged on the test split
    explanation: Explanation | None = None  # of the best INT8 variant; None when there is none
    seconds: float = 0.0
    incomplete: bool = False  # True: the time was over, or the user stopped it
    untried: tuple[str, ...] = ()  # steps that were left out for that reason

    @property
    def by_id(self) -> dict[str, Trial]:
        """The trials by their ids."""
        return {trial.id: trial for trial in self.trials}

    @property
    def chosen_trials(self) -> tuple[Trial, ...]:
        """The trials that are judged on the test split."""
        return tuple(self.by_id[name] for name in self.chosen)

    @property
    def fp32(self) -> Trial | None:
        """The first FP32 trial, which all others are compared with."""
        return next((trial for trial in self.trials if trial.precision == "fp32"), None)

    @property
    def best_int8(self) -> Trial | None:
        """The chosen INT8 trial that others are compared with: a portable one if there is one,
        then the fastest, then the least noisy; None when none was chosen."""
        rows = [row for row in self.trials if row.id in self.chosen and row.precision == "int8"]
        return max((row for row in rows if row.passed), key=_rank, default=None)


def _rank(trial: Trial) -> tuple[bool, float, float]:
    sqnr_db = trial.assessment.sqnr_db if trial.assessment else 0.0
    return trial.portable, round(trial.speedup, 2), sqnr_db
