"""What importing the runtime adds to importing numpy and onnxruntime."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.bench

MAX_MORE_MS = 15.0  # of CPU
ROUNDS = 20  # of fresh processes, in turns: some 40 seconds
BASE = "import numpy, onnxruntime"
USES = ("import runtime", "from runtime import Predictor")
INSIDE = """if True:
    import resource, sys
    def cpu_ms():
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return (usage.ru_utime + usage.ru_stime) * 1e3
    {base}
    before = cpu_ms()
    {use}
    print(cpu_ms() - before)
"""


def whole_process_cpu_ms(code: str) -> float:
    """User and system time of a fresh process from start to end, as its parent is told."""
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return (usage.ru_utime + usage.ru_stime) * 1e3


def test_import_costs_at_most_so_much_more(last_line: Callable[..., str], show: Any) -> None:
    """Judged is the CPU time between two looks at the clock of one process. The difference of
    two whole processes counts their ends as well, but drowns in noise: 265 ms, give or take 15."""
    inside = {use: INSIDE.format(base=BASE, use=use) for use in USES}
    whole = {BASE: BASE, **{use: f"{BASE}; {use}" for use in USES}}
    whole_process_cpu_ms(whole[USES[-1]])  # writes the byte code, fills the disk cache
    more: dict[str, list[float]] = {use: [] for use in USES}
    ends: dict[str, list[float]] = {use: [] for use in whole}
    for _ in range(ROUNDS):
        for use, code in whole.items():
            ends[use].append(whole_process_cpu_ms(code))
        for use, code in inside.items():
            more[use].append(float(last_line(code)))
    rows = [(f"{BASE}: whole process", f"{statistics.median(ends[BASE]):.1f}", "")]
    for use in USES:
        pairs = zip(ends[use], ends[BASE], strict=True)
        difference = statistics.median(a - b for a, b in pairs)
        bound = f"+{MAX_MORE_MS:.0f}"
        rows.append((f"{use}: more", f"{statistics.median(more[use]):+.1f}", bound))
        rows.append((f"{use}: whole process, more", f"{difference:+.1f}", ""))
    show(f"Imports: CPU time, medians of {ROUNDS} fresh processes", ("", "ms", "bound"), rows)
    assert all(statistics.median(values) <= MAX_MORE_MS for values in more.values())


MODULES = """if True:
    import json, sys
    import numpy, onnxruntime
    before = set(sys.modules)
    from runtime import Predictor
    print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_import_takes_no_other_module(last_line: Callable[..., str], show: Any) -> None:
    packages = set(json.loads(last_line(MODULES))) - set(sys.stdlib_module_names)
    others = packages - {"numpy", "onnxruntime", "runtime"}
    show(
        "from runtime import Predictor: packages besides the standard library, numpy, onnxruntime",
        ("found", "bound"),
        [(", ".join(sorted(packages)), "runtime")],
    )
    assert not others


MAX_IMPORT_MS = 250.0
MAX_RESIDENT_MB = 50.0
IMPORT = """if True:
    import json, time
    cpu, wall = time.process_time(), time.perf_counter()
    from runtime import Predictor
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    with open("/proc/self/status") as file:
        size = next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))
    print(json.dumps([cpu * 1e3, wall * 1e3, size]))
"""


def test_import_with_numpy_and_onnxruntime_is_quick_and_small(
    last_line: Callable[..., str], show: Any
) -> None:
    rounds = [json.loads(last_line(IMPORT)) for _ in range(ROUNDS)]
    cpu_ms, wall_ms, resident_mb = (
        statistics.median(column) for column in zip(*rounds, strict=True)
    )
    show(
        f"from runtime import Predictor, numpy and onnxruntime with it: medians of {ROUNDS} fresh "
        "processes",
        ("", "found", "bound"),
        [
            ("CPU ms", f"{cpu_ms:.0f}", f"{MAX_IMPORT_MS:.0f}"),
            ("wall ms", f"{wall_ms:.0f}", ""),
            ("resident MB", f"{resident_mb:.1f}", f"{MAX_RESIDENT_MB:.0f}"),
        ],
    )
    assert cpu_ms <= MAX_IMPORT_MS
    assert resident_mb <= MAX_RESIDENT_MB
