"""What belongs together beyond copies of an image: everything of one person, patient, writer or
recording session. Where the groups come from, and what crosses splits. Reads no image."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import SPLITS
from pipeline.datasets.preparation.preparation import Job
from pipeline.datasets.sources.image_files import some
from pipeline.datasets.sources.image_list import ImageList, LeftOut
from pipeline.datasets.splitting import TEST, TRAIN, in_several_splits, less_protected
from pipeline.errors import DataError
from pipeline.recipe import DataOptions

_FEWEST = 3  # groups of a class, for a proposal: one for each split
_FAR_OFF = 0.5  # of the share that was asked for, above and below: worth a note
# words of file names that are groups by themselves, with a number behind them: P03, subject-7
_SPOKEN = re.compile(
    r"(p|s|u|w|id|pat|patient|sub|subj|subject|person|user|writer|speaker|participant|session|"
    r"case|animal)-?\d+",
    re.ASCII | re.IGNORECASE,
)


def with_groups(listed: ImageList, options: DataOptions) -> ImageList:
    """The list with the groups that ``group_pattern`` finds in its paths, and with the images of
    ``test_group`` given to test. Raises DataError where a path has no group, or test_group none."""
    if options.group_pattern is not None:
        listed = replace(listed, groups=groups_of(listed.files, options.group_pattern))
    if options.test_group is None:
        return listed
    wanted = unicodedata.normalize("NFC", options.test_group)
    if wanted not in (listed.groups or ()):
        known = sorted(set(listed.groups or ()))
        raise DataError(
            f"data.test_group = {options.test_group!r} is not a group; there are "
            f"{some(known) or 'none'}."
        )
    splits = listed.splits.copy()
    splits[splits == TEST] = TRAIN  # the one group is the test split, whatever was given
    splits[[group == wanted for group in listed.groups or ()]] = TEST
    return replace(listed, splits=splits)


def groups_of(files: Sequence[str], pattern: str) -> tuple[str, ...]:
    """What the pattern's one group matches in each path; raises DataError where it does not."""
    found = [re.search(pattern, unicodedata.normalize("NFC", file)) for file in files]
    names = [match.group(1) if match else None for match in found]
    if lacking := [file for file, name in zip(files, names, strict=True) if not name]:
        raise DataError(
            f"data.group_pattern = {pattern!r} finds no group in {len(lacking):,} of "
            f"{len(files):,} paths: {some(lacking)}; expected a match, with something in "
            "its parentheses, in each path relative to data.root. Widen it, or take those images "
            "out of the folder."
        )
    return tuple(str(name) for name in names)


# --- judging --------------------------------------------------------------------------------


def judge_groups(
    job: Job,
    files: Sequence[str],
    groups: Sequence[Hashable],
    splits: NDArray[np.int8] | NDArray[np.uint8],
    what: str,
) -> list[int]:
    """The rows to drop so that no group is in two splits; none, unless the options ask for it.

    ``what`` is the plural of a group: "people". Raises DataError when the options refuse it.
    """
    count = len(set(groups))
    crossing = in_several_splits(groups, splits)
    if not crossing:
        job.note(f"None of the {count:,} {what} is in more than one split.")
        return []
    named = some([str(groups[rows[0]]) for rows in crossing])
    found = (
        f"{len(crossing):,} of {count:,} {what} have images in more than one split "
        f"({sum(map(len, crossing)):,} of {len(files):,} images): {named}"
    )
    drop = less_protected(crossing, splits)
    dropped = [
        LeftOut(
            files[row], f"{SPLITS[splits[row]]}: {groups[row]} of the {what} is in a later split"
        )
        for row in drop
    ]
    policy = job.options.across_groups
    return drop if job.judge_crossing(found, policy, "groups_across_splits", dropped) else []


def note_shares(
    job: Job,
    groups: Sequence[str],
    splits: NDArray[np.int8],
    drawn: Sequence[int],
) -> None:
    """How many groups and images each split has, and which of the ``drawn`` splits is far from its
    share, since a group is never parted."""
    images = np.bincount(splits, minlength=len(SPLITS))
    counts = group_counts(groups, splits)
    parts = [f"{counts[name]:,} {name} ({images[i]:,} images)" for i, name in enumerate(SPLITS)]
    job.note(f"{len(set(groups)):,} groups, none of them parted by drawing: {', '.join(parts)}.")
    shares = {1: job.options.val_share, 2: job.options.test_share}
    (largest, size), *_ = Counter(groups).most_common(1)
    for split in drawn:
        share = images[split] / images.sum()
        if abs(share - shares[split]) > _FAR_OFF * shares[split]:
            job.note(
                f"The {SPLITS[split]} split has {share:.0%} of the images where data."
                f"{SPLITS[split]}_share asks for {shares[split]:.0%}: there are "
                f"{len(set(groups)):,} groups, and the largest, {largest}, has {size:,} of "
                f"{len(groups):,} images. data.test_group tests with one group by name."
            )


def group_counts(
    groups: Sequence[Hashable], splits: NDArray[np.int8] | NDArray[np.uint8]
) -> dict[str, int]:
    """How many groups each split has images of."""
    return {
        name: len({group for group, split in zip(groups, splits, strict=True) if split == i})
        for i, name in enumerate(SPLITS)
    }


# --- proposing ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Suggestion:
    """Groups that nobody named, found in the names of files."""

    pattern: str  # for data.group_pattern
    groups: int
    examples: tuple[str, ...]
    sure: bool  # whether the names say so: P03, subject-7


def suggest_pattern(listed: ImageList) -> Suggestion | None:
    """The part of the paths that looks like the name of a person, a patient, a session: letters
    that repeat over several images, are not the same everywhere, and do not follow the class.

    Looked at are the folder of an image below that of its class, and the words of its name between
    ``_``, ``-``, blanks and dots. A number alone may as well count the images, so it is not taken.
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
    for place in range(min(map(len, words)) if words else 0):
        last = min(map(len, words)) - 1 == place
        names = [word[place] for word in words]
        if not (last and place == 0) and _is_like_groups(listed, names):
            before = r"[^_\-. /]+[_\-. ]+" * place
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
    if listed.task == "multi-label":
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
    """Whether a column is called as those of groups are: patient_id, Subject, writer no."""
    return _COLUMN.fullmatch(re.sub(r"[^a-z0-9]", "", name.lower())) is not None
