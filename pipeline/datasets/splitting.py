"""Which image is for what: splits drawn by content, and what must not be in two of them (copies of
an image, photographs of a person). Knows neither files nor recipes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.image_list import NO_SPLIT

TRAIN, VAL, TEST = range(3)  # as in arrays.SPLITS
_ROUNDING = 1e-6  # rows; ten times 0.1 is a little less than 1


def order_by_content(keys: Sequence[bytes], seed: int) -> list[int]:
    """Rows in an order that follows from content and ``seed`` alone, copies side by side."""
    ranks = [hashlib.sha256(b"%d:" % seed + key).digest() for key in keys]
    return sorted(range(len(keys)), key=lambda row: (ranks[row], row))


def fill_splits(
    keys: Sequence[bytes],
    labels: NDArray[Any],
    given: NDArray[np.int8],
    shares: tuple[float, float],
    seed: int,
) -> NDArray[np.int8]:
    """The split of each row: the given one, and where no row at all is given val or test, drawn.

    Drawn are ``shares`` (of val, of test) of what is not in a given val or test, of every class of
    labels [N] alike, or of every rarest label of labels [N, L].
    """
    wanted = [
        0.0 if np.any(given == split) else share
        for split, share in zip((VAL, TEST), shares, strict=True)
    ]
    splits = given.copy()
    if any(wanted):
        rows = np.flatnonzero((given == NO_SPLIT) | (given == TRAIN))
        multi_class = labels.ndim == 1
        splits[rows] = draw_splits(
            [keys[int(row)] for row in rows],
            labels[rows] if multi_class else rarest_label(labels[rows]),
            (wanted[0], wanted[1]),
            seed,
            at_least_one=multi_class,
        )
    return splits


def draw_splits(
    keys: Sequence[bytes],
    strata: NDArray[np.int64],
    shares: tuple[float, float],
    seed: int,
    at_least_one: bool,
) -> NDArray[np.int8]:
    """The split of each row, int8 [N]: ``shares`` of every stratum go to (val, test).

    With ``at_least_one``, each stratum is rounded by itself, and val and test get something of it
    wherever their share is not 0. Without, what rounding leaves is owed and given by the next
    stratum, so that the shares of all rows are right however small the strata are; the smallest
    come first, since large ones can pay.

    Rows with one key (copies of one image) get one split. Neither the names nor the order of the
    images matter, only their content and ``seed``; ``seed`` decides which rows a split gets, but
    not how many while there are no copies.
    """
    splits = np.full(len(keys), TRAIN, np.int8)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row in order_by_content(keys, seed):
        groups[keys[row]].append(row)
    by_stratum: dict[int, list[list[int]]] = defaultdict(list)
    for rows in groups.values():
        by_stratum[int(strata[rows].min())].append(rows)
    owed = {TEST: 0.0, VAL: 0.0}
    for members in sorted(by_stratum.values(), key=_size):
        remaining = members
        for split, share in ((TEST, shares[1]), (VAL, shares[0])):
            wanted = share * _size(members)
            owed[split] = round(wanted) if at_least_one else owed[split] + wanted
            chosen = _choose(remaining, owed[split])
            if at_least_one and share > 0 and remaining and not chosen:
                chosen = {min(range(len(remaining)), key=lambda i: len(remaining[i]))}
            owed[split] -= sum(len(remaining[i]) for i in chosen)
            for i in chosen:
                splits[remaining[i]] = split
            remaining = [rows for i, rows in enumerate(remaining) if i not in chosen]
    return splits


def _size(groups: Sequence[Sequence[int]]) -> int:
    return sum(map(len, groups))


def _choose(groups: Sequence[Sequence[int]], owed: float) -> set[int]:
    """Which groups to take, from the first on: each that brings their rows nearer to what is owed.
    The last one is left to train unless all of it is owed, so that train has rare labels too."""
    chosen: set[int] = set()
    for i, rows in enumerate(groups):
        last = len(chosen) == len(groups) - 1
        if owed > (len(rows) if last else len(rows) / 2) - _ROUNDING:
            chosen.add(i)
            owed -= len(rows)
    return chosen


def rarest_label(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The stratum of each row of labels [N, L]: its rarest label, or L for none.

    What is rare decides whether a split can be judged at all, so that is what is spread evenly (the
    idea of Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-label Data", 2011, in
    one pass).
    """
    counts = np.append(labels.sum(axis=0, dtype=np.int64), len(labels) + 1)
    present = np.concatenate([labels, np.ones((len(labels), 1), np.uint8)], axis=1)
    rarity: NDArray[np.int64] = np.where(present == 1, counts, len(labels) + 2)
    return np.asarray(rarity.argmin(axis=1), np.int64)


def in_several_splits(
    keys: Sequence[Hashable], splits: NDArray[np.int8] | NDArray[np.uint8]
) -> list[list[int]]:
    """The rows of each key that occurs in more than one split, in the order of the first rows."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        groups[key].append(row)
    return [rows for rows in groups.values() if len({int(splits[row]) for row in rows}) > 1]


def less_protected(
    groups: Sequence[Sequence[int]], splits: NDArray[np.int8] | NDArray[np.uint8]
) -> list[int]:
    """The rows to drop so that no group is in two splits: test keeps its images, then val."""
    return [
        row
        for rows in groups
        for row in rows
        if splits[row] != max(int(splits[other]) for other in rows)
    ]
