"""The default variant of each kind of device, chosen by measurements and never assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporters.errors import PackageError
from runtime.manifest import PRECISIONS, WORTH, Default

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
    """Return a default for each of ``TARGETS``; ``measured`` has the variants that may ship, by
    target.

    It is the fastest variant with a gain, else the plainest one: FP32 where it may ship. A target
    that was not measured gets the plainest one with the reason "not measured here". An INT8 file
    that is not portable is the default only of a target where its answers were measured, and never
    of one in ``SATURATING``. Raises PackageError when nothing was measured anywhere.
    """
    rows = next((rows for rows in measured.values() if rows), None)
    if not rows:
        raise PackageError("no variant was measured; expected at least one that may ship.")
    base = min(rows, key=lambda row: (PRECISIONS.index(row.precision), not row.portable))
    if not _is_safe(base, "cpu"):
        raise PackageError(
            f"only {base.id} may ship, and it is not portable: there is no variant for CPUs whose "
            "8-bit sums stop at 16 bits. Raise the bounds in [gate], so that fp32 may ship, too."
        )
    targets = dict.fromkeys((*TARGETS, *measured))  # a special ARM has a row where it was measured
    return tuple(_choose(target, measured.get(target, ()), base.id) for target in targets)


def _choose(target: str, rows: Sequence[Measured], base: str) -> Default:
    if not rows:
        return Default(target, base, "not measured here")
    plain = next(row for row in rows if row.id == base)
    # the plain one need not be fp32, which speeds are relative to
    gains = {row.id: row.speedup / plain.speedup for row in rows if row is not plain}
    speeds = ", ".join(f"{name} {gain:.2f}x" for name, gain in gains.items()) or "no other variant"
    safe = [row for row in rows if row is not plain and _is_safe(row, target)]
    fastest = max(safe, key=lambda row: row.speedup, default=None)
    if fastest is None or gains[fastest.id] < WORTH:
        why = _no_gain(rows, gains, speeds)
        return Default(target, base, f"{base} {plain.p50_ms:.3f} ms; {why}")
    return Default(
        target,
        fastest.id,
        f"{fastest.p50_ms:.3f} ms, {gains[fastest.id]:.2f} times as fast as {base} "
        f"({plain.p50_ms:.3f} ms); measured: {speeds}",
    )


def _is_safe(row: Measured, target: str) -> bool:
    return row.precision != "int8" or row.portable or target not in SATURATING


def _no_gain(rows: Sequence[Measured], gains: Mapping[str, float], speeds: str) -> str:
    """Return the reason why the plain variant stays the default."""
    int8 = [gains[row.id] for row in rows if row.precision == "int8" and row.id in gains]
    if not int8 or max(int8) >= WORTH:
        return f"no safe gain from {speeds}"
    return f"INT8 does not pay on this CPU: {max(int8):.2f}x; measured: {speeds}"
