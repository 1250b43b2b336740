"""The protocol of every task, and the values that its judge takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.parity_values import Assessment
from exporters.evaluate.signal_to_noise import Fidelity, fidelity
from exporters.options import GateOptions

Outputs = Sequence[NDArray[Any]]  # of one form, each with a row for each input


@dataclass(frozen=True)
class Bounds:
    """The loss against FP32 that a form may have."""

    gate: GateOptions  # of answers
    min_sqnr_db: float  # of values: 20 dB are noise of a hundredth of the power


@dataclass(frozen=True)
class Guess:
    """A task that outputs look like; nothing in a file says it."""

    task: str
    reason: str
    min_sqnr_db: float = 0.0  # signal-to-noise that outputs must reach, too, since it is a guess


@dataclass(frozen=True)
class OutputPair:
    """The named outputs of FP32 and of another form for the same inputs."""

    names: tuple[str, ...]
    reference: Outputs = field(repr=False)
    candidate: Outputs = field(repr=False)
    truth: NDArray[np.integer] | None = field(default=None, repr=False)  # None: FP32's own answers
    guessed_db: float | None = None  # of a guessed task: signal-to-noise asked for; None: stated

    @cached_property
    def worst(self) -> Fidelity:
        """The part of the outputs that is farthest from FP32's. An output of another shape (fewer
        boxes, for example) cannot be compared and counts as noise alone."""
        parts = map(fidelity, self.names, self.reference, self.candidate)
        return min(parts, key=lambda part: part.sqnr_db)


class Task(Protocol):
    """One row of the table."""

    name: ClassVar[str]  # as in specs and recipes

    def figure(self, labelled: bool) -> str:
        """The heading of a column with ``Assessment.accuracy_percent``."""

    def criterion(self, bounds: Bounds, labelled: bool, guessed: bool) -> str:
        """The criterion that forms are judged by, with its bound, as text."""

    def assess(self, pair: OutputPair, bounds: Bounds, variant: str) -> Assessment:
        """Judge outputs against FP32's."""

    def quick_loss(self, pair: OutputPair) -> float:
        """A number that orders forms, the better ones first."""

    def loss_bound(self, pair: OutputPair, alpha: float) -> float | None:
        """Points of accuracy that a form loses at most, with confidence 1 - alpha; None where
        nothing is counted."""

    def fits(self, shape: tuple[int, ...], inputs: int) -> bool:
        """True when the first output of so many inputs can be this task's."""

    def guess(self, values: Outputs, inputs: int, classes: int | None) -> Guess | None:
        """Return why outputs of so many inputs look like this task's; None where they do not."""

    def could_return(self, values: Outputs) -> bool:
        """True when outputs that are answers may be this task's."""


def not_comparable(name: str, was: NDArray[Any], now: NDArray[Any]) -> str:
    """Name other sizes, or the first value that is finite on one side only; "" without any."""
    if was.shape != now.shape:
        return f"output {name!r} is {list(now.shape)}, FP32's {list(was.shape)}: not comparable"
    same = (was == now) | (np.isnan(was) & np.isnan(now))
    odd = np.argwhere(~same & ~(np.isfinite(was) & np.isfinite(now)))
    if not len(odd):
        return ""
    index = tuple(odd[0])
    return f"output {name!r} at {[int(i) for i in index]} is {now[index]:g}, FP32 {was[index]:g}"


def required_db(part: Fidelity, minimum: float) -> float:
    """The decibels that a part must have by itself to reach ``minimum`` as it is judged."""
    return minimum - (part.sqnr_db - part.own_db)


def too_noisy(part: Fidelity, minimum: float) -> str:
    """The text for a part that does not reach ``minimum``."""
    return (
        f"{part.part} has a signal-to-noise ratio of {part.own_db:.1f} dB against "
        f"FP32; the minimum is {required_db(part, minimum):g} dB"
    )
