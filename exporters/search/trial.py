"""A candidate that a search tried: its options, quality, speed and size. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exporters.evaluate.parity_values import Assessment
from exporters.options import Strict
from exporters.quantize.saturation_values import Confirmation, LayerSaturation

# Speeds within this factor are equal: two runs of the same file differ by as much.
SAME_SPEED = 1.02
SAME_POINTS = 0.05  # of accuracy: less is chance on a validation split of some thousand images
SAME_SIZE = 1.05  # sizes within this factor are equal


@dataclass(frozen=True)
class Speed(Strict):
    """The speed of a model at batch 1, measured in the same rounds as FP32."""

    p50_ms: float
    speedup: float  # times as fast as FP32, by wall time, or by CPU time of one thread; decides
    cpu_speedup: float  # in CPU time


@dataclass(frozen=True)
class Trial(Strict):
    """One candidate of a search, finished."""

    id: str
    precision: str  # "fp32", "fp16", "int8"
    step: str  # name of the step of the search that made it
    options: dict[str, Any]  # as requested; JSON values
    seconds: float  # wall time
    portable: bool = False
    portability: str = ""  # the reason
    can_saturate: bool = False  # its weights allow 16-bit sums to saturate, on CPUs with such sums
    saturation: tuple[LayerSaturation, ...] = ()  # simulated; of files that are not portable
    confirmation: Confirmation | None = None  # INT8: measured by running it on this CPU
    size_bytes: int = 0
    assessment: Assessment | None = None
    speed: Speed | None = None
    timed_as: str | None = None  # the trial that was timed instead: the same nodes, other constants
    error: str | None = None  # the reason why it could not be made; then everything above is empty
    impossible: tuple[str, ...] = ()  # "node: reason" of nodes that had to stay float

    @property
    def passed(self) -> bool:
        """True when it could be made and passed the gate."""
        return self.assessment is not None and self.assessment.passed

    @property
    def speedup(self) -> float:
        """Times as fast as FP32; 0 when it was not timed."""
        return self.speed.speedup if self.speed else 0.0

    @property
    def saturating(self) -> tuple[LayerSaturation, ...]:
        """The layers where sums stopped, the one that did so most often first."""
        layers = (layer for layer in self.saturation if layer.saturated > 0)
        return tuple(sorted(layers, key=lambda layer: -layer.saturated))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Trial:
        """Read what ``dataclasses.asdict`` wrote; raises TypeError or KeyError."""
        values = dict(data)
        values["impossible"] = tuple(values.get("impossible", ()))
        values["saturation"] = tuple(LayerSaturation(**row) for row in data["saturation"])
        if data["assessment"] is not None:
            failures = tuple(data["assessment"]["failures"])
            values["assessment"] = Assessment(**{**data["assessment"], "failures": failures})
        if data["confirmation"] is not None:
            values["confirmation"] = Confirmation(**data["confirmation"])
        if data["speed"] is not None:
            values["speed"] = Speed(**data["speed"])
        return cls(**values)


@dataclass(frozen=True)
class Merit:
    """What people choose a model by."""

    lost_points: float  # of accuracy, against whatever all are held against
    speedup: float  # likewise
    size_bytes: int


def undominated(merits: Sequence[Merit]) -> tuple[int, ...]:
    """Places of those that nothing beats, fastest first: no other one is at least as accurate, as
    fast and as small, and better in one of these."""
    front = [i for i, m in enumerate(merits) if not any(_dominates(o, m) for o in merits)]
    return tuple(sorted(front, key=lambda i: -merits[i].speedup))


def pareto_front(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Ids of the trials that passed and that no other one that passed beats, fastest first."""
    timed = [trial for trial in trials if trial.passed and trial.speed is not None]
    return tuple(timed[i].id for i in undominated([_merit(trial) for trial in timed]))


def _merit(trial: Trial) -> Merit:
    lost = trial.assessment.lost_points if trial.assessment else 0.0
    return Merit(lost, trial.speedup, trial.size_bytes)


def _dominates(a: Merit, b: Merit) -> bool:
    """At least as good in everything and better in something, by more than the constants above."""
    if (
        a.lost_points > b.lost_points + SAME_POINTS
        or b.speedup > SAME_SPEED * a.speedup
        or a.size_bytes > SAME_SIZE * b.size_bytes
    ):
        return False
    return (
        a.lost_points < b.lost_points - SAME_POINTS
        or a.speedup > SAME_SPEED * b.speedup
        or b.size_bytes > SAME_SIZE * a.size_bytes
    )
