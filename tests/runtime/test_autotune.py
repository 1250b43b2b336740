"""Measuring the variants on this device, and what becomes of the record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime import InputError, Predictor


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, whatever the system is."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    return tmp_path / "cache"


def _record(cache: Path) -> Path:
    (record,) = cache.rglob("*.json")
    return record


def test_opening_writes_no_record(grey_bundle: bytes, cache: Path) -> None:
    with Predictor(grey_bundle, device="cpu") as predictor:
        assert "autotuned" not in predictor.info.reason
    assert not cache.exists()


def test_the_winner_is_remembered_and_opened(grey_bundle: bytes, cache: Path) -> None:
    with Predictor(grey_bundle, device="cpu", threads=1) as predictor:
        report = predictor.autotune(seconds=0.05)
    assert {row.variant for row in report.rows} | set(report.failed) >= {report.variant}
    assert all(row.rounds >= 5 and row.latency_us > 0 for row in report.rows)
    assert report.remembered_in == str(_record(cache))
    with Predictor(grey_bundle, device="cpu", threads=1) as again:
        assert again.info.variant == report.variant
        assert "autotuned here" in again.info.reason
    with Predictor(grey_bundle, device="cpu", threads=1, variant="fp32") as asked:
        assert asked.info.variant == "fp32"  # what was asked goes before what was measured


@pytest.mark.parametrize("key", ["bundle_id", "cpu", "onnxruntime", "threads", "device", "format"])
def test_a_record_of_other_conditions_is_ignored(grey_bundle: bytes, cache: Path, key: str) -> None:
    with Predictor(grey_bundle, device="cpu", threads=1) as predictor:
        predictor.autotune(seconds=0.01)
    record = _record(cache)
    data = json.loads(record.read_text())
    record.write_text(json.dumps({**data, key: "another"}))
    with Predictor(grey_bundle, device="cpu", threads=1) as again:
        assert "autotuned" not in again.info.reason


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"variant": 3}', "[" * 100_000])
def test_a_damaged_record_is_ignored(grey_bundle: bytes, cache: Path, text: str) -> None:
    with Predictor(grey_bundle, device="cpu", threads=1) as predictor:
        predictor.autotune(seconds=0.01)
    _record(cache).write_text(text)
    with Predictor(grey_bundle, device="cpu", threads=1) as again:
        assert "autotuned" not in again.info.reason


def test_a_record_cannot_name_a_variant_that_is_not_there(grey_bundle: bytes, cache: Path) -> None:
    with Predictor(grey_bundle, device="cpu", threads=1) as predictor:
        predictor.autotune(seconds=0.01)
    record = _record(cache)
    record.write_text(json.dumps({**json.loads(record.read_text()), "variant": "../evil"}))
    with Predictor(grey_bundle, device="cpu", threads=1) as again:
        assert again.info.variant in {v.id for v in again._parts.manifest.variants}


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "2"])
def test_refused_durations(grey: Predictor, seconds: object) -> None:
    with pytest.raises(InputError, match="seconds="):
        grey.autotune(seconds=seconds)  # type: ignore[arg-type]
