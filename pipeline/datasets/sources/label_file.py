"""Images with a CSV file of their labels -> ``ImageList``. No image is read.

The first line names the columns. One column names the images, relative to the data's folder; an
optional column "split" contains train, val or test. A single other column is the class of each
image; several are attributes, 1 or 0 (or 1 or -1, true or false, yes or no) each. A first column
without a name, the row numbers of pandas, is ignored. Names are compared in one Unicode form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import NO_SPLIT
from pipeline.datasets.examples import some
from pipeline.datasets.sources.image_files import Files, note_files, walk
from pipeline.datasets.sources.image_list import LEFT_OUT_NAME, SPLIT_WORDS, ImageList, LeftOut
from pipeline.datasets.sources.label_columns import label_columns, labels_of
from pipeline.datasets.sources.label_table import LabelTable, Rows, read_table, with_group_columns
from pipeline.datasets.sources.names import ImageNames, composed
from pipeline.errors import DataError
from pipeline.recipe import DataOptions


def read_label_file(root: Path, path: Path, options: DataOptions) -> ImageList:
    """Read the labels of the images below ``root``; what has no row or no image is in the result.

    Raises DataError, naming file and line, when the file is not a CSV with a header, when a label
    is unknown, and when nothing can be learned (no image, or a single class).
    """
    files = walk(root)
    image_names = ImageNames(files.images)
    table = with_group_columns(read_table(path, image_names), options)
    chosen = label_columns(table, options)
    row_of, unusable, misspelled = _match(table, image_names)
    if not row_of:
        _refuse_no_image(root, path, files, unusable)
    names_in_order = sorted(row_of)
    rows = [row_of[name] for name in names_in_order]
    labels, names, notes = labels_of(table, chosen, rows, options)
    notes += note_files(files, _inside(path, root))
    if misspelled:
        notes.append(
            f"{len(misspelled):,} rows of {path.name} spell the image's name in another case or "
            f"Unicode form than the folder, and are matched: {some(misspelled)}."
        )
    if unlisted := sorted(set(files.images) - row_of.keys()):
        notes.append(
            f"{len(unlisted):,} images have no row in {path.name} and are left out "
            f"({LEFT_OUT_NAME} has them all): {some(unlisted)}."
        )
    return ImageList(
        root, tuple(names_in_order), labels, names, _splits(table, rows), tuple(unusable),
        tuple(notes), tuple(LeftOut(name, f"has no row in {path.name}") for name in unlisted),
        _groups(table, rows), table.group_columns,
    )  # fmt: skip


def _match(
    table: LabelTable, image_names: ImageNames
) -> tuple[dict[str, tuple[int, list[str]]], list[LeftOut], list[str]]:
    """Return the row of each present image, the rows without an image, and the images that their
    rows spell differently. Raises DataError for two rows of one image."""
    row_of: dict[str, tuple[int, list[str]]] = {}
    unusable: list[LeftOut] = []
    misspelled: list[str] = []
    for line, cells in table.rows:
        name = image_names.find(cells[table.file_column])
        if name in row_of:
            raise DataError(
                f"{table.path}, line {line}: a second row for {name}; expected one for each image. "
                "Remove one of them."
            )
        if name in image_names:
            row_of[name] = (line, cells)
            if not image_names.is_as_written(cells[table.file_column], name):
                misspelled.append(name)
        else:
            unusable.append(LeftOut(name, f"does not exist ({table.path.name}, line {line})"))
    return row_of, unusable, misspelled


def _refuse_no_image(root: Path, path: Path, files: Files, rows: Sequence[LeftOut]) -> None:
    what = f"none of {len(rows):,} rows names" if rows else "there is no row that names"
    example = f"{rows[0].file!r} in {path.name}, " if rows else ""
    image = f"{files.images[0]!r}" if files.images else "no image"
    raise DataError(
        f"{path}: {what} an image in {root} ({example}{image} in the folder). Paths in the file "
        "are relative to the folder of the images."
    )


def _inside(path: Path, root: Path) -> str | None:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return None


def _groups(table: LabelTable, rows: Rows) -> tuple[str, ...] | None:
    column = table.group_column
    if column is None:
        return None
    for line, cells in sorted(rows):
        if not cells[column]:
            raise DataError(
                f"{table.path}, line {line}: no {table.header[column]}; expected the group of each "
                "image, as data.group_column says. Fill it in, or remove the row."
            )
    return tuple(composed(cells[column]) for _, cells in rows)


def _splits(table: LabelTable, rows: Rows) -> NDArray[np.int8]:
    if table.split_column is None:
        return np.full(len(rows), NO_SPLIT, np.int8)
    words: Mapping[str, int] = {**SPLIT_WORDS, "0": 0, "1": 1, "2": 2}  # CelebA's numbers
    splits = np.empty(len(rows), np.int8)
    for row, (line, cells) in sorted(enumerate(rows), key=lambda each: each[1][0]):
        word = cells[table.split_column].lower()
        if word not in words:
            raise DataError(
                f"{table.path}, line {line}: {table.header[table.split_column]} is {word!r}; "
                "expected train, val or test."
            )
        splits[row] = words[word]
    return splits
