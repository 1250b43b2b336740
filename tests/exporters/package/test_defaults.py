"""defaults.py: each kind of device gets what was measured, or FP32 and the words for it."""

from __future__ import annotations

from typing import Any

import pytest

from exporters.errors import PackageError
from exporters.package.defaults import SATURATING, TARGETS, Measured, choose_defaults

FP32 = Measured("fp32", "fp32", False, 1.0, 1.0)
FP16 = Measured("fp16", "fp16", False, 1.25, 0.8)


def int8(speedup: float, portable: bool = True, name: str = "int8") -> Measured:
    return Measured(name, "int8", portable, 1 / speedup, speedup)


def default(target: str, *rows: Measured) -> Any:
    return next(row for row in choose_defaults({target: rows}) if row.target == target)


def test_the_fastest_that_is_worth_it() -> None:
    row = default("x86_64-vnni", FP32, FP16, int8(2.5))
    assert row.variant == "int8"
    assert "0.400 ms, 2.50 times as fast as fp32 (1.000 ms)" in row.reason
    assert "fp16 0.80x" in row.reason


def test_int8_without_a_gain_is_explained() -> None:
    row = default("x86_64-avx2", FP32, int8(0.96))
    assert row.variant == "fp32"
    assert "INT8 does not pay on this CPU: 0.96x" in row.reason


def test_two_percent_are_noise() -> None:
    assert default("x86_64-vnni", FP32, int8(1.019)).variant == "fp32"
    assert default("x86_64-vnni", FP32, int8(1.021)).variant == "int8"


@pytest.mark.parametrize("target", SATURATING)
def test_a_file_that_is_not_portable_is_not_the_default_where_it_saturates(target: str) -> None:
    row = default(target, FP32, int8(3.0, portable=False))
    assert row.variant == "fp32"
    assert "no safe gain from int8 3.00x" in row.reason
    assert default("x86_64-vnni", FP32, int8(3.0, portable=False)).variant == "int8"
    both = default(target, FP32, int8(3.0, False, "int8-fast"), int8(2.0, True, "int8-safe"))
    assert both.variant == "int8-safe"


def test_other_targets_are_not_measured_here() -> None:
    rows = choose_defaults({"x86_64-vnni": (FP32, int8(2.0))})
    assert tuple(row.target for row in rows) == TARGETS
    for row in rows:
        if row.target != "x86_64-vnni":
            assert (row.variant, row.reason) == ("fp32", "not measured here")


def test_fp16_on_the_cpu_and_int8_on_cuda_only_when_measured_faster() -> None:
    assert default("x86_64-vnni", FP32, FP16).variant == "fp32"
    assert default("cuda", FP32, FP16, int8(0.4)).variant == "fp32"
    fast = Measured("fp16", "fp16", False, 0.5, 2.0)
    assert default("cuda", FP32, fast, int8(0.4)).variant == "fp16"


def test_without_fp32_the_plainest_variant_is_the_fallback() -> None:
    """A bound of size may keep FP32 out; then speeds are relative to the plainest variant left."""
    rows = choose_defaults({"x86_64-vnni": (FP16, int8(2.0))})
    by_target = {row.target: row for row in rows}
    assert by_target["arm64"].variant == "fp16"
    assert by_target["x86_64-vnni"].variant == "int8"
    assert "2.50 times as fast as fp16 (1.250 ms)" in by_target["x86_64-vnni"].reason
    slow = choose_defaults({"x86_64-vnni": (FP16, int8(0.81))})
    assert {row.variant for row in slow} == {"fp16"}
    assert "INT8 does not pay on this CPU: 1.01x" in slow[1].reason


def test_int8_alone_must_be_safe_everywhere() -> None:
    safe, fast = int8(2.0), int8(3.0, portable=False, name="int8-fast")
    rows = {row.target: row.variant for row in choose_defaults({"x86_64-vnni": (fast, safe)})}
    assert rows["x86_64-avx2"] == "int8" and rows["x86_64-vnni"] == "int8-fast"
    with pytest.raises(PackageError, match="only int8-fast may ship, and it is not portable"):
        choose_defaults({"x86_64-vnni": (fast,)})


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(PackageError, match="no variant was measured"):
        choose_defaults({"x86_64-vnni": ()})
