"""Images with a CSV file of their labels -> ``ImageList``. Reads no image.

The first line names the columns. One column names the images, relative to the data's folder; a
column "split", if there is one, says train, val or test. Of the others, one alone is the class of
each image; several are attributes, 1 or 0 (or 1 or -1, true or false) each. A first column without
a name, the row numbers that pandas writes, is not read.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.class_folders import check_names, check_shown
from pipeline.datasets.image_files import SUFFIXES, Files, note_files, some, walk
from pipeline.datasets.image_list import LEFT_OUT_NAME, NO_SPLIT, SPLIT_WORDS, ImageList, LeftOut
from pipeline.errors import DataError
from runtime.regular_file import open_regular

FILE_COLUMNS = (
    "file", "filename", "file_name", "image", "image_id", "image_path", "img", "path", "filepath",
    "name", "id",
)  # fmt: skip
_SAMPLE = 200  # rows that are looked at to find the column of images
_SPLIT_COLUMNS = ("split", "partition", "subset", "set")
_DELIMITERS = ",;\t"
_TRUTH = {"1": 1, "0": 0, "-1": 0, "1.0": 1, "0.0": 0, "-1.0": 0, "true": 1, "false": 0}


@dataclass(frozen=True)
class Columns:
    """Which columns to read; None: found from the header."""

    labels: tuple[str, ...] | None = None  # names, and order, of the classes
    attributes: tuple[str, ...] | None = None  # columns of 0 and 1
    label_column: str | None = None  # the column of classes


@dataclass(frozen=True)
class _Table:
    """The file's cells, and what each column is for."""

    path: Path
    header: tuple[str, ...]
    rows: list[tuple[int, list[str]]]  # (line, cells)
    file_column: int
    split_column: int | None


def read_label_file(root: Path, path: Path, columns: Columns = Columns()) -> ImageList:  # frozen
    """Rows without an image and images without a row are told in the result.

    Raises DataError, naming file and line, when the file is no CSV with a header, when a label is
    unknown, and when nothing can be learned (no image, one class only).
    """
    files = walk(root)
    table = _read(path, files)
    chosen = _label_columns(table, columns)
    several = columns.attributes is not None or len(chosen) > 1
    if several and columns.labels is not None:
        raise DataError(
            f"data.labels names classes, but {path.name} has the attributes "
            f"{some([table.header[i] for i in chosen])}. Take data.labels out, or give the one "
            "column of classes with data.label_column."
        )
    known = set(files.images)
    found: dict[str, tuple[int, list[str]]] = {}
    unusable: list[LeftOut] = []
    for line, cells in table.rows:
        name = _image_of(cells[table.file_column], known)
        if name in found:
            raise DataError(
                f"{path}, line {line}: a second row for {name}; expected one for each image. Take "
                "one of them out."
            )
        if name in known:
            found[name] = (line, cells)
        else:
            unusable.append(LeftOut(name, f"is not there ({path.name}, line {line})"))
    if not found:
        _refuse_no_image(root, path, files, unusable)
    rows = [found[name] for name in sorted(found)]
    if several:
        labels, names = _attributes(table, chosen, rows)
    else:
        labels, names = _classes(table, chosen[0], rows, columns.labels)
    notes = list(note_files(files, _inside(path, root)))
    if unlisted := sorted(known - found.keys()):
        notes.append(
            f"{len(unlisted):,} images have no row in {path.name} and are left out "
            f"({LEFT_OUT_NAME} has them all): {some(unlisted)}."
        )
    return ImageList(
        root, tuple(sorted(found)), labels, names, _splits(table, rows), tuple(unusable),
        tuple(notes), tuple(LeftOut(name, f"has no row in {path.name}") for name in unlisted),
    )  # fmt: skip


# --- the file -------------------------------------------------------------------------------


def _read(path: Path, files: Files) -> _Table:
    try:
        with (
            open_regular(path) as data,
            io.TextIOWrapper(data, encoding="utf-8-sig", newline="") as file,  # a mark is no name
        ):
            first = file.readline()
            file.seek(0)
            delimiter = max(_DELIMITERS, key=first.count)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {exc}.") from exc
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise DataError(f"{path} is empty; expected a header and a row for each image.")
    header, rows = tuple(lines[0][1]), lines[1:]
    for number, cells in rows:
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {number}: {len(cells)} cells; expected {len(header)}, as in the "
                f"header. Quote cells that hold a {delimiter!r}."
            )
    if len(header) > 2 and not header[0] and all(cells[0].isdecimal() for _, cells in rows):
        header, rows = header[1:], [(number, cells[1:]) for number, cells in rows]
    known = set(files.images)
    _check_header(path, header, known)
    lowered = [name.lower() for name in header]
    split_column = next((lowered.index(name) for name in _SPLIT_COLUMNS if name in lowered), None)
    file_column = _file_column(lowered, split_column, rows, known)
    return _Table(path, header, rows, file_column, split_column)


def _file_column(
    header: Sequence[str],
    split_column: int | None,
    rows: Sequence[tuple[int, list[str]]],
    known: set[str],
) -> int:
    """The column whose cells name the most images; of equal ones, the first by FILE_COLUMNS.

    Different images are counted: a column of 0 and 1 may name 0.png and 1.png, again and again.
    """
    usual = [header.index(name) for name in FILE_COLUMNS if name in header]
    columns = [*usual, *(i for i in range(len(header)) if i not in (*usual, split_column))]
    sample = [cells for _, cells in rows[:: len(rows) // _SAMPLE + 1]]

    def images(column: int) -> int:
        return len({_image_of(cells[column], known) for cells in sample} & known)

    return max(columns, key=images)


def _check_header(path: Path, header: tuple[str, ...], known: set[str]) -> None:
    if any(cell.lower().endswith(SUFFIXES) or _image_of(cell, known) in known for cell in header):
        raise DataError(
            f"{path} begins with {', '.join(header)[:80]!r}, which names an image; expected a "
            "header that names the columns, such as file,label. Add one as the first line."
        )
    if len(set(header)) != len(header) or "" in header:
        raise DataError(
            f"{path} has the columns {', '.join(map(repr, header))}; expected distinct names."
        )
    if len(header) < 2:
        raise DataError(
            f"{path} has one column, {header[0]!r}; expected at least two, such as file,label."
        )


def _image_of(cell: str, known: set[str]) -> str:
    """The file that a cell means: as it stands, or with an ending that it leaves out."""
    name = PurePosixPath(cell.replace("\\", "/")).as_posix()  # "./a.jpg" is a.jpg
    if name in known:
        return name
    return next((name + ending for ending in SUFFIXES if name + ending in known), name)


def _refuse_no_image(root: Path, path: Path, files: Files, rows: Sequence[LeftOut]) -> None:
    what = f"of {len(rows):,} rows none names" if rows else "there is no row, so none names"
    example = f"{rows[0].file!r} in {path.name}, " if rows else ""
    there = f"{files.images[0]!r}" if files.images else "no image"
    raise DataError(
        f"{path}: {what} an image in {root} ({example}{there} in the folder). Paths in the file "
        "are relative to the folder of the images."
    )


def _inside(path: Path, root: Path) -> str | None:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return None


# --- its columns ----------------------------------------------------------------------------


def _label_columns(table: _Table, columns: Columns) -> tuple[int, ...]:
    """Indices of the columns that hold labels."""
    used = {table.file_column, table.split_column}
    if columns.label_column is not None and columns.attributes is not None:
        raise DataError(
            "data.label_column names a column of classes, data.attributes columns of 0 and 1; "
            "give one of them."
        )
    if columns.label_column is not None:
        return (_column(table, "data.label_column", columns.label_column),)
    if columns.attributes is not None:
        if not columns.attributes or len(set(columns.attributes)) != len(columns.attributes):
            raise DataError(
                f"data.attributes = {list(columns.attributes)}; expected distinct names, at least "
                "one."
            )
        return tuple(_column(table, "data.attributes", name) for name in columns.attributes)
    found = tuple(i for i in range(len(table.header)) if i not in used)
    if not found:
        raise DataError(
            f"{table.path} has no column of labels, only {some(list(table.header))}. Add one of "
            "classes, or some of 0 and 1."
        )
    return found


def _column(table: _Table, key: str, name: str) -> int:
    if name in table.header:
        return table.header.index(name)
    near = difflib.get_close_matches(name, table.header, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(table.header)}."
    raise DataError(f"{key}: {table.path} has no column {name!r}; {hint}")


def _classes(
    table: _Table,
    column: int,
    rows: Sequence[tuple[int, list[str]]],
    wanted: Sequence[str] | None,
) -> tuple[NDArray[Any], tuple[str, ...]]:
    for line, cells in rows:
        if not cells[column]:
            raise DataError(
                f"{table.path}, line {line}: no {table.header[column]}; expected a class. Fill it "
                "in, or take the row out."
            )
        check_shown(f"{table.path}, line {line}: the {table.header[column]}", cells[column])
    found = sorted({cells[column] for _, cells in rows}, key=_numbers_first)
    if len(found) < 2:
        raise DataError(
            f"{table.path} gives every image the {table.header[column]} {found[0]!r}; expected "
            "two or more classes."
        )
    names = found if wanted is None else check_names("data.labels", wanted, found)
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[cells[column]] for _, cells in rows], np.int64), tuple(names)


def _numbers_first(name: str) -> tuple[bool, int, str]:
    """Sorts "2" before "10"."""
    is_number = name.isascii() and name.isdigit()
    return (not is_number, int(name) if is_number else 0, name)


def _attributes(
    table: _Table, chosen: Sequence[int], rows: Sequence[tuple[int, list[str]]]
) -> tuple[NDArray[Any], tuple[str, ...]]:
    names = tuple(table.header[i] for i in chosen)
    for name in names:
        check_shown(f"{table.path}: the column", name)
    values = np.empty((len(rows), len(chosen)), np.uint8)
    for row, (line, cells) in enumerate(rows):
        for column, index in enumerate(chosen):
            truth = _TRUTH.get(cells[index].lower())
            if truth is None:
                raise DataError(
                    f"{table.path}, line {line}: {table.header[index]} is {cells[index]!r}; "
                    "expected 1 or 0 (or 1 or -1), since there are several columns of labels. "
                    "Name those that are attributes with data.attributes, or the one column of "
                    "classes with data.label_column."
                )
            values[row, column] = truth
    return values, names


def _splits(table: _Table, rows: Sequence[tuple[int, list[str]]]) -> NDArray[np.int8]:
    if table.split_column is None:
        return np.full(len(rows), NO_SPLIT, np.int8)
    words: Mapping[str, int] = {**SPLIT_WORDS, "0": 0, "1": 1, "2": 2}  # CelebA's numbers
    splits = np.empty(len(rows), np.int8)
    for row, (line, cells) in enumerate(rows):
        word = cells[table.split_column].lower()
        if word not in words:
            raise DataError(
                f"{table.path}, line {line}: {table.header[table.split_column]} is {word!r}; "
                "expected train, val or test."
            )
        splits[row] = words[word]
    return splits
