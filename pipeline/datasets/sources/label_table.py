"""The cells of a CSV file of labels, and the columns for images, splits and groups."""

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
_SAMPLE = 200  # rows in which the column of images is searched
_SPLIT_COLUMNS = ("split", "partition", "subset", "set")
_DELIMITERS = ",;\t"
Rows = Sequence[tuple[int, list[str]]]  # (line, cells)


@dataclass(frozen=True)
class LabelTable:
    """The file's cells, and the purpose of each column."""

    path: Path
    header: tuple[str, ...]
    rows: Rows
    file_column: int
    split_column: int | None
    group_column: int | None = None
    group_columns: tuple[str, ...] = ()  # unused columns with usual names of groups


def read_table(path: Path, image_names: ImageNames) -> LabelTable:
    """Read the file; ``image_names`` are those of its folder. Raises DataError where it is not CSV
    in UTF-8 with a header."""
    try:
        with (
            open_regular(path) as data,
            io.TextIOWrapper(
                data, encoding="utf-8-sig", newline=""
            ) as file,  # without a byte order mark
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
    _check_header(path, header, image_names)
    lowered = [name.lower() for name in header]
    split_column = next((lowered.index(name) for name in _SPLIT_COLUMNS if name in lowered), None)
    file_column = _file_column(lowered, split_column, rows, image_names)
    return LabelTable(path, header, rows, file_column, split_column)


def _file_column(
    header: Sequence[str],
    split_column: int | None,
    rows: Rows,
    image_names: ImageNames,
) -> int:
    """Return the column whose cells name the most images; of equal ones, the first by FILE_COLUMNS.

    Different images are counted, since a column of 0 and 1 may name 0.png and 1.png repeatedly.
    """
    usual = [header.index(name) for name in FILE_COLUMNS if name in header]
    columns = [*usual, *(i for i in range(len(header)) if i not in (*usual, split_column))]
    sample = [cells for _, cells in rows[:: len(rows) // _SAMPLE + 1]]

    def images(column: int) -> int:
        return len(
            {name for cells in sample if (name := image_names.find(cells[column])) in image_names}
        )

    return max(columns, key=images)


def _check_header(path: Path, header: tuple[str, ...], image_names: ImageNames) -> None:
    if any(
        cell.lower().endswith(SUFFIXES) or image_names.find(cell) in image_names for cell in header
    ):
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
    """Return the table with the requested column of groups, or else with likely ones."""
    if options.group_column is not None:
        column = column_of(table, "data.group_column", options.group_column)
        return replace(table, group_column=column)
    requested = {*(options.attributes or ()), options.label_column}
    used = {table.file_column, table.split_column}
    candidates = [
        i
        for i, name in enumerate(table.header)
        if i not in used and name not in requested and is_group_column(name) and _repeats(table, i)
    ]
    others = set(range(len(table.header))) - used - set(candidates)
    if not others:  # the person may be the class
        return table
    return replace(table, group_columns=tuple(table.header[i] for i in candidates))


def _repeats(table: LabelTable, column: int) -> bool:
    """Return whether the column names more than two groups, of two rows on average or more."""
    values = {cells[column] for _, cells in table.rows}
    return 2 < len(values) <= len(table.rows) / 2


def column_of(table: LabelTable, key: str, name: str) -> int:
    """Return the index of the column that ``key`` names; raises DataError for none."""
    name = composed(name)
    if name in table.header:
        return table.header.index(name)
    near = difflib.get_close_matches(name, table.header, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(table.header)}."
    raise DataError(f"{key}: {table.path} has no column {name!r}; {hint}")
