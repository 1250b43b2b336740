"""Suggestions from the names of columns, files and labels: groups, classes in columns of 0 and 1,
several tags in one cell. No image is read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipeline.datasets.arrays import NO_SPLIT
from pipeline.datasets.examples import some
from pipeline.datasets.sources.group_names import Suggestion, suggest_pattern, with_groups
from pipeline.datasets.sources.image_list import ImageList
from pipeline.datasets.sources.read_list import read_list
from pipeline.datasets.splitting import in_several_splits
from pipeline.errors import DataError
from pipeline.recipe import DataOptions

_FEW_ROWS = 10  # with fewer, exactly one 1 in each row may be chance
_SEPARATORS = (";", "|", ",", " ")


def suggested(options: DataOptions) -> tuple[ImageList, DataOptions, tuple[str, ...]]:
    """Return the images, the options with the suggested ones, and a remark for each option that was
    or may be added. Raises DataError as ``read_list`` does."""
    listed = read_list(options)
    remarks: list[str] = []
    if listed.group_columns and listed.groups is None:
        options = options.model_copy(update={"group_column": listed.group_columns[0]})
        try:
            listed = read_list(options)
        except DataError as exc:  # for example an empty cell
            remarks.append(
                f"the column {options.group_column} may name groups, but is not used: {exc}"
            )
            options = options.model_copy(update={"group_column": None})
        else:
            remarks.append(_groups_remark(f"the column {options.group_column!r}", listed))
    elif (suggestion := suggest_pattern(listed)) is not None:
        if suggestion.sure:
            options = options.model_copy(update={"group_pattern": suggestion.pattern})
            listed = with_groups(listed, options)
            remarks.append(_groups_remark("the names of the files", listed))
        else:
            remarks.append(_pattern_remark(suggestion))
    if options.tags_separator is None and _is_one_hot(listed):
        options = options.model_copy(update={"one_hot": True})
        listed = read_list(options)
        remarks.append(
            f"each row has exactly one 1 in the columns {some(listed.names)}, so these are "
            "taken as classes: data.one_hot = true. If other images may have several, set it to "
            "false."
        )
    if options.label_file is not None and listed.task.exclusive:
        remarks += _tags_remark(listed.names)
    return listed, options, tuple(remarks)


def _groups_remark(where: str, listed: ImageList) -> str:
    rows = np.flatnonzero(listed.splits != NO_SPLIT)
    groups = listed.groups or ()
    parted = in_several_splits([groups[row] for row in rows], listed.splits[rows])
    crossing = (
        f" But {len(parted):,} have images in more than one of the given splits: val and test "
        "flatter the model (data.groups_across_splits)."
    )
    return (
        f"{where}: {len(set(groups)):,} groups ({some(sorted(set(groups)))}), whose images may "
        "resemble each other; drawn splits divide none of them (data.group_column, "
        "data.group_pattern)." + crossing * bool(parted)
    )


def _pattern_remark(suggestion: Suggestion) -> str:
    return (
        f"the names of the files may hold {suggestion.groups:,} groups "
        f"({some(suggestion.examples)}, ...). If images of one group resemble each other (a "
        f"person, a session), keep them in one split: data.group_pattern = '{suggestion.pattern}'."
    )


def _is_one_hot(listed: ImageList) -> bool:
    labels = listed.labels
    if listed.task.exclusive or labels.shape[1] < 2 or len(labels) < _FEW_ROWS:
        return False
    return bool((labels.sum(axis=1) == 1).all() and labels.any(axis=0).all())


def _tags_remark(names: Sequence[str]) -> list[str]:
    separator = next((each for each in _SEPARATORS if _looks_like_tags(names, each)), None)
    if separator is None:
        return []
    several = [repr(name) for name in names if separator in name]
    return [
        f"{some(several)} look like several tags in one cell, but are taken as classes that "
        "exclude each other. To make each tag an attribute: pipeline init ... --tags "
        f"{separator!r} (data.tags_separator = {separator!r})."
    ]


def _looks_like_tags(names: Sequence[str], separator: str) -> bool:
    """Return whether most parts of names occur in several names."""
    parts = [{part for part in re.split(re.escape(separator), name) if part} for name in names]
    if max(map(len, parts)) < 2 or len(names) < 3:
        return False
    counts = Counter(part for each in parts for part in each)
    return 2 * sum(count > 1 for count in counts.values()) >= len(counts)
