"""What a verification found, as values that become JSON. Standard library only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ran", "not run", "failed"]


@dataclass(frozen=True)
class Promise:
    """What a variant's answers may differ by from one target to the next, and why."""

    bit_identical: bool  # its quantized tensors
    max_difference: float  # of probabilities, inclusive
    reason: str


@dataclass(frozen=True)
class VariantCheck:
    """One variant on one target, compared with this machine."""

    variant: str
    images: int
    tensors: int  # quantized tensors that were compared; 0 in a float file
    identical: bool | None  # all of them, bit for bit; None where there are none
    parts_at: str | None  # the first layer, from the input on, whose tensor differs
    largest_step: int  # largest difference of quantized values, in levels
    max_difference: float  # of probabilities
    agreement: float  # share of equal answers; of attributes, over images and labels
    worst_image: int  # the one with the largest difference
    taps_change_nothing: bool | None  # the copy with more outputs gives the very same probabilities
    promise: Promise
    failures: tuple[str, ...]  # empty: as promised

    @property
    def passed(self) -> bool:
        """As promised."""
        return not self.failures


@dataclass(frozen=True)
class TargetCheck:
    """One target: run, not run and why, or failed."""

    target: str
    describes: str
    status: Status
    note: str = ""  # why it was not run or how it failed; what of it could not be had
    command: str = ""
    seconds: float = 0.0  # of the check; says nothing about a device
    emulated: bool = False
    about: dict[str, Any] = field(default_factory=dict)  # as the target sees itself
    pixels_identical: bool | None = None  # what preprocess.onnx makes of the golden images
    variants: tuple[VariantCheck, ...] = ()

    @property
    def passed(self) -> bool:
        """Ran and answered as promised; a target that was not run does not count."""
        if self.status != "ran":
            return self.status == "not run"
        return self.pixels_identical is not False and all(v.passed for v in self.variants)


@dataclass(frozen=True)
class Verification:
    """The whole table."""

    bundle: str
    bundle_id: str
    model: str
    synthetic: bool  # trained on generated images
    date: str
    images: str  # which ones, in words
    golden: str  # what the selftest said here
    machine: str  # this one, and its libraries
    targets: tuple[TargetCheck, ...]
    preprocessing: str = ""  # how the bundle's compares with that of the run it is in, in words
    whole_set: tuple[TargetCheck, ...] = ()  # --full: many images, last quantized tensors only

    @property
    def passed(self) -> bool:
        """Every target that ran answered as promised, and so did the golden samples here; images
        are prepared as in the bundle's own run."""
        if self.preprocessing.startswith("failed"):
            return False
        rows = (*self.targets, *self.whole_set)
        return self.golden.startswith("passed") and all(row.passed for row in rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the verdicts among them."""
        return {
            **asdict(self),
            "passed": self.passed,
            "targets": [_row(check) for check in self.targets],
            "whole_set": [_row(check) for check in self.whole_set],
        }


def _row(check: TargetCheck) -> dict[str, Any]:
    variants = [{**asdict(variant), "passed": variant.passed} for variant in check.variants]
    return {**asdict(check), "passed": check.passed, "variants": variants}
