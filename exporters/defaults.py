"""Which variant should a device take? Decided by what was measured, never assumed. Takes numbers
only; knows neither files nor clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.manifest import PRECISIONS, WORTH, Default

from .errors import PackageError

TARGETS = ("x86_64-avx2", "x86_64-vnni", "arm64", "cuda", "wasm", "cpu")


@dataclass(frozen=True)
class Measured:
    """One variant that passed the gate, on the target where it was timed."""

    id: str
    precision: str
    portable: bool
    p50_ms: float  # latency at batch 1
    speedup: float  # against fp32 in the same rounds; 1.0 for fp32 itself


# Kinds of CPU whose 8-bit kernels sum in 16 bits, or may: a file that is not portable runs there
# with exact but slow kernels, or wrongly, so it is never the default.
SATURATING = ("x86_64-avx2", "cpu")


def choose_defaults(measured: Mapping[str, Sequence[Measured]]) -> tuple[Default, ...]:
    """A default for each of ``TARGETS``; ``measured`` has the variants that may ship, by target.

    The fastest variant that is worth it, else the plainest one: FP32 where it may ship. A target
    that was not measured gets that, too, with the words "not measured here". An INT8 file that is
    not portable is only ever the default of the very target where its answers were measured, and
    never of one in ``SATURATING``. Raises PackageError when nothing was measured anywhere.
    """
    rows = next((rows for rows in measured.values() if rows), None)
    if not rows:
        raise PackageError("no variant was measured; expected at least one that may ship.")
    base = min(rows, key=lambda row: PRECISIONS.index(row.precision)).id
    targets = dict.fromkeys((*TARGETS, *measured))  # a special ARM has a row where it was measured
    return tuple(_choose(target, measured.get(target, ()), base) for target in targets)


def _choose(target: str, rows: Sequence[Measured], base: str) -> Default:
    if not rows:
        return Default(target, base, "not measured here")
    times = {row.id: row for row in rows}
    others = [row for row in rows if row.id != base]
    told = ", ".join(f"{row.id} {row.speedup:.2f}x" for row in others) or "no other variant"
    safe = [row for row in others if _is_safe(row, target)]
    fastest = max(safe, key=lambda row: row.speedup, default=None)
    if fastest is None or fastest.speedup < WORTH:
        return Default(
            target, base, f"{base} {times[base].p50_ms:.3f} ms; {_no_gain(others, told)}"
        )
    return Default(
        target,
        fastest.id,
        f"{fastest.p50_ms:.3f} ms, {fastest.speedup:.2f} times as fast as {base} "
        f"({times[base].p50_ms:.3f} ms); measured: {told}",
    )


def _is_safe(row: Measured, target: str) -> bool:
    return row.precision != "int8" or row.portable or target not in SATURATING


def _no_gain(others: Sequence[Measured], told: str) -> str:
    """Why the plain variant stays: in plain words where it is about INT8."""
    best = max((r for r in others if r.precision == "int8"), key=lambda r: r.speedup, default=None)
    if best is None or best.speedup >= WORTH:
        return f"no safe gain from {told}"
    return f"INT8 does not pay on this CPU: {best.speedup:.2f}x; measured: {told}"
