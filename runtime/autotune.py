"""Find the fastest variant on this device: time those that pass their golden samples here, in
turns, and remember the winner. Nothing is timed unless it is requested."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from . import autotune_cache
from .answers import AnswerCheck
from .devices import DEVICES
from .errors import InputError, PredictorError, SelftestError
from .manifest import WORTH
from .opening import infer, open_variant, read_golden, usual_variant
from .reports import AutotuneReport, AutotuneRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .bundle import ModelParts
    from .tasks import Arrays

    _Call = Callable[[NDArray[np.uint8]], Arrays]  # pixels -> checked outputs

_TURN_SECONDS = 0.005  # of calls to one variant before the next one has its turn
_MIN_ROUNDS = 5
_BASE = "fp32"


def autotune(parts: ModelParts, device: str, threads: int, seconds: float) -> AutotuneReport:
    """Time every variant that passes its golden samples on ``device``, for ``seconds`` in all and
    at batch 1, and remember the winner; raises SelftestError when none passes."""
    if parts.id is None:
        raise InputError("autotune needs a bundle; this predictor was made from parts.")
    if type(seconds) not in (int, float) or not 0 < seconds < float("inf"):
        raise InputError(f"seconds={seconds!r}; expected a number above 0.")
    golden, check = read_golden(parts), AnswerCheck(parts.manifest.spec)
    calls: dict[str, _Call] = {}
    failed: dict[str, str] = {}
    for variant in parts.manifest.variants:
        try:
            session = open_variant(parts, DEVICES[device], variant, threads).session
            call = partial(infer, session, check=check)
            golden.replay(variant, call, variant.tolerance_on(device))
        except PredictorError as exc:  # noqa: PERF203 - a handful of variants
            failed[variant.id] = str(exc)
        else:
            calls[variant.id] = call
    if not calls:
        raise SelftestError(f"no variant works on {device}: {failed}.")
    usual = usual_variant(parts.manifest, device)
    base = next(name for name in (_BASE, usual, *calls) if name in calls)
    times_us = _times_us(calls, golden.pixels[:1], seconds)
    speedups = {name: _speedup(times_us[base], times) for name, times in times_us.items()}
    winner = max(speedups, key=speedups.__getitem__)
    if speedups[winner] < WORTH:
        winner = base
    reason = _reason(winner, base, speedups)
    path = autotune_cache.remember(parts.id, device, threads, winner, reason, speedups)
    return AutotuneReport(
        variant=winner,
        reason=reason,
        device=device,
        threads=threads,
        rows=tuple(
            AutotuneRow(name, statistics.median(times), speedups[name], len(times))
            for name, times in times_us.items()
        ),
        failed=failed,
        remembered_in=path,
    )


def _reason(winner: str, base: str, speedups: Mapping[str, float]) -> str:
    if winner != base:
        return f"autotuned here: {winner} {speedups[winner]:.2f}x as fast as {base}."
    others = ", ".join(f"{name} {value:.2f}x" for name, value in speedups.items() if name != base)
    return f"autotuned here: {base}; no gain from {others or 'any other variant'}."


def _times_us(
    variants: Mapping[str, _Call], image: NDArray[np.uint8], seconds: float
) -> dict[str, list[float]]:
    """Microseconds of one call, one figure for each variant and round. A round begins with another
    variant each time."""
    calls = {name: _calls_in_a_turn(call, image) for name, call in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[names[0]]) < _MIN_ROUNDS:
        for name in names:
            took = _turn(variants[name], image, calls[name])
            times[name].append(took / calls[name] * 1e6)
        names.append(names.pop(0))
    return times


def _calls_in_a_turn(call: _Call, image: NDArray[np.uint8]) -> int:
    _turn(call, image, 3)  # the first calls are slower
    return max(1, round(_TURN_SECONDS / max(_turn(call, image, 2) / 2, 1e-7)))


def _turn(call: _Call, image: NDArray[np.uint8], calls: int) -> float:
    """Seconds of ``calls`` calls."""
    began = time.perf_counter()
    for _ in range(calls):
        call(image)
    return time.perf_counter() - began


def _speedup(base: list[float], other: list[float]) -> float:
    """The median over the rounds of the ratio within a round, where the machine's speed cancels."""
    return statistics.median(a / b for a, b in zip(base, other, strict=True))
