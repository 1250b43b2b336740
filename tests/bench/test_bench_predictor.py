"""What the predictor adds to a bare session, and what opening a bundle costs."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.timing import TimingOptions, measure_all, speed_ratio
from runtime import Bundle, Predictor
from runtime.onnx_session import CPU_PROVIDER, create

pytestmark = pytest.mark.bench

MAX_RATIO = 1.15  # times the bare session's time ...
MAX_EXTRA_US = 10.0  # ... or so many microseconds more
THREADS = 1  # the fewer, the faster the session and the heavier what is added


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_call_costs_little_more_than_a_bare_session_run(
    precision: str, mnist_bundle: Path, show: Any
) -> None:
    with closing(Bundle.open(mnist_bundle)) as bundle:
        found = [row for row in bundle.manifest.variants if row.precision == precision]
        if not found:
            pytest.skip(f"not run: the bundle has no {precision} variant")
        variant, model, shape = found[0], bundle.read(found[0].file), bundle.manifest.spec.shape
    session = create(model, CPU_PROVIDER, THREADS)  # the very options of the predictor

    def bare(images: Any) -> Any:
        return session.run(["probabilities"], {"images": images})[0]

    images = np.random.default_rng(0).integers(0, 256, (64, *shape), np.uint8)
    with Predictor(mnist_bundle, "cpu", variant.id, THREADS) as predictor:
        timings = measure_all(
            {"session.run": bare, "p(images)": predictor},
            images,
            TimingOptions(seconds=5.0, batch=2),  # rounds of 50 ms, interleaved
        )
    ours, base = timings["p(images)"], timings["session.run"]
    ratio = speed_ratio(ours, base)
    pairs = zip(ours.rounds, base.rounds, strict=True)
    extra_us = statistics.median(a.p50_ms - b.p50_ms for a, b in pairs) * 1e3
    show(
        f"p(images) against session.run: {variant.id}, batch 1, {THREADS} thread, "
        f"{len(ours.rounds)} rounds in turns",
        ("", "p50 us", "n", "CPU us"),
        [
            *(
                (name, f"{t.latency.p50_ms * 1e3:.1f}", t.latency.n, f"{t.cpu_ms * 1e3:.1f}")
                for name, t in timings.items()
            ),
            (
                "ratio in a round",
                f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
                "",
                "",
            ),
            ("more in a round", f"{extra_us:+.1f}", "", ""),
            ("bound", f"ratio {MAX_RATIO} or {MAX_EXTRA_US:+.0f} us", "", ""),
        ],
    )
    assert ratio.value <= MAX_RATIO or extra_us <= MAX_EXTRA_US


OPENING = """if True:
    import json, sys, time
    import numpy, onnxruntime
    from runtime import Predictor

    def resident(key):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith(key))

    before, cpu, wall = resident("VmRSS"), time.process_time(), time.perf_counter()
    p = Predictor(sys.argv[1], "cpu", "auto", 1)
    found = {"wall_ms": (time.perf_counter() - wall) * 1e3,
             "cpu_ms": (time.process_time() - cpu) * 1e3, "mb": resident("VmRSS") - before}
    wall, cpu = time.perf_counter(), time.process_time()
    p.selftest()
    found["selftest_wall_ms"] = (time.perf_counter() - wall) * 1e3
    found["selftest_cpu_ms"] = (time.process_time() - cpu) * 1e3
    found["selftest_mb"] = resident("VmRSS") - before
    found["peak_mb"] = resident("VmHWM")
    print(json.dumps(found))
"""


def test_opening_a_bundle_is_reported(
    mnist_bundle: Path, last_line: Callable[..., str], show: Any
) -> None:
    first = [json.loads(last_line(OPENING, mnist_bundle)) for _ in range(7)]
    middle = {key: statistics.median(row[key] for row in first) for key in first[0]}
    again = []
    for _ in range(20):
        began = time.perf_counter()
        Predictor(mnist_bundle, "cpu", threads=1).close()
        again.append((time.perf_counter() - began) * 1e3)
    show(
        f"Opening a bundle of {mnist_bundle.stat().st_size / 1e6:.1f} MB (no bound)",
        ("", "wall ms", "CPU ms", "resident MB more", "peak MB"),
        [
            ("first in a process, n=7", *_cells(middle, "wall_ms", "cpu_ms", "mb"), ""),
            (
                "selftest after it",
                *_cells(middle, "selftest_wall_ms", "selftest_cpu_ms", "selftest_mb", "peak_mb"),
            ),
            ("again in a process, n=20", f"{statistics.median(again):.1f}", "", "", ""),
        ],
    )


def _cells(values: dict[str, float], *keys: str) -> list[str]:
    return [f"{values[key]:.1f}" for key in keys]
