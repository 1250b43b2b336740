"""A predictor's life: options that reach the session, forks, pickles, and what is left of it."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest

import runtime
from runtime import BundleIntegrityError, Predictor, PredictorError, cpu, onnx_session, opening

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
PAGE = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture
def path(gray_bundle: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "bundle.zip"
    path.write_bytes(gray_bundle)
    return path


def session_of(predictor: Predictor) -> Any:
    return predictor._run.__self__  # type: ignore[attr-defined]


def test_the_options_reach_the_sessions(path: Path) -> None:
    with Predictor(path, device="cpu", threads=2) as p:
        p.predict(PAGE)
        options = session_of(p).get_session_options()
        prepared = p._preprocess_session.get_session_options()
    assert (options.intra_op_num_threads, prepared.intra_op_num_threads) == (2, 1)
    assert options.enable_cpu_mem_arena and prepared.enable_cpu_mem_arena
    assert options.enable_mem_pattern and not prepared.enable_mem_pattern
    for one in (options, prepared):
        assert one.inter_op_num_threads == 1 and one.log_severity_level == 3
        assert one.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert one.get_session_config_entry("session.inter_op.allow_spinning") == "0"


LIMITED = """if True:
    import resource, sys
    import numpy
    from runtime import InputError, Predictor, cpu, opening
    opening.usable_threads = lambda: 64
    Predictor(sys.argv[1], "cpu", threads=1).close()  # all that it imports is there
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limit = used + (int(sys.argv[2]) << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        Predictor(sys.argv[1], "cpu", threads=64)
    except InputError as exc:
        print(exc)
    with Predictor(sys.argv[1], "cpu") as p:
        p.selftest()
        print(p.info.threads)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="not run: reads /proc")
@pytest.mark.parametrize(("mebibytes", "most"), [(90, 1), (112, 1), (135, 1), (400, 3), (700, 6)])
def test_threads_that_cannot_start_are_refused(path: Path, mebibytes: int, most: int) -> None:
    """onnxruntime would wait for them forever. A limit of processes comes to the same."""
    command = [sys.executable, "-c", LIMITED, str(path), str(mebibytes)]
    root = Path(runtime.__file__).parents[1]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, timeout=children.PATIENCE
    )
    assert done.returncode == 0, done.stderr
    message, threads = done.stdout.splitlines()
    assert message.startswith("threads=64; expected at most ") and "ulimit -v" in message
    assert 1 <= int(threads) <= most


@pytest.mark.parametrize(
    ("target", "portable", "variant", "exact"),
    [
        ("x86_64-avx2", False, "int8-u8s8", True),
        ("x86_64-avx2", True, "int8-u8s8", False),
        ("x86_64-avx2", False, "fp32", False),
        ("x86_64-vnni", False, "int8-u8s8", False),
        ("arm64", False, "int8-u8s8", False),
    ],
)
def test_int8_that_would_saturate_here_runs_with_exact_kernels_and_says_so(
    build: Any,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    portable: bool,
    variant: str,
    exact: bool,
) -> None:
    monkeypatch.setattr(opening, "cpu_targets", lambda: (target, "cpu"))
    model = build.model(build.GRAY)
    with Predictor.from_parts(build.GRAY, None, model, variant=variant, portable=portable) as p:
        options = session_of(p).get_session_options()
        assert p.info.reason.endswith("exact kernels (session.x64quantprecision=1).") == exact
    try:
        found = options.get_session_config_entry("session.x64quantprecision")
    except RuntimeError:  # what onnxruntime raises for an entry that was never set
        found = ""
    assert found == ("1" if exact else "")


def test_info_counts_the_nodes_of_each_provider(gray: Predictor) -> None:
    session = session_of(gray)
    if hasattr(session, "get_provider_graph_assignment_info"):
        nodes = gray.info.nodes
        assert nodes is not None and list(nodes) == ["CPUExecutionProvider"]
        assert nodes["CPUExecutionProvider"] >= 4
    else:
        assert gray.info.nodes is None
    assert onnx_session.nodes_by_provider(object()) is None


def test_the_cpu_s_identity_tells_instruction_sets_apart(tmp_path: Path) -> None:
    def identity(text: str) -> str:
        (tmp_path / "proc").mkdir(exist_ok=True)
        (tmp_path / "proc" / "cpuinfo").write_text(text)
        return cpu.cpu_identity(f"{tmp_path}/")

    first = "model name : Pentium\nflags : avx avx2\nMHz : 1\n\nmodel name : other\n"
    assert "Pentium" in identity(first) and "other" not in identity(first)
    assert identity(first) == identity(first.replace("MHz : 1", "MHz : 2"))
    assert identity(first) != identity(first.replace("avx2", "avx3"))
    arm = "CPU implementer : 0x41\nCPU part : 0xd08\nFeatures : asimd\n"
    assert "0x41, 0xd08" in identity(arm)
    assert identity(arm) != identity(arm.replace("asimd", "asimd asimddp"))


def test_close_frees_the_sessions(path: Path) -> None:
    p = Predictor(path, device="cpu")
    p.predict(PAGE)
    left = [weakref.ref(session_of(p)), weakref.ref(p._preprocess_session)]
    p.close()
    gc.collect()
    assert [reference() for reference in left] == [None, None]


def test_closing_during_calls_of_other_threads_is_safe(path: Path) -> None:
    """Each call gives the right answer or says that the predictor, or its bundle, is closed."""
    with Predictor(path, "cpu", threads=1) as p:
        expected, page = p(PIXELS), p.predict(PAGE)
    wrong: list[object] = []

    def ask(p: Predictor) -> None:
        try:
            while True:
                np.testing.assert_array_equal(p(PIXELS), expected)
                assert p.predict(PAGE) == page
                p.selftest()
        except PredictorError as exc:
            if "closed" not in str(exc):
                wrong.append(exc)
        except BaseException as exc:
            wrong.append(exc)

    for turn in range(20):
        p = Predictor(path, "cpu", threads=1 + turn % 2)
        askers = [threading.Thread(target=ask, args=(p,)) for _ in range(4)]
        for asker in askers:
            asker.start()
        time.sleep(0.002 * (turn % 5))
        p.close()
        for asker in askers:
            asker.join(children.PATIENCE)
            assert not asker.is_alive()
    assert wrong == []


def in_child(work: Any) -> int:
    """The exit code of ``work`` in a forked child, which ends as those of multiprocessing do."""
    child = os.fork()
    if child == 0:
        signal.alarm(children.PATIENCE)  # a child that waits forever dies of it
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@FORKS
@pytest.mark.parametrize("threads", [1, 2])
def test_a_child_opens_the_bundle_again(path: Path, threads: int) -> None:
    with Predictor(path, device="cpu", threads=threads) as p:
        expected = p(PIXELS)
        mine = id(session_of(p))

        def work() -> None:
            np.testing.assert_array_equal(p(PIXELS), expected)
            assert (id(session_of(p)) == mine) == (threads == 1)
            p.predict(PAGE)  # preprocess.onnx is read in the child
            p.selftest()
            p.close()

        assert in_child(work) == 0
        p.selftest()  # the child has not moved this one's place in the file
        path.unlink()
        # both sessions of one thread are still good; another pool needs the file
        assert in_child(lambda: p.predict(PAGE)) == (0 if threads == 1 else 1)
        p.predict(PAGE)


@FORKS
def test_a_child_of_a_busy_parent_waits_for_no_lock(gray_bundle: bytes) -> None:
    """Another thread holds the locks of a predictor and of its bundle at the fork."""
    with Predictor(gray_bundle, device="cpu", threads=1) as p:
        expected = p.predict(PAGE)
        with p._lock, p._parts._zip._lock:  # type: ignore[attr-defined]
            assert in_child(lambda: p.selftest() and p.close()) == 0
        assert p.predict(PAGE) == expected


@FORKS
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_processes_takes_predictors(path: Path, method: Any) -> None:
    """Inherited by fork and pickled by path; its children end without waiting for our threads."""
    code = (
        "import multiprocessing, sys, numpy\n"
        "from runtime import Predictor\n"
        "if __name__ == '__main__':\n"
        "    with Predictor(sys.argv[1], 'cpu', threads=2) as p:\n"
        "        pages = [numpy.full((30, 40, 3), i, numpy.uint8) for i in range(8)]\n"
        "        with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:\n"
        "            print(pool.map(p.predict, pages) == [p.predict(page) for page in pages])\n"
    )
    script = path.with_name("script.py")
    script.write_text(code)
    root = Path(runtime.__file__).parents[1]
    command = [sys.executable, str(script), str(path), method]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=children.PATIENCE
    )
    assert done.stdout == "True\n", done.stderr


@FORKS
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("closed", [False, True])
def test_a_child_may_end_by_sys_exit(path: Path, threads: int, closed: bool) -> None:
    """onnxruntime's reporting thread would hang it there: see ``processes.py``."""
    code = (
        "import os, sys, numpy\n"
        "from runtime import Predictor\n"
        f"p = Predictor(sys.argv[1], 'cpu', threads={threads})\n"
        "page = numpy.full((30, 40, 3), 7, numpy.uint8)\n"
        "expected = p.predict(page)\n"
        f"if {closed}: p.close()\n"
        "if child := os.fork():\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        f"sys.exit(3 if {closed} or p.predict(page) == expected else 4)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    root = Path(runtime.__file__).parents[1]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, timeout=children.PATIENCE
    )
    assert done.returncode == 3, done.stderr


@FORKS
def test_another_device_does_not_survive_a_fork(path: Path) -> None:
    with Predictor(path, device="cpu", threads=2) as p:
        object.__setattr__(p.info, "device", "cuda")

        def work() -> None:
            with pytest.raises(PredictorError, match="opened on cuda before the process forked"):
                p(PIXELS)

        assert in_child(work) == 0


def test_a_pickle_opens_the_same_bundle_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with Predictor(path.name, "cpu", "int8-u8s8-rr", 1) as p:
        data = pickle.dumps(p)
        assert len(data) < 1000
        monkeypatch.chdir("/")
        with pickle.loads(data) as again:
            assert again.info.variant == "int8-u8s8-rr" and again.info.threads == 1
            assert again.info.bundle_id == p.info.bundle_id
            np.testing.assert_array_equal(again(PIXELS), p(PIXELS))


def test_a_pickle_of_a_bundle_that_was_replaced_is_refused(path: Path, build: Any) -> None:
    with Predictor(path, device="cpu") as p:
        data = pickle.dumps(p)
    path.write_bytes(build.bundle(edit=lambda d: d.update(model_version="9")))
    with pytest.raises(BundleIntegrityError, match=r"bundle\.zip.*[0-9a-f]{64}.*[0-9a-f]{64}"):
        pickle.loads(data)
    with pytest.raises(PredictorError, match="is closed"):
        pickle.dumps(p)


def test_what_has_no_path_is_not_pickled(gray: Predictor, build: Any) -> None:
    with Predictor.from_parts(build.GRAY, None, build.model(build.GRAY)) as parts:
        for p in (gray, parts):
            with pytest.raises(PredictorError, match="was not opened from a path"):
                pickle.dumps(p)
