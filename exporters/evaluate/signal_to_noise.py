"""The distance of one form of a model from its reference, in decibels. The signal is how an output
differs from input to input: a constant part is the same for every input and carries nothing.

Takes arrays whose first axis is the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EQUAL, LOST = 200.0, -200.0  # decibels: no noise at all, and nothing of the signal left
# One channel among several may be so much noisier than all of them together (decibels): the weak
# dimension of an embedding matters less than the whole vector, but not even one may be lost.
SINGLE = 10.0
_CONSTANT = 1e-12  # share of the power: a spread below a millionth of a value is float32's own
_UNITS = 10.0  # channels whose largest values are so many times apart have different units
_NEGLIGIBLE = 0.05  # of the widest range of its unit: a class that no input shows, an idle output
_MOST_CHANNELS = 4096  # an axis with more places than this does not hold channels


@dataclass(frozen=True)
class Fidelity:
    """The part of an output that is farthest from its reference."""

    sqnr_db: float  # what is judged; see :func:`fidelity`
    output: str
    channels: tuple[int, ...]  # of ``channel_count``; all of them: the whole output
    channel_count: int
    alone: bool  # one channel was judged alone: its own decibels are SINGLE fewer

    @property
    def part(self) -> str:
        """The text for messages: "output 'y'", "output 'y', channels 4 to 83 of 84"."""
        name = f"output {self.output!r}"
        if len(self.channels) == self.channel_count:
            return name
        if self.alone or len(self.channels) == 1:
            return f"{name}, channel {self.channels[0]} of {self.channel_count} alone"
        first, last = self.channels[0], self.channels[-1]
        if len(self.channels) == last - first + 1:
            return f"{name}, channels {first} to {last} of {self.channel_count}"
        shown = ", ".join(map(str, self.channels[:8]))
        more = ", ..." if len(self.channels) > 8 else ""
        return f"{name}, channels {shown}{more} of {self.channel_count}"

    @property
    def own_db(self) -> float:
        """The signal-to-noise ratio of that part itself."""
        return self.sqnr_db - SINGLE if self.alone else self.sqnr_db


def decibels(power: float, noise: float) -> float:
    """10 log10(power / noise); infinite without noise."""
    return float(10 * np.log10(power / noise)) if noise > 0 else float("inf")


def sqnr_db(signal: NDArray[np.floating], noisy: NDArray[np.floating]) -> float:
    """10 log10(signal power / noise power) of values [N, ...], from -200 to 200.

    The signal is what differs over the N inputs, place by place; where nothing does, the values
    themselves. Values that are no numbers (-inf, nan) count as equal where both sides have the
    same, and as lost where one has them.
    """
    return _bounded(*_powers(*_finite(signal, noisy)))


def weight_sqnr_db(signal: NDArray[np.floating], noisy: NDArray[np.floating]) -> float:
    """The ratio of constants, whose first axis does not count inputs: all their power is signal."""
    clean, other, same = _finite(signal, noisy)
    return _bounded(float(np.square(clean).sum()), _noise(clean, other, same))


def fidelity(output: str, signal: NDArray[Any], noisy: NDArray[Any]) -> Fidelity:
    """The worst part of an output [N, ...] against its reference.

    Channels of one unit are judged together, and each alone with an allowance of ``SINGLE``
    decibels; those of different units (boxes in pixels next to scores) by their own power, since
    the larger one would hide the other. Channels that hardly move have no signal of their own and
    are judged with the rest.
    """
    if signal.shape != noisy.shape:  # fewer boxes, for one
        return Fidelity(LOST, output, (0,), 1, False)
    rows, others = _by_channel(signal), _by_channel(noisy)
    count = len(rows)
    if count == 0:
        return Fidelity(EQUAL, output, (), 0, False)
    powers = [_powers(*_finite(a, b)) for a, b in zip(rows, others, strict=True)]
    worst: list[Fidelity] = []
    for unit in _units(rows):
        power, noise = (sum(powers[i][k] for i in unit) for k in (0, 1))
        worst.append(Fidelity(_bounded(power, noise), output, tuple(unit), count, False))
        if len(unit) > 1:
            reach = {i: _range(rows[i]) for i in unit}
            least = _NEGLIGIBLE * max(reach.values())
            worst += [
                Fidelity(min(_bounded(*powers[i]) + SINGLE, EQUAL), output, (i,), count, True)
                for i in unit
                if reach[i] >= least
            ]
    return min(worst, key=lambda part: part.sqnr_db)


def channel_axis(shape: Sequence[int]) -> int | None:
    """The axis of an output [N, ...] that holds its channels; None where none does.

    [N, K] has one. In [N, 84, 8400] and [N, 8400, 6] it is the small one, among four sizes the one
    next to two equal ones (a picture's sides), else the smaller end, and among more the last one.
    """
    if len(shape) < 2:
        return None
    if len(shape) == 3:
        axis = 1 if shape[1] <= shape[2] else 2
    elif len(shape) == 4:
        if shape[2] == shape[3] or shape[1] == shape[2]:
            axis = 1 if shape[2] == shape[3] else 3
        else:
            axis = 1 if shape[1] <= shape[3] else 3
    else:
        axis = len(shape) - 1
    return axis if shape[axis] <= _MOST_CHANNELS else None


def _by_channel(values: NDArray[Any]) -> NDArray[Any]:
    """[channels, N, places]."""
    if not values.size:
        return np.zeros((0, 0, 0))
    axis = channel_axis(values.shape)
    if axis is None:
        return values.reshape(1, len(values) if values.ndim else 1, -1)
    moved = np.moveaxis(values, axis, 0)
    return moved.reshape(len(moved), len(values), -1)


def _units(rows: NDArray[Any]) -> list[list[int]]:
    """Channels [channels, N, places] grouped by the size of their values. All that stay within
    [0, 1] are of one unit, however small: the scores of classes that no input shows."""
    shares, groups = list[int](), list[tuple[float, list[int]]]()
    highest = 0.0  # of the shares
    for number, row in enumerate(rows):
        finite = row[np.isfinite(row)]
        largest = float(np.abs(finite).max(initial=0.0))
        if largest <= 1 and float(finite.min(initial=0.0)) >= 0:
            shares.append(number)
            highest = max(highest, largest)
        else:
            groups.append((largest, [number]))
    if shares:
        groups.append((highest, shares))
    units: list[list[int]] = []
    before = 0.0
    for largest, members in sorted(groups):
        if units and largest <= _UNITS * before:
            units[-1] += members
        else:
            units.append(list(members))
        before = largest
    return [sorted(unit) for unit in units]


def _range(row: NDArray[Any]) -> float:
    """The widest range that a place of a channel has over the inputs."""
    finite = np.where(np.isfinite(row), row, 0).astype(np.float64)
    return float(np.ptp(finite, axis=0).max(initial=0.0))


def _finite(
    signal: NDArray[Any], noisy: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Both with 0 where one is not finite; False when such places are not the same in both."""
    clean, other = np.asarray(signal, np.float64), np.asarray(noisy, np.float64)
    odd = ~(np.isfinite(clean) & np.isfinite(other))
    if not odd.any():
        return clean, other, True
    same = bool(((clean == other) | (np.isnan(clean) & np.isnan(other)))[odd].all())
    return np.where(odd, 0, clean), np.where(odd, 0, other), same


def _powers(
    clean: NDArray[np.float64], other: NDArray[np.float64], same: bool
) -> tuple[float, float]:
    """(power of the part that differs over the inputs, power of the noise)."""
    raw = float(np.square(clean).sum())
    power = float(np.square(clean - clean.mean(axis=0)).sum()) if clean.ndim and len(clean) else raw
    return (power if power > _CONSTANT * raw else raw), _noise(clean, other, same)


def _noise(clean: NDArray[np.float64], other: NDArray[np.float64], same: bool) -> float:
    return float(np.square(clean - other).sum()) if same else np.inf


def _bounded(power: float, noise: float) -> float:
    if not np.isfinite(noise):
        return LOST
    return float(np.clip(decibels(max(power, 1e-300), noise), LOST, EQUAL))
