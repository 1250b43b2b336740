"""Figures that no clock decides: instructions, memory, limits. Each needs minutes, or a tool.

They are of the digit bundle of the last run, or of an untrained one. Another run's:

    ARTIFACTS=elsewhere .venv/bin/python -m pytest -m full -s tests/runtime/test_limits.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import runtime
from runtime import Bundle

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(sys.platform != "linux", reason="not run: reads /proc, uses prlimit"),
]

ROOT = Path(runtime.__file__).parents[1]
MAX_RATIO = 1.15  # of instructions, against the bare session
CALLS = 20


@pytest.fixture(scope="module", params=["fp32", "int8"])
def variant(request: pytest.FixtureRequest, mnist_bundle: Path) -> str:
    """The first variant of that precision."""
    with closing(Bundle.open(mnist_bundle)) as bundle:
        for row in bundle.manifest.variants:
            if row.precision == request.param:
                return row.id
    pytest.skip(f"not run: {mnist_bundle} has no {request.param} variant")


COUNTER = """
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_TOGGLE_COLLECT; }
void stop(void) { CALLGRIND_TOGGLE_COLLECT; CALLGRIND_STOP_INSTRUMENTATION; }
"""
COUNTED = """if True:
    import ctypes, sys
    import numpy
    from runtime import Bundle, Predictor
    from runtime.devices import CPU_PROVIDER
    from runtime.onnx_session import create
    path, variant, library, what, calls = sys.argv[1:]
    images = numpy.zeros((1, 28, 28, 1), numpy.uint8)
    predictor = Predictor(path, "cpu", variant, 1)
    bundle = Bundle.open(path)
    session = create(bundle.read(bundle.manifest.variant(variant).file), CPU_PROVIDER, 1)
    run = predictor
    if what == "bare":
        run = lambda images: session.run(["probabilities"], {"images": images})[0]
    counter = ctypes.CDLL(library)
    for _ in range(5):
        run(images)
    counter.start()
    for _ in range(int(calls)):
        run(images)
    counter.stop()
"""


def test_a_call_takes_hardly_more_instructions_than_the_bare_session(
    mnist_bundle: Path, variant: str, tmp_path: Path
) -> None:
    if not (shutil.which("valgrind") and shutil.which("gcc")):
        pytest.skip(
            "not run: instructions are counted by valgrind, through a library that gcc makes"
        )
    source, library = tmp_path / "counter.c", tmp_path / "counter.so"
    source.write_text(COUNTER)
    made = subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", source, "-o", library], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"not run: valgrind's headers are missing: {made.stderr[:200]}")

    def count(what: str) -> int:
        options = ["--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no"]
        words = ["valgrind", *options, f"--callgrind-out-file={tmp_path / 'out'}"]
        words += [sys.executable, "-c", COUNTED, str(mnist_bundle), variant]
        words += [str(library), what, str(CALLS)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        found = re.search(r"Collected : (\d+)", done.stderr)
        assert found, done.stderr[-2000:]
        return int(found[1]) // CALLS

    bare, ours = count("bare"), count("ours")
    print(
        f"instructions of a call, {variant}: session.run {bare:,}, p(images) {ours:,}: "
        f"{ours / bare:.3f}"
    )
    assert ours <= MAX_RATIO * bare


THREADS = """if True:
    import json, sys, threading
    import numpy
    from runtime import Predictor

    def resident():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024

    CALLERS, CALLS = 8, 12_500
    pixels = numpy.random.default_rng(0).integers(0, 256, (100, 28, 28, 1), numpy.uint8)
    p = Predictor(sys.argv[1], "cpu", sys.argv[2], threads=1)
    expected = [p(image).tobytes() for image in pixels]
    wrong, sizes = [], []
    barrier = threading.Barrier(CALLERS, action=lambda: sizes.append(resident()))

    def call(first, last):
        for i in range(first, last):
            if p(pixels[i % 100]).tobytes() != expected[i % 100]:
                wrong.append(i)

    def work(number):
        call(0, 1000 // CALLERS)
        barrier.wait()
        call(1000 // CALLERS, CALLS)
        barrier.wait()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(CALLERS)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(json.dumps({"wrong": len(wrong), "grown_mb": sizes[1] - sizes[0]}))
"""


def test_100000_answers_from_8_threads_are_bit_equal_and_memory_stays(
    mnist_bundle: Path, variant: str
) -> None:
    command = [sys.executable, "-c", THREADS, str(mnist_bundle), variant]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"100,000 answers from 8 threads, {variant}: {found}")
    assert found["wrong"] == 0
    assert found["grown_mb"] < 2


SMALL = """if True:
    import os, socket, sys
    import numpy
    from runtime import Predictor
    with Predictor(sys.argv[1]) as p:
        p.selftest()
        page = numpy.full((300, 400, 3), 240, numpy.uint8)
        p.predict([page] * 70)
    with open("/proc/self/status") as file:
        size = next(line for line in file if line.startswith("VmPeak"))
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=0.2)
    except OSError as exc:
        network = type(exc).__name__ + " " + str(exc.errno)
    print(p.info.threads, size.split()[1], network)
"""


def test_it_runs_in_256_mb_of_address_space_on_one_core_without_network(
    mnist_bundle: Path,
) -> None:
    if not (shutil.which("prlimit") and shutil.which("taskset")):
        pytest.skip("not run: prlimit and taskset are not installed")
    core = str(min(os.sched_getaffinity(0)))
    limits = ["prlimit", f"--as={256 << 20}", "taskset", "-c", core]
    offline = ["unshare", "-n"]
    if subprocess.run([*offline, "true"], capture_output=True).returncode:
        offline = []
        print("unshare -n is not permitted: run with network")
    command = [*offline, *limits, sys.executable, "-c", SMALL, str(mnist_bundle)]
    environment = {"OPENBLAS_NUM_THREADS": "1", "HOME": "/"}  # its buffers are 40 MB for a thread
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    threads, peak_kb, network = done.stdout.split(maxsplit=2)
    print(f"peak of address space {int(peak_kb) / 1024:.0f} MB; network: {network}")
    assert threads == "1"
    if offline:
        assert network.startswith("OSError 101")  # unreachable
