"""The cells of a CSV file of labels, and what each column is for."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.datasets.sources.group_names import is_group_column
from pipeline.datasets.sources.image_files import SUFFIXES
from pipeline.datasets.sources.names import ImageNames, composed
from pipeline.errors import DataError
from pipeline.recipe import DataOptions
from runtime.regular_file import open_regular

FILE_COLUMNS = (
    "file", "filename", "file_name", "image", "image_id", "image_path", "img", "path", "filepath",
    "name", "id",
)  # fmt: skip
_SAMPLE = 200  # rows that are looked at to find the column of images
_SPLIT_COLUMNS = ("split", "partition", "subset", "set")
_DELIMITERS = ",;\t"
Rows = Sequence[tuple[int, list[str]]]  # (line, cells)


@dataclass(frozen=True)
class LabelTable:
    """The file's cells, and what each column is for."""

    path: Path
    header: tuple[str, ...]
    rows: Rows
    file_column: int
    split_column: int | None
    group_column: int | None = None
    group_columns: tuple[str, ...] = ()  # others that are called as those of groups are


def read_table(path: Path, known: ImageNames) -> LabelTable:
    """Read the file; ``known`` holds the images of its folder. Raises DataError where it is not CSV
    in UTF-8 with a header."""
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
    return LabelTable(path, header, rows, file_column, split_column)


def _file_column(
    header: Sequence[str],
    split_column: int | None,
    rows: Rows,
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


def with_group_columns(table: LabelTable, options: DataOptions) -> LabelTable:
    """The table with the column of groups that was asked for, or else those that look like one."""
    if options.group_column is not None:
        column = column_of(table, "data.group_column", options.group_column)
        return replace(table, group_column=column)
    asked = {*(options.attributes or ()), options.label_column}
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


def _repeats(table: LabelTable, column: int) -> bool:
    """Whether the column names several groups of several rows, with more than yes and no."""
    values = {cells[column] for _, cells in table.rows}
    return 2 < len(values) <= len(table.rows) / 2


def column_of(table: LabelTable, key: str, name: str) -> int:
    """Return the index of the column that ``key`` names; raises DataError for none."""
    name = composed(name)
    if name in table.header:
        return table.header.index(name)
    near = difflib.get_close_matches(name, table.header, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(table.header)}."
    raise DataError(f"{key}: {table.path} has no column {name!r}; {hint}")
