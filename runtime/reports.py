"""Reports about a predictor as small frozen values: what was opened, what the selftest and autotune
gave."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


class _Report:
    def to_dict(self) -> dict[str, Any]:
        """Every field, as plain JSON values."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # all are dataclasses


@dataclass(frozen=True)
class PredictorInfo(_Report):
    """The variant that was opened, its device, and the reason for both."""

    device: str  # "cpu", "cuda", ...: never "auto"
    provider: str  # onnxruntime's name of it, as the session reports it
    variant: str
    target: str  # the kind of device that the default variant was looked up for
    threads: int  # of one call on the CPU, as the session reports it
    reason: str  # why this device and this variant, and why no earlier device
    model_version: str | None  # None: made from parts that are not packed yet
    bundle_id: str | None  # sha256 of the manifest; None: made from parts
    signed_by: str | None  # the trusted key that signed it; None: no keys were given
    synthetic: bool  # trained on generated images
    nodes: dict[str, int] | None = (
        None  # of the graph, by provider; None: onnxruntime does not report it
    )


@dataclass(frozen=True)
class SelftestReport(_Report):
    """The result of the golden samples; there is a report only if all came out as recorded."""

    variant: str
    provider: str
    images: int  # raw images whose preprocessed bytes were equal
    samples: int  # model inputs whose outputs were compared
    max_difference: float  # largest difference to the record, in the unit of the tolerance
    tolerance: float  # what the manifest allows for this variant


@dataclass(frozen=True)
class AutotuneRow:
    """One variant as it was timed on this device."""

    variant: str
    latency_us: float  # median over rounds, batch 1
    speedup: float  # against fp32 in the same rounds; 1.0 for fp32 itself
    rounds: int


@dataclass(frozen=True)
class AutotuneReport(_Report):
    """The result of autotune. ``variant="auto"`` opens the winner from now on."""

    variant: str  # the winner
    reason: str  # as ``PredictorInfo.reason`` will say it
    device: str
    threads: int
    rows: tuple[AutotuneRow, ...]  # the variants that passed their golden samples
    failed: dict[str, str]  # the others, and why
    remembered_in: str | None  # path of the record; None: the cache folder cannot be written
