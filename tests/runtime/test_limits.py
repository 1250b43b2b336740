"""Figures that no clock decides: instructions, memory, limits. Each needs minutes, or a tool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import runtime

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(sys.platform != "linux", reason="not run: reads /proc, uses prlimit"),
]

ROOT = Path(runtime.__file__).parents[1]
MAX_RATIO = 1.15  # of instructions, against the bare session
CALLS = 20


@pytest.fixture(scope="module")
def bundle_path(digit_bundle: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    path.write_bytes(digit_bundle)
    return path


@pytest.fixture(scope="module")
def digit_bundle(build: Any) -> bytes:
    """A network of the shipped digit model's size in a bundle: 28x28, two convolutions."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from exporters import onnx_file
    from runtime import ModelSpec

    spec = ModelSpec("digits", "multi-class", 28, 28, 1, tuple("0123456789"))
    random = np.random.default_rng(0)
    sizes = {"w1": (16, 1, 3, 3), "w2": (32, 16, 3, 3), "w3": (32, 10)}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["f", "scale"], ["s"]),
            helper.make_node("Transpose", ["s"], ["t"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["t", "w1"], ["c1"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c1"], ["r1"]),
            helper.make_node("Conv", ["r1", "w2"], ["c2"], strides=[2, 2]),
            helper.make_node("Relu", ["c2"], ["r2"]),
            helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
            helper.make_node("Flatten", ["p"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w3"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ],
        "digits",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *spec.shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])],
        [
            numpy_helper.from_array(np.float32(1 / 255), "scale"),
            *(
                numpy_helper.from_array(random.normal(size=s).astype(np.float32), n)
                for n, s in sizes.items()
            ),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return bytes(build.packed(spec, onnx_file.to_bytes(onnx_file.finished(model, spec))))


COUNTER = """
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_TOGGLE_COLLECT; }
void stop(void) { CALLGRIND_TOGGLE_COLLECT; CALLGRIND_STOP_INSTRUMENTATION; }
"""
COUNTED = """if True:
    import ctypes, sys
    import numpy
    from runtime import Bundle, Predictor
    from runtime.onnx_session import CPU_PROVIDER, create
    path, library, what, calls = sys.argv[1:]
    images = numpy.zeros((1, 28, 28, 1), numpy.uint8)
    predictor = Predictor(path, "cpu", "fp32", 1)
    model = Bundle.open(path).read("variants/fp32.onnx")
    session = create(model, CPU_PROVIDER, 1)
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
    bundle_path: Path, tmp_path: Path
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
        words += [sys.executable, "-c", COUNTED, str(bundle_path), str(library), what, str(CALLS)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        found = re.search(r"Collected : (\d+)", done.stderr)
        assert found, done.stderr[-2000:]
        return int(found[1]) // CALLS

    bare, ours = count("bare"), count("ours")
    print(f"instructions of a call: session.run {bare:,}, p(images) {ours:,}: {ours / bare:.3f}")
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
    p = Predictor(sys.argv[1], "cpu", threads=1)
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


def test_100000_answers_from_8_threads_are_bit_equal_and_memory_stays(bundle_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS, bundle_path], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
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


def test_it_runs_in_256_mb_of_address_space_on_one_core_without_network(bundle_path: Path) -> None:
    if not (shutil.which("prlimit") and shutil.which("taskset")):
        pytest.skip("not run: prlimit and taskset are not installed")
    core = "0"
    limits = ["prlimit", f"--as={256 << 20}", "taskset", "-c", core]
    offline = ["unshare", "-n"]
    if subprocess.run([*offline, "true"], capture_output=True).returncode:
        offline = []
        print("unshare -n is not permitted: run with network")
    command = [*offline, *limits, sys.executable, "-c", SMALL, str(bundle_path)]
    environment = {"OPENBLAS_NUM_THREADS": "1", "HOME": "/"}  # its buffers are 40 MB for a thread
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    threads, peak_kb, network = done.stdout.split(maxsplit=2)
    print(f"peak of address space {int(peak_kb) / 1024:.0f} MB; network: {network}")
    assert threads == "1"
    if offline:
        assert network.startswith("OSError 101")  # unreachable
