"""Special kinds of CPU, which have a default of their own only where it was measured."""

from __future__ import annotations

from exporters.package.defaults import TARGETS, Measured, choose_defaults

FP32 = Measured("fp32", "fp32", True, 1.0, 1.0)
INT8 = Measured("int8", "int8", True, 0.5, 2.0)


def test_a_special_kind_of_arm_has_a_row_only_where_it_was_measured() -> None:
    """So that a reader with better instructions takes the row of the next best that is there."""
    rows = {row.target: row for row in choose_defaults({"arm64-dotprod": [FP32, INT8]})}
    assert set(rows) - set(TARGETS) == {"arm64-dotprod"}
    assert rows["arm64-dotprod"].variant == "int8" and rows["arm64"].variant == "fp32"
    assert set(TARGETS) == {row.target for row in choose_defaults({"arm64": [FP32, INT8]})}
