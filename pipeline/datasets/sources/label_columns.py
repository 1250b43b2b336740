"""Labels from the columns of a CSV file: one column of classes or of tags, or several columns of 0
and 1, which are attributes or, with one 1 in each row, classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.examples import some
from pipeline.datasets.sources.class_folders import check_names, check_shown
from pipeline.datasets.sources.label_table import LabelTable, Rows, column_of
from pipeline.datasets.sources.names import composed, note_alike, note_spellings
from pipeline.errors import DataError
from pipeline.recipe import DataOptions

_TRUTH = {
    "1": 1, "0": 0, "-1": 0, "1.0": 1, "0.0": 0, "-1.0": 0, "true": 1, "false": 0, "yes": 1,
    "no": 0, "y": 1, "n": 0, "t": 1, "f": 0,
}  # fmt: skip


def label_columns(table: LabelTable, options: DataOptions) -> tuple[int, ...]:
    """Return the indices of the columns with labels."""
    used = {table.file_column, table.split_column, table.group_column}
    used |= {table.header.index(name) for name in table.group_columns}
    if options.label_column is not None and options.attributes is not None:
        raise DataError(
            "data.label_column names a column of classes, data.attributes columns of 0 and 1; "
            "keep one of them."
        )
    if options.label_column is not None:
        return (column_of(table, "data.label_column", options.label_column),)
    if options.attributes is not None:
        if not options.attributes or len(set(options.attributes)) != len(options.attributes):
            raise DataError(
                f"data.attributes = {list(options.attributes)}; expected distinct names, at least "
                "one."
            )
        return tuple(column_of(table, "data.attributes", name) for name in options.attributes)
    columns = tuple(i for i in range(len(table.header)) if i not in used)
    if not columns:
        raise DataError(
            f"{table.path} has no column of labels, only {some(list(table.header))}. Add one "
            "of classes, or several of 0 and 1."
        )
    return columns


def labels_of(
    table: LabelTable, chosen: Sequence[int], rows: Rows, options: DataOptions
) -> tuple[NDArray[Any], tuple[str, ...], list[str]]:
    """Return labels as in ImageList, their names, and remarks on them."""
    several = options.attributes is not None or len(chosen) > 1
    if several and options.tags_separator is not None:
        raise DataError(
            f"data.tags_separator needs the one column of tags, and {table.path.name} has the "
            f"columns {some([table.header[i] for i in chosen])}. Name it with data.label_column."
        )
    if several and options.labels is not None:
        raise DataError(
            f"data.labels names classes, but {table.path.name} has the attributes "
            f"{some([table.header[i] for i in chosen])}. Remove data.labels, or name the one "
            "column of classes with data.label_column."
        )
    if several:
        labels, names = _attributes(table, chosen, rows)
        if options.one_hot:
            return _one_hot(table, labels, rows), names, list(note_alike(names))
        return labels, names, list(note_alike(names, "attributes"))
    if options.one_hot:
        raise DataError(
            f"data.one_hot needs several columns of 0 and 1, and {table.path.name} has "
            f"only {table.header[chosen[0]]}. Name them with data.attributes."
        )
    if options.tags_separator is not None:
        labels, names = _tags(table, chosen[0], rows, options.tags_separator)
        return labels, names, list(note_alike(names, "attributes"))
    return _classes(table, chosen[0], rows, options.labels)


def _classes(
    table: LabelTable, column: int, rows: Rows, requested: Sequence[str] | None
) -> tuple[NDArray[Any], tuple[str, ...], list[str]]:
    for line, cells in sorted(rows):
        if not cells[column]:
            raise DataError(
                f"{table.path}, line {line}: no {table.header[column]}; expected a class. Fill it "
                "in, or remove the row."
            )
        check_shown(f"{table.path}, line {line}: the {table.header[column]}", cells[column])
    present = sorted({composed(cells[column]) for _, cells in rows}, key=_numbers_first)
    if len(present) < 2:
        raise DataError(
            f"{table.path} gives every image the {table.header[column]} {present[0]!r}; expected "
            "two or more classes."
        )
    names = present
    if requested is not None:
        names = list(check_names("data.labels", [composed(name) for name in requested], present))
    index = {name: i for i, name in enumerate(names)}
    labels = np.array([index[composed(cells[column])] for _, cells in rows], np.int64)
    notes = [*note_spellings({cells[column] for _, cells in rows}), *note_alike(names)]
    everywhere = Counter(composed(cells[column]) for _, cells in table.rows if cells[column])
    if lost := [
        f"{name!r} ({everywhere[name]:,} rows)" for name in everywhere if name not in index
    ]:
        notes.append(
            f"Classes with rows in {table.path.name} but no image in the folder are NOT "
            f"learned: {some(lost)}."
        )
    return labels, tuple(names), notes


def _tags(
    table: LabelTable, column: int, rows: Rows, separator: str
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return each tag of a cell as an attribute; an empty cell has none."""
    if not any(separator in cells[column] for _, cells in rows):
        raise DataError(
            f"{table.path}: no cell of {table.header[column]} holds the {separator!r} of "
            "data.tags_separator. Correct it, or remove it if a cell is one class."
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
    """Return a key that sorts "2" before "10"."""
    is_number = name.isascii() and name.isdigit()
    return (not is_number, int(name) if is_number else 0, name)


def _one_hot(table: LabelTable, values: NDArray[Any], rows: Rows) -> NDArray[Any]:
    """Return int64 [N] classes from uint8 [N, classes]; raise DataError unless one is 1."""
    ones = values.sum(axis=1)
    wrong = [(line, int(count)) for (line, _), count in zip(rows, ones, strict=True) if count != 1]
    if wrong:
        line, count = min(wrong)
        raise DataError(
            f"{table.path}, line {line}: {count} of the columns of classes are 1; expected exactly "
            f"one, as data.one_hot says ({len(wrong):,} rows differ). Correct them, or set "
            "data.one_hot=false for attributes that may occur together."
        )
    return np.asarray(values.argmax(axis=1), np.int64)


def _attributes(
    table: LabelTable, chosen: Sequence[int], rows: Rows
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
                    "labels. Name the attributes with data.attributes, or the one column of "
                    "classes with data.label_column (init: --column)."
                )
            values[row, column] = truth
    return values, names
