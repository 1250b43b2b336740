"""The result of a sweep, as values; ``sweep.json`` has the same names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

LONG = 16  # letters: a longer value does not fit next to a point or into a column
Status = Literal["finished", "failed", "not run"]


@dataclass(frozen=True)
class Form:
    """One file of a trial: FP32, or a candidate that passed on validation images."""

    trial: str
    id: str  # of the candidate
    precision: str  # "fp32", "fp16", "int8"
    portable: bool
    accuracy_percent: float  # on validation images, as SweepResult.metric says; what is chosen by
    size_bytes: int
    # One image at one thread, all files of the sweep side by side. CPU time: on a quiet machine it
    # is the latency, and a busy one hardly disturbs it. None: not timed yet.
    latency_ms: float | None = None
    wall_p50_ms: float | None = None
    test_accuracy_percent: float | None = None  # where stages ran that read the test split
    on_front: bool = False

    @property
    def name(self) -> str:
        """Distinct within a sweep."""
        return f"{self.trial} {self.id}"


@dataclass(frozen=True)
class TrialResult:
    """The outcome of one point of the grid."""

    name: str
    settings: dict[str, str]
    status: Status
    error: str | None = None
    log: str | None = None  # of the command that failed
    accuracy_percent: float | None = None  # PyTorch, on validation images
    parameters: int | None = None
    cpu_seconds: float | None = None  # of training, by whichever trial it was done
    shared: tuple[str, ...] = ()  # stages taken over from another folder in this call
    forms: tuple[Form, ...] = ()
    command: str = ""  # brings this trial to a bundle
    incomplete: bool = False  # its training was ended by train.max_minutes


@dataclass(frozen=True)
class SweepResult:
    """The outcome of a whole sweep."""

    recipe: str
    description: str
    grid: dict[str, tuple[str, ...]]
    changes: tuple[str, ...]  # for all trials alike
    until: str
    hardware: str
    finished: str  # ISO 8601, UTC
    trials: tuple[TrialResult, ...]
    task: str = ""  # as in ModelSpec
    validation_images: int = 0  # that accuracies were measured on
    metric: str = "accuracy"  # of files: the one that thresholds are chosen for
    synthetic: bool = False

    @property
    def forms(self) -> tuple[Form, ...]:
        """Files of all trials."""
        return tuple(form for trial in self.trials for form in trial.forms)

    @property
    def tested(self) -> bool:
        """True when a file was judged on the test split."""
        return any(form.test_accuracy_percent is not None for form in self.forms)

    @property
    def front(self) -> tuple[Form, ...]:
        """The candidates on the front, fastest first."""
        rows = [form for form in self.forms if form.on_front]
        return tuple(sorted(rows, key=lambda form: form.latency_ms or math.inf))

    @property
    def failed(self) -> tuple[TrialResult, ...]:
        """The trials that did not reach their end."""
        return tuple(trial for trial in self.trials if trial.status != "finished")

    @property
    def labels(self) -> dict[str, str]:
        """The settings that distinguish each trial, in few letters, by its name: "width 16"."""
        labels = {}
        for trial in self.trials:
            varied = [word for word in self.grid if len(self.grid[word]) > 1] or list(self.grid)
            parts = (f"{word.rpartition('.')[2]} {self.setting(word, trial)}" for word in varied)
            labels[trial.name] = ", ".join(parts)
        return labels

    def setting(self, word: str, trial: TrialResult) -> str:
        """The trial's value of an axis, or the number of a long one, such as a list of layers."""
        value = trial.settings[word]
        if len(value) <= LONG:
            return value
        return f"#{self.grid[word].index(value) + 1}"

    def with_forms(self, forms: Mapping[str, Form]) -> SweepResult:
        """A copy with other files, by name."""
        trials = tuple(
            replace(trial, forms=tuple(forms.get(form.name, form) for form in trial.forms))
            for trial in self.trials
        )
        return replace(self, trials=trials)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def mark_front(result: SweepResult) -> SweepResult:
    """Mark each timed file that no other one beats: none is at least as accurate, as fast and as
    small, and better in one of these by more than chance."""
    from exporters.search.trial import Merit, undominated

    timed = [(form, form.latency_ms) for form in result.forms if form.latency_ms]
    best = max((form.accuracy_percent for form, _ in timed), default=0.0)
    merits = [
        Merit(best - form.accuracy_percent, 1 / latency, form.size_bytes) for form, latency in timed
    ]
    front = {timed[index][0].name for index in undominated(merits)}
    return result.with_forms(
        {form.name: replace(form, on_front=form.name in front) for form in result.forms}
    )
