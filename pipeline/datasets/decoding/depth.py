"""What a set of images hides from whoever trusts it: 16 bits of which little is used, further
frames, pictures that are all the same to a model. Takes values, reads no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.datasets.decoding.picture import Facts
from pipeline.datasets.examples import some

FULL = 65535  # the largest value of 16 bits
_LITTLE = 1 << 14  # a set of 16-bit pictures whose values are all below: at most 64 of 256 levels
_HALF = 1 << 15  # below: half of the levels
_FEWEST_BITS = 8


# --- 16 bits --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Depth:
    """The 16-bit pictures of a set."""

    gray: Mapping[str, int]  # file -> its largest value
    color: Mapping[str, int]  # the same of files whose lower 8 bits Pillow does not read

    @property
    def top(self) -> int:
        """The largest value of any; 0 for none."""
        return max((*self.gray.values(), *self.color.values()), default=0)

    @property
    def proposal(self) -> int | None:
        """The white level to propose: the largest number of as many bits as are used; None: all
        are, there are no such pictures, or some are in colour, which no level can scale."""
        top = 0 if self.color else max(self.gray.values(), default=0)
        return (1 << max(top.bit_length(), _FEWEST_BITS)) - 1 if 0 < top < _HALF else None

    def refusal(self, white_level: int | None) -> str | None:
        """Why images that are scaled so can't be learned from; None: they can."""
        if white_level is not None or not 0 < self.top < _LITTLE:
            return None
        left = self.top * 256 // (FULL + 1) + 1
        found = (
            f"{len(self.gray) + len(self.color):,} images have 16 bits and no value above "
            f"{self.top:,}. Scaled from {FULL:,} they are nearly black: {left} of 256 levels are "
            "left"
        )
        if self.proposal is None:
            return (
                f"{found}; and of colours of 16 bits Pillow reads the upper 8 alone. Save them "
                f"with 8 bits, scaled from their white: {some(sorted(self.color))}."
            )
        return (
            f"{found}. Set preprocess.white_level={self.proposal} ({self.proposal.bit_length()} "
            f"bits), by which the device scales too; or {FULL}, if they are meant to be so dark."
        )

    def notes(self, white_level: int | None) -> tuple[str, ...]:
        """What to know where they are not refused."""
        notes = []
        white = white_level or FULL
        if self.gray:
            notes.append(
                f"{len(self.gray):,} images have 16 bits, the largest value is "
                f"{max(self.gray.values()):,}; they are scaled to 8 bits from {white:,} "
                f"({white.bit_length()} bits: preprocess.white_level), here and on the device."
            )
        dark = [file for file, peak in self.gray.items() if 0 < peak * 4 < white]
        if dark and self.top >= _LITTLE:
            notes.append(
                f"{len(dark):,} of them have no value above a quarter of {white:,}: {some(dark)}. "
                "If their camera has fewer bits, the model sees them nearly black."
            )
        elif self.top < _HALF and white_level is None and self.proposal is not None:
            notes.append(
                "None of them uses the upper half of the range; preprocess.white_level="
                f"{self.proposal} would."
            )
        if self.color:
            notes.append(
                f"{len(self.color):,} images have colours of 16 bits, of which Pillow reads the "
                f"upper 8, here and on the device: {some(sorted(self.color))}."
            )
        return tuple(notes)


def depth_of(files: Sequence[str], facts: Mapping[int, Facts]) -> Depth:
    """The 16-bit pictures among ``files``; ``facts`` by their row."""
    peaks = {row: each for row, each in facts.items() if each.peak is not None}
    return Depth(
        {files[row]: each.peak or 0 for row, each in peaks.items() if not each.deep_color},
        {files[row]: each.peak or 0 for row, each in peaks.items() if each.deep_color},
    )


# --- frames ---------------------------------------------------------------------------------


def note_frames(files: Sequence[str], facts: Mapping[int, Facts]) -> tuple[str, ...]:
    """Which files hold more than one picture."""
    several = [files[row] for row, each in sorted(facts.items()) if each.frames]
    if not several:
        return ()
    return (
        f"{len(several):,} files hold more than one frame or page, of which the first is used, "
        f"here and on the device: {some(several)}. Save the others as files of their own to use "
        "them.",
    )
