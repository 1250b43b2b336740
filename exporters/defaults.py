"""Which variant should a device take? Decided by what was measured, never assumed. Takes numbers
only; knows neither files nor clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.manifest import WORTH, Default

TARGETS = ("x86_64-avx2", "x86_64-vnni", "arm64", "cuda", "wasm", "cpu")


@dataclass(frozen=True)
class Measured:
    """One variant that passed the gate, on the target where it was timed."""

    id: str
    precision: str
    portable: bool
    p50_ms: float  # latency at batch 1
    speedup: float  # against fp32 in the same rounds; 1.0 for fp32 itself


def choose_defaults(
    measured: Mapping[str, Sequence[Measured]], base: str = "fp32"
) -> tuple[Default, ...]:
    """A default for each of ``TARGETS``; ``measured`` has the variants by target.

    The fastest variant that is worth it, else ``base``. A target that was not measured gets
    ``base``, with the words "not measured here". An INT8 file that is not portable is only ever
    the default of the very target where its answers were measured.
    """
    targets = dict.fromkeys((*TARGETS, *measured))  # a special ARM has a row where it was measured
    return tuple(_choose(target, measured.get(target, ()), base) for target in targets)


def _choose(target: str, rows: Sequence[Measured], base: str) -> Default:
    if not rows:
        return Default(target, base, "not measured here")
    times = {row.id: row for row in rows}
    others = [row for row in rows if row.id != base]
    told = ", ".join(f"{row.id} {row.speedup:.2f}x" for row in others) or "no other variant"
    fastest = max(others, key=lambda row: row.speedup, default=None)
    if fastest is None or fastest.speedup < WORTH:
        return Default(target, base, f"{base} {times[base].p50_ms:.3f} ms; no gain from {told}")
    return Default(
        target,
        fastest.id,
        f"{fastest.p50_ms:.3f} ms, {fastest.speedup:.2f} times as fast as {base} "
        f"({times[base].p50_ms:.3f} ms); measured: {told}",
    )
