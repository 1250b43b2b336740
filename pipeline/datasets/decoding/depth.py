"""Facts about images that decoding to 8 bits hides: 16-bit values, of which few may be used, and
further frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.datasets.decoding.picture import Facts
from pipeline.datasets.examples import some

FULL = 65535  # the largest value of 16 bits
_LITTLE = 1 << 14  # 16-bit pictures with all values below this use at most 64 of 256 levels
_HALF = 1 << 15  # below: half of the levels
_FEWEST_BITS = 8


# --- 16 bits --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Depth:
    """The 16-bit pictures of a set."""

    gray: Mapping[str, int]  # file -> its largest value
    color: Mapping[str, int]  # file -> largest value; Pillow reads only the upper 8 bits of these

    @property
    def top(self) -> int:
        """The largest value of any; 0 for none."""
        return max((*self.gray.values(), *self.color.values()), default=0)

    @property
    def proposal(self) -> int | None:
        """The white level to propose: the largest number with as many bits as are used. None where
        all bits are used, no picture has 16 bits, or some are in color, which cannot be scaled."""
        top = 0 if self.color else max(self.gray.values(), default=0)
        return (1 << max(top.bit_length(), _FEWEST_BITS)) - 1 if 0 < top < _HALF else None

    def refusal(self, white_level: int | None) -> str | None:
        """Return why images with this scale can't be learned from; None if they can."""
        if white_level is not None or not 0 < self.top < _LITTLE:
            return None
        left = self.top * 256 // (FULL + 1) + 1
        problem = (
            f"{len(self.gray) + len(self.color):,} images have 16 bits and no value above "
            f"{self.top:,}. Scaled from {FULL:,} they are nearly black: {left} of 256 levels "
            "remain"
        )
        if self.proposal is None:
            return (
                f"{problem}. Pillow reads only the upper 8 bits of 16-bit colors. Save these files "
                f"with 8 bits, scaled from their white: {some(sorted(self.color))}."
            )
        return (
            f"{problem}. Set preprocess.white_level={self.proposal} ({self.proposal.bit_length()} "
            f"bits); the device will scale alike. If they are meant to be this dark, set {FULL}."
        )

    def notes(self, white_level: int | None) -> tuple[str, ...]:
        """Return remarks on 16-bit pictures that are not refused."""
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
                "If their camera has fewer bits, they look nearly black to the model."
            )
        elif self.top < _HALF and white_level is None and self.proposal is not None:
            notes.append(
                "None of them uses the upper half of the range; preprocess.white_level="
                f"{self.proposal} would."
            )
        if self.color:
            notes.append(
                f"{len(self.color):,} images have 16-bit colors, of which Pillow reads the upper "
                f"8 bits, here and on the device: {some(sorted(self.color))}."
            )
        return tuple(notes)


def depth_of(files: Sequence[str], facts: Mapping[int, Facts]) -> Depth:
    """Return the 16-bit pictures among ``files``; the keys of ``facts`` are rows."""
    peaks = {row: each for row, each in facts.items() if each.peak is not None}
    return Depth(
        {files[row]: each.peak or 0 for row, each in peaks.items() if not each.deep_color},
        {files[row]: each.peak or 0 for row, each in peaks.items() if each.deep_color},
    )


# --- frames ---------------------------------------------------------------------------------


def note_frames(files: Sequence[str], facts: Mapping[int, Facts]) -> tuple[str, ...]:
    """Return a remark on files with more than one picture; () without any."""
    several = [files[row] for row, each in sorted(facts.items()) if each.frames]
    if not several:
        return ()
    return (
        f"{len(several):,} files hold more than one frame or page, of which the first is used, "
        f"here and on the device: {some(several)}. To use the others, save them as separate "
        "files.",
    )
