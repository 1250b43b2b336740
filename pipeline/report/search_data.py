"""What the search of INT8 variants tried and found, as values of ``report.json``. The field names
are those of ``exporters.search.search.SearchResult`` and what it holds, whose modules load onnx and
onnxruntime, which ``pipeline show`` must not wait for. Knows nothing of drawing; judges nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

from pydantic import TypeAdapter

STRICT: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True)
class SaturationRow:
    """What the 16-bit sums of one operator did, simulated on real and extreme images."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    node: str
    saturated: float  # share of the outputs that were looked at
    worst_steps: float  # largest error of an output, in steps of its quantized tensor


@dataclass(frozen=True)
class AssessmentReport:
    """How good a trial is on validation data, against FP32."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    passed: bool
    failures: tuple[str, ...]  # in words
    accuracy_percent: float
    lost_points: float  # percentage points that FP32 has more
    loss: float  # mean cross entropy, nats
    sqnr_db: float  # of what the probabilities differ by from image to image; 200 when equal
    balanced_percent: float | None = None  # mean balanced accuracy, multi-label
    worst_part: str | None = None  # of several outputs or channels: whose sqnr_db it is


@dataclass(frozen=True)
class TrialSpeed:
    """How fast a trial is at batch 1, beside FP32 in the same rounds."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    p50_ms: float
    speedup: float  # times as fast as FP32; CPU time at one thread, wall time at several
    cpu_speedup: float  # the same in CPU time


@dataclass(frozen=True)
class ConfirmationRow:
    """The same images through three kinds of kernels; largest differences of probabilities."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    target: str
    visible: bool  # False: that CPU sums exactly, so nothing can be seen there
    exact_difference: float  # default kernels against exact ones
    unfused_difference: float  # default kernels against no graph optimisation


@dataclass(frozen=True)
class TrialReport:
    """One form of the model that was tried."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    id: str
    precision: str  # "fp32", "fp16", "int8"
    step: str  # which step of the search made it, in words
    options: dict[str, Any]
    seconds: float
    portable: bool = False
    portability: str = ""  # the reason
    can_saturate: bool = False  # by its weights, on CPUs with 16-bit sums
    saturation: tuple[SaturationRow, ...] = ()  # of files that are not portable
    confirmation: ConfirmationRow | None = None  # INT8: what running it on that CPU showed
    size_bytes: int = 0
    assessment: AssessmentReport | None = None
    speed: TrialSpeed | None = None
    timed_as: str | None = None  # the trial whose speed this is: the same nodes, other constants
    error: str | None = None  # why it could not be made; then there is no assessment
    impossible: tuple[str, ...] = ()  # "node: reason" of what had to stay float for it to be made

    @property
    def passed(self) -> bool:
        """True when it could be made and passed the gate on validation data."""
        return self.assessment is not None and self.assessment.passed

    @property
    def saturating(self) -> tuple[SaturationRow, ...]:
        """The layers where sums stopped, the one that did so most often first."""
        rows = (row for row in self.saturation if row.saturated > 0)
        return tuple(sorted(rows, key=lambda row: -row.saturated))


@dataclass(frozen=True)
class NoiseRow:
    """One operator with weights, from the inside."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    node: str
    operator: str
    sqnr_db: float  # of its output, everything before it quantized too
    weight_sqnr_db: float  # of its weights alone; 200 for float ones


@dataclass(frozen=True)
class DamageRow:
    """What comes back when one layer alone stays float."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    node: str
    loss_regained: float  # nats; negative: worse by chance
    sqnr_gained_db: float  # of the probabilities


@dataclass(frozen=True)
class ClippingRow:
    """How an activation tensor was fitted into 8 bits."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    tensor: str
    low: float  # the range that 8 bits reach
    high: float
    lowest: float  # the values that occurred
    highest: float
    clipped: float  # share of the values outside the range
    used_levels: float  # share of the 255 steps that holds 99.9 % of the values
    counts: tuple[int, ...]  # histogram from lowest to highest, in equal bins


@dataclass(frozen=True)
class ExplanationReport:
    """Where one INT8 variant departs from FP32."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    variant: str
    noise: tuple[NoiseRow, ...]  # in the order of the graph
    damage: tuple[DamageRow, ...]  # worst first; only the noisiest layers were tried
    clippings: tuple[ClippingRow, ...]  # the activation that uses its levels worst first


@dataclass(frozen=True)
class SearchReport:
    """What was tried, and what it led to. Everything was decided on validation data."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    trials: tuple[TrialReport, ...]  # in the order in which they were tried
    front: tuple[str, ...]  # ids that no other trial beats, fastest first
    chosen: tuple[str, ...]  # ids that went on to the test split
    explanation: ExplanationReport | None = None
    seconds: float = 0.0
    incomplete: bool = False  # True: the time was over, or the user stopped it
    untried: tuple[str, ...] = field(default=())  # steps that were left out for that

    @property
    def by_id(self) -> dict[str, TrialReport]:
        """The trials by their ids."""
        return {trial.id: trial for trial in self.trials}

    @property
    def fp32(self) -> TrialReport | None:
        """The first FP32 trial, which all others were compared with."""
        return next((trial for trial in self.trials if trial.precision == "fp32"), None)

    @property
    def best_int8(self) -> TrialReport | None:
        """The chosen INT8 trial that others are held against: a portable one, if there is one,
        then the fastest, then the least noisy; None when none was chosen."""
        rows = [row for row in self.trials if row.id in self.chosen and row.precision == "int8"]
        return max((row for row in rows if row.passed), key=_rank, default=None)

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> SearchReport:
        """Of ``dataclasses.asdict(SearchResult)``; raises pydantic's ValidationError when it has
        other fields than this."""
        return _adapter().validate_python(dict(result))


def _rank(trial: TrialReport) -> tuple[bool, float, float]:
    speed, assessment = trial.speed, trial.assessment
    return (
        trial.portable,
        round(speed.speedup, 2) if speed else 0.0,
        assessment.sqnr_db if assessment else 0.0,
    )


@cache
def _adapter() -> TypeAdapter[SearchReport]:
    return TypeAdapter(SearchReport)
