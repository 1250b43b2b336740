"""Images with a CSV file of their labels -> ``ImageList``. Reads no image.

The first line names the columns. One column names the images, relative to the data's folder; a
column "split", if there is one, says train, val or test. Of the others, one alone is the class of
each image; several are attributes, 1 or 0 (or 1 or -1, true or false, yes or no) each. A first
column without a name, the row numbers that pandas writes, is not read. Names are compared in one
Unicode form.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.preparation.groups import is_group_column
from pipeline.datasets.sources.class_folders import check_names, check_shown
from pipeline.datasets.sources.image_files import SUFFIXES, Files, note_files, some, walk
from pipeline.datasets.sources.image_list import (
    LEFT_OUT_NAME,
    NO_SPLIT,
    SPLIT_WORDS,
    ImageList,
    LeftOut,
)
from pipeline.datasets.sources.names import ImageNames, composed, note_alike, note_spellings
from pipeline.errors import DataError
from runtime.regular_file import open_regular

FILE_COLUMNS = (
    "file", "filename", "file_name", "image", "image_id", "image_path", "img", "path", "filepath",
    "name", "id",
)  # fmt: skip
_SAMPLE = 200  # rows that are looked at to find the column of images
_SPLIT_COLUMNS = ("split", "partition", "subset", "set")
_DELIMITERS = ",;\t"
_TRUTH = {
    "1": 1, "0": 0, "-1": 0, "1.0": 1, "0.0": 0, "-1.0": 0, "true": 1, "false": 0, "yes": 1,
    "no": 0, "y": 1, "n": 0, "t": 1, "f": 0,
}  # fmt: skip
_Rows = Sequence[tuple[int, list[str]]]  # (line, cells)


@dataclass(frozen=True)
class Columns:
    """Which columns to read; None: found from the header."""

    labels: tuple[str, ...] | None = None  # names, and order, of the classes
    attributes: tuple[str, ...] | None = None  # columns of 0 and 1
    label_column: str | None = None  # the column of classes
    one_hot: bool = False  # columns of 0 and 1 are classes, one 1 in each row
    tags_separator: str | None = None  # between the attributes in a cell of label_column
    group_column: str | None = None  # what must not be parted between splits


@dataclass(frozen=True)
class _Table:
    """The file's cells, and what each column is for."""

    path: Path
    header: tuple[str, ...]
    rows: _Rows
    file_column: int
    split_column: int | None
    group_column: int | None = None
    group_columns: tuple[str, ...] = ()  # others that are called as those of groups are


def read_label_file(root: Path, path: Path, columns: Columns = Columns()) -> ImageList:  # frozen
    """Rows without an image and images without a row are told in the result.

    Raises DataError, naming file and line, when the file is no CSV with a header, when a label is
    unknown, and when nothing can be learned (no image, one class only).
    """
    files = walk(root)
    known = ImageNames(files.images)
    table = _with_groups(_read(path, known), columns)
    chosen = _label_columns(table, columns)
    found, unusable, misspelled = _match(table, known)
    if not found:
        _refuse_no_image(root, path, files, unusable)
    names_in_order = sorted(found)
    rows = [found[name] for name in names_in_order]
    labels, names, notes = _labels(table, chosen, rows, columns)
    notes += note_files(files, _inside(path, root))
    if misspelled:
        notes.append(
            f"{len(misspelled):,} rows of {path.name} write the image's name in another case or "
            f"Unicode form than the folder does, and are matched: {some(misspelled)}."
        )
    if unlisted := sorted(set(files.images) - found.keys()):
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
    table: _Table, known: ImageNames
) -> tuple[dict[str, tuple[int, list[str]]], list[LeftOut], list[str]]:
    """The row of each image that is there, the rows whose image is not, and the images that their
    rows spell in another way. Raises DataError for two rows of one image."""
    found: dict[str, tuple[int, list[str]]] = {}
    unusable: list[LeftOut] = []
    misspelled: list[str] = []
    for line, cells in table.rows:
        name = known.find(cells[table.file_column])
        if name in found:
            raise DataError(
                f"{table.path}, line {line}: a second row for {name}; expected one for each image. "
                "Take one of them out."
            )
        if name in known:
            found[name] = (line, cells)
            if not known.is_as_written(cells[table.file_column], name):
                misspelled.append(name)
        else:
            unusable.append(LeftOut(name, f"is not there ({table.path.name}, line {line})"))
    return found, unusable, misspelled


# --- the file -------------------------------------------------------------------------------


def _read(path: Path, known: ImageNames) -> _Table:
    try:
        with (
            open_regular(path) as data,
            io.TextIOWrapper(
                data, encoding="utf-8-sig", newline=""
            ) as file,  # the mark is not part of a name
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
    header, rows = tuple(map(composed, lines[0][1])), lines[1:]
    for number, cells in rows:
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {number}: {len(cells)} cells; expected {len(header)}, as in the "
                f"header. Quote cells that hold a {delimiter!r}."
            )
    if len(header) > 2 and not header[0] and all(cells[0].isdecimal() for _, cells in rows):
        header, rows = header[1:], [(number, cells[1:]) for number, cells in rows]
    _check_header(path, header, known)
    lowered = [name.lower() for name in header]
    split_column = next((lowered.index(name) for name in _SPLIT_COLUMNS if name in lowered), None)
    file_column = _file_column(lowered, split_column, rows, known)
    return _Table(path, header, rows, file_column, split_column)


def _file_column(
    header: Sequence[str],
    split_column: int | None,
    rows: _Rows,
    known: ImageNames,
) -> int:
    """The column whose cells name the most images; of equal ones, the first by FILE_COLUMNS.

    Different images are counted: a column of 0 and 1 may name 0.png and 1.png, again and again.
    """
    usual = [header.index(name) for name in FILE_COLUMNS if name in header]
    columns = [*usual, *(i for i in range(len(header)) if i not in (*usual, split_column))]
    sample = [cells for _, cells in rows[:: len(rows) // _SAMPLE + 1]]

    def images(column: int) -> int:
        return len({name for cells in sample if (name := known.find(cells[column])) in known})

    return max(columns, key=images)


def _check_header(path: Path, header: tuple[str, ...], known: ImageNames) -> None:
    if any(cell.lower().endswith(SUFFIXES) or known.find(cell) in known for cell in header):
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


def _with_groups(table: _Table, columns: Columns) -> _Table:
    """The table with the column of groups that was asked for, or else those that look like one."""
    if columns.group_column is not None:
        column = _column(table, "data.group_column", columns.group_column)
        return replace(table, group_column=column)
    asked = {*(columns.attributes or ()), columns.label_column}
    used = {table.file_column, table.split_column}
    candidates = [
        i
        for i, name in enumerate(table.header)
        if i not in used and name not in asked and is_group_column(name) and _repeats(table, i)
    ]
    others = set(range(len(table.header))) - used - set(candidates)
    if not others:  # whom a picture shows may be what is to be learned
        return table
    return replace(table, group_columns=tuple(table.header[i] for i in candidates))


def _repeats(table: _Table, column: int) -> bool:
    """Whether the column names several groups of several rows, with more than yes and no."""
    values = {cells[column] for _, cells in table.rows}
    return 2 < len(values) <= len(table.rows) / 2


def _label_columns(table: _Table, columns: Columns) -> tuple[int, ...]:
    """Indices of the columns that hold labels."""
    used = {table.file_column, table.split_column, table.group_column}
    used |= {table.header.index(name) for name in table.group_columns}
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
    name = composed(name)
    if name in table.header:
        return table.header.index(name)
    near = difflib.get_close_matches(name, table.header, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(table.header)}."
    raise DataError(f"{key}: {table.path} has no column {name!r}; {hint}")


def _labels(
    table: _Table, chosen: Sequence[int], rows: _Rows, columns: Columns
) -> tuple[NDArray[Any], tuple[str, ...], list[str]]:
    """Labels as ImageList has them, their names, and what there is to say about them."""
    several = columns.attributes is not None or len(chosen) > 1
    if several and columns.tags_separator is not None:
        raise DataError(
            f"data.tags_separator needs the one column of tags, and {table.path.name} has the "
            f"columns {some([table.header[i] for i in chosen])}. Name it with data.label_column."
        )
    if several and columns.labels is not None:
        raise DataError(
            f"data.labels names classes, but {table.path.name} has the attributes "
            f"{some([table.header[i] for i in chosen])}. Take data.labels out, or give the one "
            "column of classes with data.label_column."
        )
    if several:
        labels, names = _attributes(table, chosen, rows)
        if columns.one_hot:
            return _one_hot(table, labels, rows), names, list(note_alike(names))
        return labels, names, list(note_alike(names, "attributes"))
    if columns.one_hot:
        raise DataError(
            f"data.one_hot needs several columns of 0 and 1, and {table.path.name} has "
            f"{table.header[chosen[0]]} alone. Name them with data.attributes."
        )
    if columns.tags_separator is not None:
        labels, names = _tags(table, chosen[0], rows, columns.tags_separator)
        return labels, names, list(note_alike(names, "attributes"))
    return _classes(table, chosen[0], rows, columns.labels)


def _classes(
    table: _Table, column: int, rows: _Rows, wanted: Sequence[str] | None
) -> tuple[NDArray[Any], tuple[str, ...], list[str]]:
    for line, cells in sorted(rows):
        if not cells[column]:
            raise DataError(
                f"{table.path}, line {line}: no {table.header[column]}; expected a class. Fill it "
                "in, or take the row out."
            )
        check_shown(f"{table.path}, line {line}: the {table.header[column]}", cells[column])
    found = sorted({composed(cells[column]) for _, cells in rows}, key=_numbers_first)
    if len(found) < 2:
        raise DataError(
            f"{table.path} gives every image the {table.header[column]} {found[0]!r}; expected "
            "two or more classes."
        )
    asked = None if wanted is None else [composed(name) for name in wanted]
    names = found if asked is None else check_names("data.labels", asked, found)
    index = {name: i for i, name in enumerate(names)}
    labels = np.array([index[composed(cells[column])] for _, cells in rows], np.int64)
    notes = [*note_spellings({cells[column] for _, cells in rows}), *note_alike(names)]
    everywhere = Counter(composed(cells[column]) for _, cells in table.rows if cells[column])
    if lost := [
        f"{name!r} ({everywhere[name]:,} rows)" for name in everywhere if name not in index
    ]:
        notes.append(
            f"Classes of which {table.path.name} has rows and the folder no image, so that they "
            f"are NOT learned: {some(lost)}."
        )
    return labels, tuple(names), notes


def _tags(
    table: _Table, column: int, rows: _Rows, separator: str
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Each tag of a cell is an attribute; an empty cell has none."""
    if not any(separator in cells[column] for _, cells in rows):
        raise DataError(
            f"{table.path}: no cell of {table.header[column]} holds the {separator!r} of "
            "data.tags_separator. Correct it, or take it out where a cell is one class."
        )
    tags = [
        {composed(tag.strip()) for tag in cells[column].split(separator)} - {""}
        for _, cells in rows
    ]
    names = sorted(set().union(*tags), key=_numbers_first)
    if len(names) < 2:
        raise DataError(
            f"{table.path}: {table.header[column]} has {len(names)} tags between "
            f"{separator!r}; expected two or more. Correct data.tags_separator."
        )
    for name in names:
        check_shown(f"{table.path}: the tag", name)
    return np.array([[name in row for name in names] for row in tags], np.uint8), tuple(names)


def _numbers_first(name: str) -> tuple[bool, int, str]:
    """Sorts "2" before "10"."""
    is_number = name.isascii() and name.isdigit()
    return (not is_number, int(name) if is_number else 0, name)


def _one_hot(table: _Table, values: NDArray[Any], rows: _Rows) -> NDArray[Any]:
    """int64 [N] classes of uint8 [N, classes]; raises DataError where not exactly one is 1."""
    ones = values.sum(axis=1)
    wrong = [(line, int(count)) for (line, _), count in zip(rows, ones, strict=True) if count != 1]
    if wrong:
        line, count = min(wrong)
        raise DataError(
            f"{table.path}, line {line}: {count} of the columns of classes are 1; expected exactly "
            f"one, as data.one_hot says ({len(wrong):,} rows are so). Correct them, or set "
            "data.one_hot=false for attributes that may occur together."
        )
    return np.asarray(values.argmax(axis=1), np.int64)


def _attributes(
    table: _Table, chosen: Sequence[int], rows: _Rows
) -> tuple[NDArray[Any], tuple[str, ...]]:
    names = tuple(table.header[i] for i in chosen)
    for name in names:
        check_shown(f"{table.path}: the column", name)
    values = np.empty((len(rows), len(chosen)), np.uint8)
    for row, (line, cells) in sorted(enumerate(rows), key=lambda each: each[1][0]):
        for column, index in enumerate(chosen):
            truth = _TRUTH.get(cells[index].lower())
            if truth is None:
                raise DataError(
                    f"{table.path}, line {line}: {table.header[index]} is {cells[index]!r}; "
                    "expected 1 or 0 (or 1 or -1, yes or no), since there are several columns of "
                    "labels. Name those that are attributes with data.attributes, or the one "
                    "column of classes with data.label_column (init: --column)."
                )
            values[row, column] = truth
    return values, names


def _groups(table: _Table, rows: _Rows) -> tuple[str, ...] | None:
    column = table.group_column
    if column is None:
        return None
    for line, cells in sorted(rows):
        if not cells[column]:
            raise DataError(
                f"{table.path}, line {line}: no {table.header[column]}; expected the group of each "
                "image, as data.group_column says. Fill it in, or take the row out."
            )
    return tuple(composed(cells[column]) for _, cells in rows)


def _splits(table: _Table, rows: _Rows) -> NDArray[np.int8]:
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
