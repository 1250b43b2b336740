"""Timing on a clock of our own: arithmetic and order are checked, never this machine's speed."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.timing import measure
from pipeline.timing.fresh_process import measure_function_process, measure_process
from pipeline.timing.measure import (
    Clock,
    TimingOptions,
    decisive_speedup,
    latency_of,
    measure_all,
    speed_ratio,
    speedup,
    time_model,
)
from pipeline.timing.values import Latency, Process, Round, Speed, Timing
from runtime.spec import METADATA_KEY, ModelSpec

IMAGES = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(2, axis=1)  # [5, 2, 1, 1]
MS = 1_000_000  # nanoseconds


@dataclass
class FakeClock:
    """Moves only when a candidate works."""

    wall: int = 0
    cpu: int = 0
    log: list[tuple[str, int, int]] = field(default_factory=list)  # name, batch, first pixel

    def read(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.cpu)

    def candidate(self, name: str, ms: float, threads: int = 1):
        def run(images: np.ndarray) -> None:
            self.log.append((name, len(images), int(images.flat[0])))
            self.wall += round(ms * MS * len(images))
            self.cpu += round(ms * MS * len(images)) * threads

        return run


@pytest.mark.parametrize(
    ("n", "p50", "p90", "p99"),
    [
        (1, 1, None, None),
        (2, 1, None, None),
        (99, 50, None, None),
        (100, 50, 90, None),
        (999, 500, 900, None),
        (1000, 500, 900, 990),
        (2000, 1000, 1800, 1980),
    ],
)
def test_percentiles_are_claimed_only_with_enough_calls(n, p50, p90, p99) -> None:
    samples = [i * MS for i in range(n, 0, -1)]  # n, ..., 2, 1 ms
    found = latency_of(samples, batch=1)
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == (p50, p90, p99)
    assert found.mean_ms == (n + 1) / 2
    assert (found.n, found.batch) == (n, 1)


def test_one_callable_on_different_images_in_turn() -> None:
    clock = FakeClock()
    run = clock.candidate("a", ms=2)
    options = TimingOptions(seconds=0.02, slice_seconds=0.02, batch=1, warmup=3, min_n=1)
    timing = measure_all({"a": run}, IMAGES, options, clock=clock.read())["a"]
    assert timing.latency == Latency(p50_ms=2, p90_ms=None, p99_ms=None, mean_ms=2, n=10, batch=1)
    # three calls to warm up, one more at the turn
    assert [pixel for _, _, pixel in clock.log] == [0, 1, 2, 0] + [0, 1, 2, 3, 4] * 2


def test_a_slow_callable_gets_its_minimum() -> None:
    clock = FakeClock()
    run = clock.candidate("a", ms=500)
    options = TimingOptions(seconds=0.02, slice_seconds=0.02, batch=1, warmup=0, min_n=7)
    assert measure_all({"a": run}, IMAGES, options, clock=clock.read())["a"].latency.n == 7


def test_candidates_take_turns() -> None:
    clock, steps = FakeClock(), []
    options = TimingOptions(seconds=0.4, slice_seconds=0.1, batch=2, warmup=0, min_n=1)
    found = measure_all(
        {"a": clock.candidate("a", 10), "b": clock.candidate("b", 5, threads=2)},
        IMAGES,
        options,
        on_step=lambda *step: steps.append(step),
        clock=clock.read(),
    )
    assert steps == [(name, i + 1, 8) for i, name in enumerate("abbaabba")]
    assert found["a"].latency.p50_ms == 10
    assert (found["a"].cpu_ms, found["b"].cpu_ms) == (10, 10)
    assert (found["a"].images_per_second, found["b"].images_per_second) == (100, 200)
    assert len(found["a"].rounds) == len(found["b"].rounds) == 4
    assert found["a"].rounds[0] == Round(p50_ms=10, cpu_ms=10)
    assert speed_ratio(found["a"], found["b"]).value == 2
    assert speed_ratio(found["a"], found["b"], of="cpu").value == 1


def test_all_candidates_see_the_same_images_and_batches() -> None:
    clock = FakeClock()
    options = TimingOptions(seconds=0.06, slice_seconds=0.03, batch=4, warmup=0, min_n=1)
    runs = {name: clock.candidate(name, 1) for name in "ab"}
    measure_all(runs, IMAGES, options, clock=clock.read())
    seen = {name: [row[1:] for row in clock.log if row[0] == name] for name in "ab"}
    assert seen["a"] == seen["b"]
    assert {batch for batch, _ in seen["a"]} == {1, 4}


def test_at_batch_1_nothing_is_timed_twice() -> None:
    clock = FakeClock()
    options = TimingOptions(seconds=0.06, slice_seconds=0.03, batch=1, warmup=0, min_n=1)
    found = measure_all({"a": clock.candidate("a", 10)}, IMAGES, options, clock=clock.read())
    timed = found["a"]
    assert (timed.latency.p50_ms, timed.latency.n, timed.images_per_second) == (10, 6, 100)
    assert len(clock.log) == 6 + 2  # two turns of three calls, and one before each to warm up


def test_few_images_fill_a_batch() -> None:
    batches = measure._batches(IMAGES, 12)
    assert [batch.shape for batch in batches] == [(12, 2, 1, 1)]
    assert batches[0][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4] * 2 + [0, 1]


def test_throughput_of_a_slow_candidate_ends_with_its_time() -> None:
    clock = FakeClock()
    options = TimingOptions(seconds=1, slice_seconds=0.05, batch=32, warmup=0, min_n=1)
    measure_all({"slow": clock.candidate("slow", 50)}, IMAGES, options, clock=clock.read())
    timed = [row for row in clock.log if row[1] == 32]
    assert len(timed) == 1 + 2 * 3  # one to warm up; three turns, each warmed up


@pytest.mark.parametrize(
    ("runs", "images", "message"),
    [
        ({}, IMAGES, "no candidate"),
        ({"a": lambda images: images}, IMAGES[:0], "no image"),
    ],
)
def test_nothing_to_time(runs, images, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        measure_all(runs, images)


def test_garbage_collection_comes_back_after_an_error() -> None:
    def fails(images: np.ndarray) -> None:
        raise RuntimeError("broken kernel")

    with pytest.raises(RuntimeError, match="broken kernel"):
        measure_all({"a": fails}, IMAGES, TimingOptions(warmup=0))
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("n", "rank"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (30, 9), (100, 39)]
)
def test_interval_of_the_median(n: int, rank: int) -> None:
    # the tables of the sign test, for example Conover, Practical Nonparametric Statistics
    assert measure._median_rank(n) == rank


def timed(p50s_ms: list[float]) -> Timing:
    rounds = tuple(Round(p50_ms, p50_ms) for p50_ms in p50s_ms)
    return Timing(latency_of([MS], 1), 1.0, 1.0, 32, rounds)


def test_ratios_are_taken_within_rounds() -> None:
    noise = [1.0, 3.0, 1.0, 2.0, 1.0, 5.0, 1.0, 1.5, 4.0]  # hits both alike
    base, other = timed([2 * x for x in noise]), timed(noise)
    found = speed_ratio(base, other)
    assert (found.value, found.low, found.high) == (2, 2, 2)
    assert speed_ratio(other, base).value == 0.5


def test_one_odd_round_is_outside_of_the_interval() -> None:
    found = speed_ratio(timed([1.0] * 9), timed([0.01] + [0.5] * 8))
    assert (found.value, found.low, found.high) == (2, 2, 2)


def test_only_timings_of_one_run_compare() -> None:
    with pytest.raises(ValueError, match="zip"):
        speed_ratio(timed([1, 2]), timed([1]))


MODULE = """
def load(answer):
    def run(images):
        assert images.shape == (1, 2, 2, 3) and images.dtype == "uint8"
        return answer
    return run

def broken():
    raise ValueError("no such weights")
"""


def test_a_fresh_process_is_measured(tmp_path, monkeypatch) -> None:
    (tmp_path / "some_network.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    found = measure_function_process("some_network:load", {"answer": 1}, (1, 2, 2, 3), repeats=2)
    assert found.n == 2
    assert found.cold_start_ms > 0
    assert found.peak_rss_mb is None or found.peak_rss_mb >= (found.rss_mb or 0)
    with pytest.raises(PipelineError, match=r"exit code 1:(.|\n)*no such weights"):
        measure_function_process("some_network:broken", {}, (1, 2, 2, 3), repeats=1)


def test_the_shipped_predictor_in_a_fresh_process(tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    spec = ModelSpec("tiny", "multi-label", 2, 2, 1, ("a", "b", "c", "d"))
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["float"], to=kinds.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"]),
            helper.make_node("Sigmoid", ["flat"], ["probabilities"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("images", kinds.UINT8, ["N", 2, 2, 1])],
        [helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["N", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, tmp_path / "model.onnx")
    found = measure_process(
        spec, tmp_path / "model.onnx", thresholds=[0.5] * 4, threads=1, repeats=1
    )
    assert found.cold_start_ms > 0
    with pytest.raises(PipelineError, match="exit code 1"):
        measure_process(spec, tmp_path / "missing.onnx", repeats=1)


def test_a_speed_is_the_summary_of_a_timing() -> None:
    timing = timed([1.0])
    speed = Speed.of(timing, Process(231.0, 58.0, 61.0, 3), threads=1)
    assert (speed.p50_ms, speed.n) == (timing.latency.p50_ms, timing.latency.n)
    assert (speed.batch, speed.threads) == (32, 1)
    assert (speed.cold_start_ms, speed.rss_mb, speed.peak_rss_mb) == (231.0, 58.0, 61.0)
    assert Speed.of(timing).rss_mb is None


def test_one_thread_is_judged_by_its_cpu_time() -> None:
    """Where another process took the core from the base, the wall says what is not so."""
    base, other = (
        Timing(latency_of([MS], 1), 1.0, 1.0, 32, (Round(wall_ms, cpu_ms),) * 3)
        for wall_ms, cpu_ms in ((8.0, 2.0), (1.0, 1.0))
    )
    assert decisive_speedup(base, other, threads=1) == 2
    assert decisive_speedup(base, other, threads=2) == 8
    assert (speedup(base, other).value, speedup(base, other).cpu_value) == (8, 2)


def test_a_candidate_is_timed_next_to_fp32() -> None:
    runs = (lambda images: time.sleep(0.004), lambda images: time.sleep(0.001))
    options = TimingOptions(seconds=0.1, batch=1, warmup=1, min_n=5)
    speed = time_model(*runs, IMAGES, threads=2, options=options)
    assert 1 <= speed.p50_ms < 4
    assert speed.speedup > 1.5  # by the wall: both sleep
