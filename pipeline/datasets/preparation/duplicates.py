"""Images that occur in more than one split: found by their bytes and by what the model sees of
them, listed, and judged as ``data.duplicates_across_splits`` has it."""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import SPLITS
from pipeline.datasets.preparation.preparation import Job
from pipeline.datasets.sources.image_list import LeftOut
from pipeline.datasets.splitting import in_several_splits, less_protected

DUPLICATES_NAME = "duplicates.csv"  # beside the arrays, when there are any
_NAMED = 3  # in the note


def judge_duplicates(
    job: Job,
    files: Sequence[str],
    splits: NDArray[np.int8] | NDArray[np.uint8],
    digests: Sequence[bytes],
    pixels: Sequence[bytes],
) -> list[int]:
    """The rows to drop so that no image is in two splits; none, unless the options ask for it.

    ``files``, ``splits``, ``digests`` (of the bytes) and ``pixels`` (of what the model sees) are
    given row by row. Equal bytes are equal pixels; another encoding, or another image that shrinks
    to the same pixels, has those alone, and to the model that is the same image. Raises DataError
    when the options refuse duplicates.
    """
    (job.folder / DUPLICATES_NAME).unlink(missing_ok=True)  # of an earlier run
    groups = in_several_splits(pixels, splits)
    if not groups:
        return []
    _write_list(job, groups, files, splits, digests)
    same_bytes = len(in_several_splits(digests, splits))
    told = "; ".join(
        " = ".join(f"{files[row]} ({SPLITS[splits[row]]})" for row in rows)
        for rows in groups[:_NAMED]
    )
    many = len(groups) > 1
    how = "byte for byte"
    if same_bytes < len(groups):
        how = (
            f"{same_bytes:,} byte for byte and {len(groups) - same_bytes:,} with other bytes and "
            "the same pixels for the model"
        )
    what = (
        f"{len(groups):,} image{'s' * many} occur{'s' * (not many)} in more than one split, {how} "
        f"({DUPLICATES_NAME} has them all): {told}{'; ...' * (len(groups) > _NAMED)}"
    )
    drop = less_protected(groups, splits)
    copy_of = {row: max(rows, key=lambda r: splits[r]) for rows in groups for row in rows}
    dropped = [
        LeftOut(files[row], f"{SPLITS[splits[row]]}: copy of {files[copy_of[row]]}") for row in drop
    ]
    policy = job.options.duplicates_across_splits
    return drop if job.judge_crossing(what, policy, "duplicates_across_splits", dropped) else []


def _write_list(
    job: Job,
    groups: Sequence[Sequence[int]],
    files: Sequence[str],
    splits: NDArray[np.int8] | NDArray[np.uint8],
    digests: Sequence[bytes],
) -> None:
    path = job.folder / DUPLICATES_NAME
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "file", "split", "sha256"))
        for number, rows in enumerate(groups, start=1):
            for row in rows:
                writer.writerow((number, files[row], SPLITS[splits[row]], digests[row].hex()))
