"""The result of a verification, as values that become JSON. Standard library only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ran", "not run", "failed"]


@dataclass(frozen=True)
class Promise:
    """The difference between targets that a variant allows, with the reason."""

    bit_identical: bool  # its quantized tensors
    max_difference: float  # of probabilities, inclusive
    reason: str


@dataclass(frozen=True)
class VariantCheck:
    """One variant on one target, compared with this machine."""

    variant: str
    images: int
    tensors: int  # quantized tensors compared; 0 in a float file
    identical: bool | None  # all of them, bit for bit; None without any
    parts_at: str | None  # the first layer, from the input on, whose tensor differs
    largest_step: int  # largest difference of quantized values, in levels
    max_difference: float  # of probabilities
    agreement: float  # share of equal answers; of attributes, over images and labels
    worst_image: int  # the one with the largest difference
    taps_change_nothing: bool | None  # the copy with more outputs gives the same probabilities
    promise: Promise
    failures: tuple[str, ...]  # empty where the promise is kept

    @property
    def passed(self) -> bool:
        """True where the promise is kept."""
        return not self.failures


@dataclass(frozen=True)
class TargetCheck:
    """One target that ran, was not run, or failed."""

    target: str
    describes: str
    status: Status
    note: str = ""  # the reason why it was not run or failed, or a limit that was not applied
    command: str = ""
    seconds: float = 0.0  # of the check, not of a device
    emulated: bool = False
    about: dict[str, Any] = field(default_factory=dict)  # reported by the target itself
    pixels_identical: bool | None = None  # from preprocess.onnx and the golden images
    variants: tuple[VariantCheck, ...] = ()

    @property
    def passed(self) -> bool:
        """True unless it failed or broke a promise; a target that was not run does not count."""
        if self.status != "ran":
            return self.status == "not run"
        return self.pixels_identical is not False and all(v.passed for v in self.variants)


@dataclass(frozen=True)
class Verification:
    """The check of a bundle on all targets."""

    bundle: str
    bundle_id: str
    model: str
    synthetic: bool  # trained on generated images
    date: str
    images: str  # their source
    golden: str  # the result of the selftest here
    machine: str  # this machine and its libraries
    targets: tuple[TargetCheck, ...]
    preprocessing: str = ""  # the bundle's compared with that of its run
    whole_set: tuple[TargetCheck, ...] = ()  # --full: many images, last quantized tensors only

    @property
    def passed(self) -> bool:
        """True where every target that ran kept its promises, the selftest passed here, and
        preprocessing equals that of the bundle's run."""
        if self.preprocessing.startswith("failed"):
            return False
        rows = (*self.targets, *self.whole_set)
        return self.golden.startswith("passed") and all(row.passed for row in rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, including the verdicts."""
        return {
            **asdict(self),
            "passed": self.passed,
            "targets": [_row(check) for check in self.targets],
            "whole_set": [_row(check) for check in self.whole_set],
        }


def _row(check: TargetCheck) -> dict[str, Any]:
    variants = [{**asdict(variant), "passed": variant.passed} for variant in check.variants]
    return {**asdict(check), "passed": check.passed, "variants": variants}
