"""Splits drawn by content. Copies of an image, and images of one group (a person, a patient), are
always in one split."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import NO_SPLIT, TEST, TRAIN, VAL
from pipeline.tasks import task_of_labels

_ROUNDING = 1e-6  # pictures; ten times 0.1 is a little less than 1


def order_by_content(keys: Sequence[bytes], seed: int) -> list[int]:
    """Return the rows in an order that depends only on content and ``seed``. Copies are spread like
    other rows, so that any first part is a sample of all."""
    copies: dict[bytes, int] = defaultdict(int)
    ranks: list[tuple[bytes, int]] = []
    for key in keys:
        ranks.append((_rank(seed, key, copies[key]), len(ranks)))
        copies[key] += 1
    return [row for _, row in sorted(ranks)]


def _rank(seed: int, key: bytes, copy: int = 0) -> bytes:
    return hashlib.sha256(b"%d:" % seed + key + (b":%d" % copy if copy else b"")).digest()


def fill_splits(
    keys: Sequence[bytes],
    labels: NDArray[Any],
    given: NDArray[np.int8],
    shares: tuple[float, float],
    seed: int,
    groups: Sequence[str] | None = None,
) -> NDArray[np.int8]:
    """Return the split of each row: the given one, or a drawn one where no row is given val or
    test.

    The ``shares`` (of val, of test) are drawn from the rows that are not in a given val or test, of
    every stratum of the labels, [N] or [N, L]. ``groups`` names the group of each row; None: there
    are none.
    """
    drawn = [
        0.0 if np.any(given == split) else share
        for split, share in zip((VAL, TEST), shares, strict=True)
    ]
    splits = given.copy()
    if any(drawn):
        rows = np.flatnonzero((given == NO_SPLIT) | (given == TRAIN))
        task = task_of_labels(labels)
        splits[rows] = draw_splits(
            [keys[int(row)] for row in rows],
            task.strata(labels[rows]),
            (drawn[0], drawn[1]),
            seed,
            at_least_one=task.exclusive,
            groups=None if groups is None else [groups[int(row)] for row in rows],
        )
    return splits


@dataclass(frozen=True)
class _Unit:
    """Rows that share a split."""

    rows: tuple[int, ...]
    pictures: dict[int, int]  # stratum -> how many different pictures

    @property
    def size(self) -> int:
        """The number of different pictures; copies teach and test nothing more."""
        return sum(self.pictures.values())


def draw_splits(
    keys: Sequence[bytes],
    strata: NDArray[np.int64],
    shares: tuple[float, float],
    seed: int,
    at_least_one: bool,
    groups: Sequence[str] | None = None,
) -> NDArray[np.int8]:
    """Return the split of each row, int8 [N]: ``shares`` of the different pictures of every stratum
    go to (val, test); copies of one picture count once, however many they are.

    With ``at_least_one``, each stratum is rounded by itself, and val and test get something of it
    unless their share is 0. Otherwise the remainder of rounding is owed by the next stratum, so
    that the shares of all rows are right even for small strata; the smallest come first, since
    large ones can pay.

    Rows with one key (copies of one image) get one split, and so do rows of one group; groups that
    share a copy are one group. Groups of several pictures are assigned one by one, so that the
    shares come as near as possible. Neither the names nor the order of the images matter, only
    their content, what is grouped with what, and ``seed``.
    """
    units = _units(keys, strata, seed, groups)
    splits = np.full(len(keys), TRAIN, np.int8)
    if all(unit.size == 1 for unit in units):
        chosen = _draw_pictures(units, shares, at_least_one)
    else:
        chosen = _deal_groups(units, shares)
    for unit, split in zip(units, chosen, strict=True):
        splits[list(unit.rows)] = split
    return splits


def joined(keys: Sequence[bytes], groups: Sequence[str] | None) -> list[int]:
    """Return for each row the first row that it must share a split with: by its key, by its group,
    or by any chain of the two (union-find)."""
    parent = list(range(len(keys)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for names in (keys, groups or ()):
        first: dict[Hashable, int] = {}
        for row, name in enumerate(names):
            a, b = root(first.setdefault(name, row)), root(row)
            parent[max(a, b)] = min(a, b)
    return [root(row) for row in range(len(keys))]


def _units(
    keys: Sequence[bytes], strata: NDArray[np.int64], seed: int, groups: Sequence[str] | None
) -> list[_Unit]:
    """Return the rows that share a split, in the order of their first picture's content."""
    copies: dict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        copies[key].append(row)
    first = list(range(len(keys))) if groups is None else joined(keys, groups)
    members: dict[int, list[tuple[bytes, list[int]]]] = defaultdict(list)
    for key, rows in copies.items():
        members[first[rows[0]]].append((_rank(seed, key), rows))
    ranked = []
    stratum_of = strata.tolist()
    for pictures in members.values():
        strata_here: dict[int, int] = {}
        for _, rows in pictures:  # of copies with different labels, the lowest
            stratum = min(stratum_of[row] for row in rows) if rows[1:] else stratum_of[rows[0]]
            strata_here[stratum] = strata_here.get(stratum, 0) + 1
        every = tuple(row for _, rows in pictures for row in rows)
        ranked.append((min(pictures)[0], _Unit(every, strata_here)))
    return [unit for _, unit in sorted(ranked, key=lambda each: each[0])]


# --- single pictures ------------------------------------------------------------------------


def _draw_pictures(
    units: Sequence[_Unit], shares: tuple[float, float], at_least_one: bool
) -> list[int]:
    """Return the split of each unit, where each is one picture, perhaps with copies."""
    by_stratum: dict[int, list[int]] = defaultdict(list)
    for number, unit in enumerate(units):
        by_stratum[next(iter(unit.pictures))].append(number)
    splits = [TRAIN] * len(units)
    owed = {TEST: 0.0, VAL: 0.0}
    for members in sorted(by_stratum.values(), key=len):
        remaining = _often_repeated_last(members, units, max(shares))
        for split, share in ((TEST, shares[1]), (VAL, shares[0])):
            exact = share * len(members)
            owed[split] = round(exact) if at_least_one else owed[split] + exact
            count = _how_many(len(remaining), owed[split])
            if at_least_one and share > 0 and remaining:
                count = max(count, 1)
            owed[split] -= count
            for number in remaining[:count]:
                splits[number] = split
            remaining = remaining[count:]
    return splits


def _often_repeated_last(members: Sequence[int], units: Sequence[_Unit], share: float) -> list[int]:
    """Return the pictures in their order, but those that fill a whole split with copies last: such
    a picture alone would decide the figures of that split, so it is for train."""
    most = share * sum(len(units[number].rows) for number in members)

    def fills_a_split(number: int) -> bool:
        return 1 < len(units[number].rows) > most

    return sorted(members, key=fills_a_split)


def _how_many(pictures: int, owed: float) -> int:
    """Return how many pictures to take of those owed. The last one is left to train unless all of
    it is owed, so that train has rare labels, too."""
    count = 0
    while count < pictures:
        last = count == pictures - 1
        if owed - count <= (1 if last else 0.5) - _ROUNDING:
            break
        count += 1
    return count


# --- groups ---------------------------------------------------------------------------------


def _deal_groups(units: Sequence[_Unit], shares: tuple[float, float]) -> list[int]:
    """Return the split of each unit, assigned from the largest on to the split that lacks most of
    its strata.

    This minimizes the squared distance from the shares, each stratum relative to its own size, as
    Sechidis, Tsoumakas and Vlahavas (2011) do for single rows. Then each split gets a group of
    every stratum that has enough of them.
    """
    numbers = sorted({stratum for unit in units for stratum in unit.pictures})
    column = {stratum: i for i, stratum in enumerate(numbers)}
    counts = np.zeros((len(units), len(numbers)))
    for row, unit in enumerate(units):
        for stratum, pictures in unit.pictures.items():
            counts[row, column[stratum]] = pictures
    counts /= counts.sum(axis=0)  # shares of each stratum
    # All pictures are one more stratum: each stratum may be right and the sum far off
    sizes = np.array([[unit.size] for unit in units], float)
    counts = np.hstack([counts, sizes / sizes.sum()])
    aim = np.array([1 - sum(shares), *shares])  # TRAIN, VAL, TEST
    missing = np.repeat(aim[:, None], counts.shape[1], axis=1)  # [3, strata]
    splits = np.full(len(units), TRAIN)
    for row in sorted(range(len(units)), key=lambda row: -units[row].size):
        splits[row] = int((missing @ counts[row] - (aim == 0) * 1e9).argmax())
        missing[splits[row]] -= counts[row]
    _improve(splits, counts, missing, aim)
    _spread(splits, counts, aim)
    return [int(split) for split in splits]


def _improve(
    splits: NDArray[np.int64],
    counts: NDArray[np.float64],
    missing: NDArray[np.float64],
    aim: NDArray[np.float64],
) -> None:
    """Move single groups, in place, as long as that brings the shares nearer to ``aim``."""
    every = np.arange(len(splits))
    squares = (counts**2).sum(axis=1)
    for _ in every:  # each move lessens the distance, so this ends anyway
        needs = counts @ missing.T  # [groups, 3]
        change = 2 * (squares[:, None] + needs[every, splits][:, None] - needs)
        change[every, splits] = 0
        change[:, aim == 0] = np.inf
        row, split = np.unravel_index(int(change.argmin()), change.shape)
        if change[row, split] >= -_ROUNDING * squares[row]:
            return
        missing[splits[row]] += counts[row]
        missing[split] -= counts[row]
        splits[row] = split


def _spread(
    splits: NDArray[np.int64], counts: NDArray[np.float64], aim: NDArray[np.float64]
) -> None:
    """Move groups, in place, until each split has one of every stratum with enough groups; train
    comes first, since what it lacks can't be learned. The move taken is the one that leaves the
    shares nearest to ``aim`` and takes no stratum from where it comes from."""
    needed = [split for split in (TRAIN, TEST, VAL) if aim[split] > 0]
    for stratum in np.argsort((counts > 0).sum(axis=0), kind="stable"):  # the rarest first
        holders = np.flatnonzero(counts[:, stratum] > 0).tolist()
        for split in needed:
            if np.any(splits[holders] == split):
                continue
            movable = [row for row in holders if _can_leave(row, splits, counts)]
            if movable:
                best = min(movable, key=lambda row: _distance(row, split, splits, counts, aim))
                splits[best] = split


def _can_leave(row: int, splits: NDArray[np.int64], counts: NDArray[np.float64]) -> bool:
    others = (splits == splits[row]) & (np.arange(len(splits)) != row)
    return bool(np.all((counts[row] == 0) | (counts[others] > 0).any(axis=0)))


def _distance(
    row: int,
    split: int,
    splits: NDArray[np.int64],
    counts: NDArray[np.float64],
    aim: NDArray[np.float64],
) -> float:
    moved = splits.copy()
    moved[row] = split
    present = np.stack([counts[moved == number].sum(axis=0) for number in range(len(aim))])
    return float(((present - aim[:, None]) ** 2).sum())


# --- what crosses splits ------------------------------------------------------------------


def in_several_splits(
    keys: Sequence[Hashable], splits: NDArray[np.int8] | NDArray[np.uint8]
) -> list[list[int]]:
    """Return the rows of each key that occurs in more than one split, in the order of the first
    rows."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        groups[key].append(row)
    return [rows for rows in groups.values() if len({int(splits[row]) for row in rows}) > 1]


def less_protected(
    groups: Sequence[Sequence[int]], splits: NDArray[np.int8] | NDArray[np.uint8]
) -> list[int]:
    """Return the rows to drop so that no group is in two splits: test keeps its images, then
    val."""
    return [
        row
        for rows in groups
        for row in rows
        if splits[row] != max(int(splits[other]) for other in rows)
    ]
