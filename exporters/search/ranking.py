"""The order of trials: which is the best, which go on to the test split, and with which options
finer steps begin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from exporters.options import Int8Options
from exporters.search.trial import SAME_SPEED, Trial


def best(trials: Sequence[Trial]) -> Trial | None:
    """Return the best trial: portable ones come before others, and those that cannot saturate
    before those that may; then the fastest, and of equally fast ones the one that lost least."""
    peers = [t for t in trials if t.portable] or [t for t in trials if not t.can_saturate]
    peers = peers or list(trials)
    fastest = max((t.speedup for t in peers), default=0.0)
    equal = [t for t in peers if t.speedup * SAME_SPEED >= fastest]
    return min(equal, key=noise, default=None)


def noise(trial: Trial) -> float:
    """Return the noise of the outputs in dB: finer than the answers that changed, and hardly a
    matter of chance."""
    return -trial.assessment.sqnr_db if trial.assessment else math.inf


def passed_int8(trials: Sequence[Trial]) -> list[Trial]:
    """Return the INT8 trials that passed the gate."""
    return [trial for trial in trials if trial.precision == "int8" and trial.passed]


def chosen(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return the ids that are judged on the test split: FP32, FP16 and listed ones; the best INT8
    variant, portable if one is; and the fastest one when no other equals it, which may be safe on
    some CPUs only, or mixed."""
    ids = [t.id for t in trials if t.precision != "int8" or t.step == "as listed"]
    passed = passed_int8(trials)
    if winner := best(passed):
        ids.append(winner.id)
        fastest = max(passed, key=lambda trial: (trial.speedup, -noise(trial)))
        if fastest.speedup > SAME_SPEED * max(winner.speedup, 1.0):
            ids.append(fastest.id)
    return tuple(dict.fromkeys(ids))


def int8_options(trial: Trial) -> Int8Options:
    """Return the options that a static INT8 trial was made with."""
    options = dict(trial.options)
    options["exclude_nodes"] = tuple(options["exclude_nodes"])
    return Int8Options(**options)


def with_float(options: Int8Options, layers: Sequence[str], name: str) -> Int8Options:
    """Return the same options with these layers in float as well."""
    kept = tuple(sorted({*options.exclude_nodes, *layers}))
    return replace(options, id=name, exclude_nodes=kept)
