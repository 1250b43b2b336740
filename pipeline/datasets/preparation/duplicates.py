"""Copies of images, by their bytes and by the model's pixels: across splits, where they are judged
as ``data.duplicates_across_splits`` says, and within the whole set."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import SPLITS
from pipeline.datasets.examples import NAMED, some
from pipeline.datasets.preparation.preparation import Preparation
from pipeline.datasets.sources.image_list import LeftOut
from pipeline.datasets.splitting import in_several_splits, less_protected

DUPLICATES_NAME = "duplicates.csv"  # next to the arrays, if there are any
_NAMED = 3  # in the note
_MANY_SAME = 5  # images that are one picture to the model get a sentence


def judge_duplicates(
    prep: Preparation,
    files: Sequence[str],
    splits: NDArray[np.int8] | NDArray[np.uint8],
    digests: Sequence[bytes],
    pixels: Sequence[bytes],
) -> list[int]:
    """Return the rows to drop so that no image is in two splits; none, unless the options ask for
    it.

    ``files``, ``splits``, ``digests`` (of the bytes) and ``pixels`` (digests of the model's
    pixels) are given row by row. An image with another encoding, or one that shrinks to the same
    pixels, has other bytes but is the same image to the model. Raises DataError
    when the options refuse duplicates.
    """
    (prep.folder / DUPLICATES_NAME).unlink(missing_ok=True)  # of an earlier run
    groups = in_several_splits(pixels, splits)
    if not groups:
        return []
    _write_list(prep, groups, files, splits, digests)
    same_bytes = len(in_several_splits(digests, splits))
    examples = "; ".join(
        " = ".join(f"{files[row]} ({SPLITS[splits[row]]})" for row in rows)
        for rows in groups[:_NAMED]
    )
    many = len(groups) > 1
    how = "byte for byte"
    if same_bytes < len(groups):
        how = (
            f"{same_bytes:,} byte for byte and {len(groups) - same_bytes:,} with other bytes but "
            "the same pixels for the model"
        )
    what = (
        f"{len(groups):,} image{'s' * many} occur{'s' * (not many)} in more than one split, {how} "
        f"({DUPLICATES_NAME} has them all): {examples}{'; ...' * (len(groups) > _NAMED)}"
    )
    drop = less_protected(groups, splits)
    copy_of = {row: max(rows, key=lambda r: splits[r]) for rows in groups for row in rows}
    dropped = [
        LeftOut(files[row], f"{SPLITS[splits[row]]}: copy of {files[copy_of[row]]}") for row in drop
    ]
    policy = prep.options.duplicates_across_splits
    return drop if prep.judge_crossing(what, policy, "duplicates_across_splits", dropped) else []


def _write_list(
    prep: Preparation,
    groups: Sequence[Sequence[int]],
    files: Sequence[str],
    splits: NDArray[np.int8] | NDArray[np.uint8],
    digests: Sequence[bytes],
) -> None:
    path = prep.folder / DUPLICATES_NAME
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "file", "split", "sha256"))
        for number, rows in enumerate(groups, start=1):
            for row in rows:
                writer.writerow((number, files[row], SPLITS[splits[row]], digests[row].hex()))


# --- within the whole set ----------------------------------------------------------------------


def same_pictures(
    files: Sequence[str],
    keys: Sequence[bytes],
    level_of: Callable[[int], int | None],
    is_transparent: Callable[[int], bool],
) -> tuple[str, ...]:
    """Return a sentence for each picture that ``_MANY_SAME`` or more files are to the model.

    ``keys`` are hashes of the model's pixels. ``level_of(row)`` is the value of an image of one
    value, else None; ``is_transparent(row)`` says whether its file may have pixels laid over white.
    """
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        rows_of[key].append(row)
    sentences = []
    many = [rows for rows in rows_of.values() if len(rows) >= _MANY_SAME]
    for rows in sorted(many, key=len, reverse=True)[:_MANY_SAME]:
        level = level_of(rows[0])
        sentences.append(
            f"{len(rows):,} of {len(files):,} images look the same to the model "
            f"({some([files[row] for row in rows[:4]])})"
            + _of_one_value(level, is_transparent(rows[0]))
        )
    return tuple(sentences)


def _of_one_value(level: int | None, transparent: bool) -> str:
    if level is None:
        return ": copies of one picture, or pictures that shrink to the same pixels."
    name = {0: "black", 255: "white"}.get(level, "color")
    if transparent and level == 255:
        return (
            f": all {name}, because transparent pixels become white, here and on the device. Put "
            "them on a background of another color, or draw the shape from their alpha channel."
        )
    return f": one even {name}, with nothing to see. Look at the files."


def contradictions(
    files: Sequence[str], labels: NDArray[Any], keys: Sequence[bytes]
) -> tuple[str, ...]:
    """Return a sentence on pictures that occur with two labels, of which one is wrong; () for none.
    ``labels`` are [N] or [N, attributes], ``keys`` hashes of the pixels."""
    labels_of: dict[bytes, set[bytes]] = defaultdict(set)
    files_of: dict[bytes, list[str]] = defaultdict(list)
    for file, label, key in zip(files, labels, keys, strict=True):
        labels_of[key].add(np.asarray(label).tobytes())
        files_of[key].append(file)
    groups = [files_of[key] for key, different in labels_of.items() if len(different) > 1]
    if not groups:
        return ()
    examples = "; ".join(" = ".join(group[:NAMED]) for group in groups[:NAMED])
    return (
        f"{len(groups):,} image{'s have' if len(groups) > 1 else ' has'} copies with another "
        f"label, of which one is wrong: {examples}{'; ...' * (len(groups) > NAMED)}.",
    )
