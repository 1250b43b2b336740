"""Which variant each kind of device takes, from made-up measurements."""

from __future__ import annotations

from exporters.defaults import TARGETS, Measured, choose_defaults

FP32 = Measured("fp32", "fp32", True, 1.0, 1.0)
INT8 = Measured("int8", "int8", True, 0.5, 2.0)
SLOW = Measured("int8", "int8", True, 1.1, 0.9)


def test_what_was_measured_decides_and_the_rest_says_so() -> None:
    rows = {row.target: row for row in choose_defaults({"x86_64-avx2": [FP32, INT8]})}
    assert tuple(rows) == TARGETS
    assert rows["x86_64-avx2"].variant == "int8" and "2.00 times" in rows["x86_64-avx2"].reason
    others = [row for target, row in rows.items() if target != "x86_64-avx2"]
    assert {(row.variant, row.reason) for row in others} == {("fp32", "not measured here")}


def test_a_variant_that_is_not_faster_is_no_default() -> None:
    row = next(r for r in choose_defaults({"cpu": [FP32, SLOW]}) if r.target == "cpu")
    assert row.variant == "fp32" and "no gain from int8 0.90x" in row.reason


def test_a_special_kind_of_arm_has_a_row_only_where_it_was_measured() -> None:
    """So that a reader with better instructions takes the row of the next best that is there."""
    rows = {row.target: row for row in choose_defaults({"arm64-dotprod": [FP32, INT8]})}
    assert set(rows) - set(TARGETS) == {"arm64-dotprod"}
    assert rows["arm64-dotprod"].variant == "int8" and rows["arm64"].variant == "fp32"
