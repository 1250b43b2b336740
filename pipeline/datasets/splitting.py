"""Which image is for what: splits drawn by content, and what must not be in two of them (copies of
an image, photographs of a person). Knows neither files nor recipes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

TRAIN, VAL, TEST = range(3)  # as in arrays.SPLITS


def order_by_content(keys: Sequence[bytes], seed: int) -> list[int]:
    """Rows in an order that follows from content and ``seed`` alone, copies side by side."""
    ranks = [hashlib.sha256(b"%d:" % seed + key).digest() for key in keys]
    return sorted(range(len(keys)), key=lambda row: (ranks[row], row))


def draw_splits(
    keys: Sequence[bytes],
    strata: NDArray[np.int64],
    shares: tuple[float, float],
    seed: int,
    at_least_one: bool,
) -> NDArray[np.int8]:
    """The split of each row, uint8 [N]: ``shares`` of every stratum go to (val, test).

    Rows with one key (copies of one image) get one split, that of the first of them. Neither the
    names nor the order of the images matter, only their content and ``seed``. With
    ``at_least_one``, val and test get something of every stratum, wherever their share is not 0.
    """
    splits = np.full(len(keys), TRAIN, np.int8)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row in order_by_content(keys, seed):
        groups[keys[row]].append(row)
    by_stratum: dict[int, list[list[int]]] = defaultdict(list)
    for rows in groups.values():
        by_stratum[int(strata[rows[0]])].append(rows)
    for members in by_stratum.values():
        total = sum(map(len, members))
        remaining = list(reversed(members))
        for split, share in ((TEST, shares[1]), (VAL, shares[0])):
            wanted = round(share * total)
            if at_least_one and share > 0:
                wanted = max(wanted, 1)
            taken = 0
            while taken < wanted and remaining:
                rows = remaining.pop()
                splits[rows] = split
                taken += len(rows)
    return splits


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
