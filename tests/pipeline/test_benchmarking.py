"""benchmarking.py: the bounds of a recipe, and what may be a default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporters.evaluate.parity_values import Pairs, Parity, Verdict
from exporters.options import GateOptions
from exporters.search.trial import Trial
from pipeline.benchmarking import Contestants, measured, require_one_ships, timed_variants
from pipeline.errors import GateError
from pipeline.recipe import BenchmarkOptions
from pipeline.reports import Difference, JudgedVariant
from pipeline.timing.values import Latency, Process, Round, Timing
from runtime.spec import ModelSpec

SPEC = ModelSpec("m", "multi-class", 2, 2, 1, ("a", "b"))


def judged(name: str) -> JudgedVariant:
    parity = Parity("multi-class", 4, 0.0, 0.0, 0.0, 1.0, Pairs(4, 0, 0, 0), (), ((0, 4),), ())
    trial = Trial(name, name.partition("-")[0], "schemes", {}, 0.1, portable=name != "fp32")
    return JudgedVariant(trial, parity, Verdict(True, ()), Difference(0.0, 0.0, 0.0))


def timing(ms: float) -> Timing:
    return Timing(Latency(ms, None, None, ms, 40, 1), ms, 1000 / ms, 32, (Round(ms, ms),) * 9)


TIMINGS = {"fp32": timing(2.0), "int8": timing(1.0)}
PROCESSES = {name: Process(200.0, 60.0, 70.0, 3) for name in TIMINGS}


@pytest.fixture
def contestants(tmp_path: Path) -> Contestants:
    variants = tuple(map(judged, TIMINGS))
    models = {name: tmp_path / f"{name}.onnx" for name in TIMINGS}
    for size, file in zip((4000, 1000), models.values(), strict=True):
        file.write_bytes(b"0" * size)
    images = np.zeros((1, 2, 2, 1), np.uint8)
    return Contestants(SPEC, images, tmp_path / "none.pt", variants, models, BenchmarkOptions())


def test_a_variant_keeps_every_bound_or_does_not_ship(contestants: Contestants) -> None:
    gate = GateOptions(max_size_bytes=2000, max_latency_ms=1.5, max_memory_mb=60.0)
    fp32, int8 = timed_variants(contestants, TIMINGS, PROCESSES, gate)
    assert [check.name for check in fp32.bounds if not check.passed] == ["size", "latency"]
    assert not fp32.ships and int8.ships
    assert (int8.speedup.value, int8.speed.threads, int8.speed.rss_mb) == (2.0, 1, 60.0)
    (note,) = require_one_ships((fp32, int8))
    assert note.startswith("fp32 ") and "2,000" in note and "1.5" in note
    (row,) = measured([int8], TIMINGS)
    assert (row.id, row.precision, row.portable, row.speedup) == ("int8", "int8", True, 2.0)


def test_where_nothing_ships_the_bounds_are_named(contestants: Contestants) -> None:
    variants = timed_variants(contestants, TIMINGS, PROCESSES, GateOptions(max_latency_ms=0.5))
    with pytest.raises(GateError, match=r"fp32: latency 2 .*int8: latency 1 .*\[gate\]"):
        require_one_ships(variants)


def test_memory_that_could_not_be_measured_is_not_within_a_bound(contestants: Contestants) -> None:
    unknown = {name: replace(process, rss_mb=None) for name, process in PROCESSES.items()}
    variants = timed_variants(contestants, TIMINGS, unknown, GateOptions(max_memory_mb=1e6))
    assert not any(variant.ships for variant in variants)
    assert all(
        variant.ships for variant in timed_variants(contestants, TIMINGS, unknown, GateOptions())
    )
