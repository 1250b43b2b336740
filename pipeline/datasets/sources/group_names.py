"""Groups of images of one person, patient, writer or recording session, named by a column or in the
paths of the files."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.datasets.arrays import TEST, TRAIN
from pipeline.datasets.examples import some
from pipeline.datasets.sources.image_list import ImageList
from pipeline.errors import DataError
from pipeline.recipe import DataOptions

_FEWEST = 3  # groups of a class for a suggestion: one for each split
# words in file names that name a group when a number follows: P03, subject-7
_SPOKEN = re.compile(
    r"(p|s|u|w|id|pat|patient|sub|subj|subject|person|user|writer|speaker|participant|session|"
    r"case|animal)-?\d+",
    re.ASCII | re.IGNORECASE,
)


def with_groups(listed: ImageList, options: DataOptions) -> ImageList:
    """Return the list with the groups that ``group_pattern`` finds in its paths, and with the
    images of ``test_group`` in the test split. Raises DataError for a path without a group and for
    an unknown ``test_group``."""
    if options.group_pattern is not None:
        listed = replace(listed, groups=groups_of(listed.files, options.group_pattern))
    if options.test_group is None:
        return listed
    test_group = unicodedata.normalize("NFC", options.test_group)
    if test_group not in (listed.groups or ()):
        names = sorted(set(listed.groups or ()))
        raise DataError(
            f"data.test_group = {options.test_group!r} is not a group; expected one of "
            f"{some(names) or 'none'}."
        )
    splits = listed.splits.copy()
    splits[splits == TEST] = TRAIN  # the group replaces a given test split
    splits[[group == test_group for group in listed.groups or ()]] = TEST
    return replace(listed, splits=splits)


def groups_of(files: Sequence[str], pattern: str) -> tuple[str, ...]:
    """Return the match of the pattern's one group in each path; raises DataError for no match."""
    matches = [re.search(pattern, unicodedata.normalize("NFC", file)) for file in files]
    names = [match.group(1) if match else None for match in matches]
    if lacking := [file for file, name in zip(files, names, strict=True) if not name]:
        raise DataError(
            f"data.group_pattern = {pattern!r} finds no group in {len(lacking):,} of "
            f"{len(files):,} paths: {some(lacking)}; expected a match, with something in "
            "its parentheses, in each path relative to data.root. Widen it, or remove those "
            "images from the folder."
        )
    return tuple(str(name) for name in names)


# --- proposing ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Suggestion:
    """Groups that the names of files suggest."""

    pattern: str  # for data.group_pattern
    groups: int
    examples: tuple[str, ...]
    sure: bool  # whether the names are clear: P03, subject-7


def suggest_pattern(listed: ImageList) -> Suggestion | None:
    """Return the part of the paths that looks like the name of a person, a patient or a session:
    letters that several images share, that differ between images, and that classes share.

    Candidates are the folder of an image below that of its class, and the words of its name between
    ``_``, ``-``, blanks and dots. A number alone may count the images, so it is not one.
    """
    folders = [re.search(r"([^/]+)/[^/]+$", file) for file in listed.files]
    deep = [file.count("/") for file in listed.files]
    if min(deep) >= 2 and all(folders):
        names = [match.group(1) for match in folders if match]
        if _is_like_groups(listed, names):
            return _suggestion(r"([^/]+)/[^/]+$", names)
    words = [
        re.split(r"[_\-. ]+", file.rpartition("/")[2].rpartition(".")[0]) for file in listed.files
    ]
    for position in range(min(map(len, words)) if words else 0):
        last = min(map(len, words)) - 1 == position
        names = [word[position] for word in words]
        if not (last and position == 0) and _is_like_groups(listed, names):
            before = r"[^_\-. /]+[_\-. ]+" * position
            return _suggestion(rf"(?:^|/){before}([^_\-. /]+)[^/]*$", names)
    return None


def _suggestion(pattern: str, names: Sequence[str]) -> Suggestion:
    distinct = sorted(set(names))
    sure = all(_SPOKEN.fullmatch(name) for name in distinct)
    return Suggestion(pattern, len(distinct), tuple(distinct[:3]), sure)


def _is_like_groups(listed: ImageList, names: Sequence[str]) -> bool:
    distinct = set(names)
    if len(distinct) < _FEWEST or 2 * len(distinct) > len(names) or not all(names):
        return False
    if not all(any(c.isalpha() for c in name) for name in distinct):
        return False
    if not listed.task.exclusive:
        return True
    of_class: dict[int, set[str]] = defaultdict(set)
    for label, name in zip(listed.labels.tolist(), names, strict=True):
        of_class[label].add(name)
    return min(map(len, of_class.values())) >= _FEWEST


_WORDS = (
    "patient", "subject", "person", "people", "participant", "individual", "identity", "writer",
    "speaker", "session", "recording", "volunteer", "donor", "animal", "client", "specimen",
    "scene", "video", "clip",
)  # fmt: skip
_COLUMN = re.compile(
    rf"(id)?({'|'.join(_WORDS)})s?(id|no|nr|num|number|name|code|key|uid|idx|index)?"
)


def is_group_column(name: str) -> bool:
    """Return whether a column has a usual name of groups: patient_id, Subject, writer no."""
    return _COLUMN.fullmatch(re.sub(r"[^a-z0-9]", "", name.lower())) is not None
