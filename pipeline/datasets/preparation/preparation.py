"""What every source of images needs while it is turned into arrays: the options, where to write,
whom to tell, and what has been told and left out so far."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.datasets.examples import some
from pipeline.datasets.sources.image_list import LEFT_OUT_NAME, LeftOut
from pipeline.errors import DataError
from pipeline.recipe import DataOptions, PreprocessOptions

UNKNOWN = "unknown"  # the default of data.license
_ABRIDGED = 10  # lines of an error message


@dataclass(frozen=True)
class Preparation:
    """The arguments of ``prepare``, and the notes so far."""

    options: DataOptions
    preprocess: PreprocessOptions
    preprocess_onnx: bytes
    seed: int
    folder: Path
    on_step: Callable[[str, int, int], None]
    on_note: Callable[[str], None]
    workers: int | None
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the model's pixels."""
        return (self.preprocess.height, self.preprocess.width, self.preprocess.channels)

    def note(self, text: str) -> None:
        """Tell the user now, and every reader of the report."""
        self.notes.append(text)
        self.on_note(text)

    def progress(self, task: str) -> Callable[[int, int], None]:
        """(done, total) -> the user, under the name of the task."""
        return lambda done, total: self.on_step(task, done, total)

    def license(self, known: str) -> str:
        """The recipe's word, or else what is known of the source."""
        return known if self.options.license == UNKNOWN else self.options.license

    def redistributable(self, known: bool) -> bool:
        """The recipe's word, or else what is known of the source."""
        return known if self.options.redistributable is None else self.options.redistributable

    def train_limit(self, available: int, generated: bool = False) -> int:
        """How many train images to use.

        When more are asked for than there are: all of a generated set, which is a stand-in anyway,
        with a note; else DataError.
        """
        wanted = self.options.train_images
        if wanted is None or wanted <= available:
            return available if wanted is None else wanted
        found = f"data.train_images = {wanted:,}, but the train split has {available:,}"
        if not generated:
            raise DataError(f"{found}. Ask for fewer, or leave data.train_images out to use all.")
        self.note(f"{found} drawn faces: all are used.")
        return available

    def judge_bad(self, bad: Sequence[LeftOut], total: int, root: Path) -> None:
        """Refuse bad images, or leave them out and say so, as ``data.bad_images`` has it."""
        if not bad:
            return
        lines = [f"{image.file}: {image.reason.rstrip('.')}" for image in bad[:_ABRIDGED]]
        if self.options.bad_images == "refuse":
            more = len(bad) - _ABRIDGED
            raise DataError(
                f"{len(bad):,} of {total:,} images cannot be decoded or used, of {root}:\n  "
                + "\n  ".join(lines)
                + (f"\n  and {more:,} more" if more > 0 else "")
                + "\nFetch these files again, take them away, or leave them out with "
                "--set data.bad_images=skip."
            )
        self.left_out.extend(bad)
        self.note(
            f"{len(bad):,} of {total:,} images cannot be decoded or used and are left out "
            f"({LEFT_OUT_NAME} has them all): {'; '.join(lines[:3])}{'; ...' * (len(bad) > 3)}."
        )

    def judge_crossing(
        self,
        what: str,
        policy: Literal["note", "refuse", "drop"],
        key: str,
        dropped: Sequence[LeftOut],
    ) -> bool:
        """Tell ``what`` occurs in more than one split, or refuse it; True: drop ``dropped``.

        ``key`` is the option whose value is ``policy``.
        """
        if policy == "refuse":
            raise DataError(
                f'{what}. Correct the splits, or set data.{key} to "drop" (train gives way to '
                'val, both to test) or "note".'
            )
        if policy == "note":
            self.note(f"{what}: val and test flatter the model.")
            return False
        self.note(
            f"{what}. {len(dropped):,} images were dropped from train and val ({LEFT_OUT_NAME} "
            f"has them all): {some([image.file for image in dropped])}."
        )
        self.left_out.extend(dropped)
        return True

    def write_left_out(self) -> None:
        """The list of what was left out, with reasons, beside the arrays."""
        path = self.folder / LEFT_OUT_NAME
        path.unlink(missing_ok=True)  # of an earlier run
        if self.left_out:
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(("file", "reason"))
                writer.writerows((image.file, image.reason) for image in self.left_out)


def hash_lines(lines: Iterable[str]) -> str:
    """SHA-256 of the lines, in hexadecimal."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
