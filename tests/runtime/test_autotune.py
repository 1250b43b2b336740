"""Which variant is fastest here, and what is remembered of it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import InputError, Predictor, SelftestError, autotune_cache
from runtime.__main__ import main

SECONDS = 0.05


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgeproof" / "autotune"


@pytest.fixture(scope="module")
def slow_default(build: Any) -> bytes:
    """A bundle whose default, fp32, does some five hundred times the work of its int8 variant."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(build.model(build.GRAY))
    nodes = list(model.graph.node)
    place = next(i for i, node in enumerate(nodes) if node.op_type == "MatMul")
    rows = nodes[place].input[0]
    for i in range(100):  # x @ 1 = x, which no optimization knows
        nodes.insert(place + i, helper.make_node("MatMul", [rows, "one"], [f"same_{i}"]))
        rows = f"same_{i}"
    nodes[place + 100].input[0] = rows
    one = np.eye(64, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(one, "one"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return build.bundle(members={"variants/fp32.onnx": model.SerializeToString()})


def test_the_winner_is_opened_from_then_on(slow_default: bytes, cache: Path) -> None:
    with Predictor(slow_default, device="cpu", threads=1) as p:
        assert p.info.variant == "fp32"
        report = p.autotune(SECONDS)
        assert p.info.variant == "fp32"  # this one stays what it is
    assert report.variant == "int8-u8s8-rr"
    assert [row.variant for row in report.rows] == ["fp32", "int8-u8s8-rr"]
    assert report.rows[0].speedup == 1 and report.rows[1].speedup > 1.02
    assert all(row.rounds >= 5 and row.latency_us > 0 for row in report.rows)
    assert report.failed == {} and report.remembered_in is not None
    assert Path(report.remembered_in).parent == cache
    assert json.loads(json.dumps(report.to_dict()))["variant"] == "int8-u8s8-rr"
    with Predictor(slow_default, device="cpu", threads=1) as p:
        assert p.info.variant == "int8-u8s8-rr"
        speedup = f"{report.rows[1].speedup:.2f}x"
        expected = f"variant: autotuned here: int8-u8s8-rr {speedup} as fast as fp32."
        assert expected in p.info.reason  # exact kernels may follow, on a CPU without VNNI
    with Predictor(slow_default, device="cpu", threads=2) as p:  # measured for one thread only
        assert p.info.variant == "fp32"
    with Predictor(slow_default, "cpu", "fp32", 1) as p:  # what is asked for is what is opened
        assert p.info.variant == "fp32"
    assert [path.suffix for path in cache.iterdir()] == [".json"]


def damage(path: Path, what: str) -> None:
    record = json.loads(path.read_text())
    changes: dict[str, Any] = {
        "other cpu": {"cpu": "abacus"},
        "other onnxruntime": {"onnxruntime": "0.1"},
        "other bundle": {"bundle_id": "f" * 64},
        "other format": {"format": 99},
        "no variant": {"variant": 7},
        "unknown variant": {"variant": "int4"},
    }
    texts: dict[str, bytes] = {
        "truncated": path.read_bytes()[:-9],
        "empty": b"",
        "binary": b"\xff\x00\xfe",
        "a list": b"[1]",
        "nested": b"[" * 60_000,
    }
    path.write_bytes(texts.get(what) or json.dumps({**record, **changes.get(what, {})}).encode())
    if what == "empty":
        path.write_bytes(b"")


@pytest.mark.parametrize(
    "what",
    [
        *("other cpu", "other onnxruntime", "other bundle", "other format", "no variant"),
        *("unknown variant", "truncated", "empty", "binary", "a list", "nested"),
    ],
)
def test_a_record_that_does_not_hold_is_ignored(slow_default: bytes, what: str) -> None:
    with Predictor(slow_default, device="cpu", threads=1) as p:
        path = Path(p.autotune(SECONDS).remembered_in or "")
    damage(path, what)
    with Predictor(slow_default, device="cpu", threads=1) as p:
        assert p.info.variant == "fp32"
        assert p.info.reason.endswith("fp32 is the default of cpu: not measured here")
        p.autotune(SECONDS)  # and it is written again
    with Predictor(slow_default, device="cpu", threads=1) as p:
        assert p.info.variant == "int8-u8s8-rr"


def test_without_that_call_nothing_is_timed_or_written(gray_bundle: bytes, cache: Path) -> None:
    Predictor(gray_bundle, device="cpu").close()
    assert not cache.exists()


def test_a_variant_that_fails_its_golden_samples_is_not_timed(build: Any) -> None:
    with np.load(io.BytesIO(build.golden(build.GRAY, {"fp32": 0.0}))) as sound:
        arrays = {name: sound[name] for name in sound.files}
    arrays["probabilities/int8-u8s8-rr"] = arrays["probabilities/fp32"] + np.float32(0.1)
    file = io.BytesIO()
    np.savez(file, **arrays)
    data = build.bundle(members={"golden.npz": file.getvalue()})
    with Predictor(data, device="cpu") as p:
        report = p.autotune(SECONDS)
    assert report.variant == "fp32" and [row.variant for row in report.rows] == ["fp32"]
    assert "differs from its golden outputs by 0.1" in report.failed["int8-u8s8-rr"]


def test_what_cannot_be_tuned_says_so(gray: Predictor, build: Any) -> None:
    with pytest.raises(InputError, match="seconds=0; expected a number above 0"):
        gray.autotune(0)
    with (
        Predictor.from_parts(build.GRAY, None, build.model(build.GRAY)) as p,
        pytest.raises(InputError, match="autotune needs a bundle"),
    ):
        p.autotune()
    with (
        Predictor(build.bundle(error=0.5), device="cpu") as p,
        pytest.raises(SelftestError, match="no variant works on cpu"),
    ):
        p.autotune(SECONDS)


def test_a_cache_that_cannot_be_written_is_not_a_failure(
    gray: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert gray.autotune(SECONDS).remembered_in is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/not/allowed")
    assert autotune_cache.path_of("a", "cpu", 1) is None
    assert gray.autotune(SECONDS).remembered_in is None


@pytest.mark.skipif(sys.platform != "linux", reason="not run: HOME is asked on POSIX systems")
def test_without_a_home_nothing_is_remembered_or_recalled(
    gray: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "not/absolute")
    assert gray.autotune(SECONDS).remembered_in is None
    assert autotune_cache.recall("a" * 64, "cpu", 1) is None
    assert list(tmp_path.iterdir()) == []


def test_at_the_prompt(
    slow_default: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.zip").write_bytes(slow_default)
    words = ["autotune", str(tmp_path / "b.zip"), "--device", "cpu", "--threads", "1"]
    assert main([*words, "--seconds", "0.05"]) == 0
    out = capsys.readouterr().out
    assert "autotuned here: int8-u8s8-rr" in out and "remembered in" in out
    assert main([*words, "--seconds", "0.05", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variant"] == "int8-u8s8-rr"
    assert main([*words, "--seconds", "-1"]) == 1
    assert "error: seconds=-1.0" in capsys.readouterr().err
