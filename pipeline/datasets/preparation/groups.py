"""Groups with images in several splits, judged as ``data.groups_across_splits`` says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import SPLITS
from pipeline.datasets.examples import some
from pipeline.datasets.preparation.preparation import Preparation
from pipeline.datasets.sources.image_list import LeftOut
from pipeline.datasets.splitting import in_several_splits, less_protected

_FAR_OFF = 0.5  # of the share that was asked for, above and below: worth a note


def judge_groups(
    prep: Preparation,
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
        prep.note(f"None of the {count:,} {what} is in more than one split.")
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
    policy = prep.options.groups_across_splits
    return drop if prep.judge_crossing(found, policy, "groups_across_splits", dropped) else []


def note_shares(
    prep: Preparation, groups: Sequence[str], splits: NDArray[np.int8], drawn: Sequence[int]
) -> None:
    """How many groups and images each split has, and which of the ``drawn`` splits is far from its
    share, since a group is never parted."""
    images = np.bincount(splits, minlength=len(SPLITS))
    counts = group_counts(groups, splits)
    parts = [f"{counts[name]:,} {name} ({images[i]:,} images)" for i, name in enumerate(SPLITS)]
    prep.note(f"{len(set(groups)):,} groups, none of them parted by drawing: {', '.join(parts)}.")
    shares = {1: prep.options.val_share, 2: prep.options.test_share}
    (largest, size), *_ = Counter(groups).most_common(1)
    for split in drawn:
        share = images[split] / images.sum()
        if abs(share - shares[split]) > _FAR_OFF * shares[split]:
            prep.note(
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
