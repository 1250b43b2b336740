"""Anybody's images, in a folder for each class or with a CSV file of labels -> the arrays of
``arrays.py``.

Everything is decoded before anything is split, so that the splits follow from what the model sees:
copies of one image, in whatever encoding, stay together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import NO_SPLIT, SPLITS, TEST, VAL, Split, take_rows, write_split
from pipeline.datasets.decoding.decode import Decoded, Target, decode_files
from pipeline.datasets.decoding.depth import depth_of, note_frames
from pipeline.datasets.decoding.picture import facts_of, read_file
from pipeline.datasets.examples import some
from pipeline.datasets.info import DatasetInfo
from pipeline.datasets.preparation.duplicates import contradictions, judge_duplicates, same_pictures
from pipeline.datasets.preparation.groups import group_counts, judge_groups, note_shares
from pipeline.datasets.preparation.preparation import UNKNOWN, Preparation, hash_lines
from pipeline.datasets.preparation.split_checks import check_splits, note_constants
from pipeline.datasets.sources.image_files import escaped
from pipeline.datasets.sources.image_list import ImageList, LeftOut
from pipeline.datasets.sources.read_list import read_list
from pipeline.datasets.splitting import fill_splits, joined, order_by_content
from pipeline.errors import DataError
from pipeline.recipe import DataOptions

_DECODED = "decoded.npy"  # beside the arrays, until they are made of it
_REPEATED = 1.25  # images of a split for each different one: more are worth a note


@dataclass(frozen=True)
class _DecodedImages:
    """Images in use: where each is in the array of all, and its hashes."""

    listed: ImageList
    places: NDArray[np.int64]  # [N] rows of the array of all
    digests: tuple[bytes, ...]  # [N] SHA-256 of the files
    pixels: tuple[bytes, ...]  # [N] SHA-256 of what the model sees

    def take(self, rows: NDArray[np.int64]) -> _DecodedImages:
        """Those in the given rows, in that order."""
        return _DecodedImages(
            self.listed.take(rows),
            self.places[rows],
            tuple(self.digests[row] for row in rows),
            tuple(self.pixels[row] for row in rows),
        )


def arrays_from_images(prep: Preparation) -> DatasetInfo:
    """Write the splits of the images that the options name; raises DataError."""
    listed = read_list(prep.options)
    for text in (*listed.notes, *_note_unused_keys(prep.options, listed)):
        prep.note(text)
    prep.left_out.extend(listed.unlisted)
    everything = prep.folder / _DECODED
    try:
        images = _decode(prep, listed, everything)
        images = _judge_groups(prep, _split(prep, images), listed)
        drop = judge_duplicates(
            prep, images.listed.files, images.listed.splits, images.digests, images.pixels
        )
        images = images.take(np.delete(np.arange(len(images.places)), drop))
        _note_contradictions(prep, images)
        rows = _rows_by_split(prep, images, everything)
        for name in SPLITS:
            _write(prep, name, images.take(rows[name]), everything)
    finally:
        everything.unlink(missing_ok=True)
    return DatasetInfo(
        name=escaped(listed.root.resolve().name),
        task=listed.task,
        labels=listed.names,
        counts={name: len(rows[name]) for name in SPLITS},
        sha256=_content_hash(images, rows),
        synthetic=False,
        redistributable=prep.redistributable(known=False),
        license=prep.license(UNKNOWN),
        notes=tuple(prep.notes),
        grouped_by=_grouped_by(prep.options),
        groups={}
        if images.listed.groups is None
        else group_counts(images.listed.groups, images.listed.splits),
    )


def _grouped_by(options: DataOptions) -> str | None:
    if options.group_column is not None:
        return f"column {options.group_column}"
    return None if options.group_pattern is None else f"pattern {options.group_pattern}"


def _note_unused_keys(options: DataOptions, listed: ImageList) -> Iterator[str]:
    if listed.group_columns and listed.groups is None:
        yield (
            f"The column {some(listed.group_columns)} is not used. If its rows must not be parted "
            f'between splits, set data.group_column="{listed.group_columns[0]}".'
        )


# --- decoding -------------------------------------------------------------------------------


def _decode(prep: Preparation, listed: ImageList, everything: Path) -> _DecodedImages:
    """Decode all images into one array; what is bad is refused or left out."""
    target = Target(tuple(listed.root / name for name in listed.files), everything)
    (part,) = decode_files(
        [target],
        prep.shape,
        prep.preprocess_onnx,
        prep.progress("decode images"),
        prep.workers,
        prep.preprocess.white_level,
    )
    bad = _bad_rows(prep, part)
    unusable = [*(LeftOut(listed.files[row], reason) for row, reason in bad.items())]
    unusable += listed.unusable
    prep.judge_bad(unusable, len(listed.files) + len(listed.unusable), listed.root)
    good = np.array([row for row in range(len(listed.files)) if row not in bad], np.int64)
    if not len(good):
        raise DataError(f"no image of {listed.root} is left to use. Give other images.")
    _note_enlarged(prep, listed, part, good)
    _judge_depth(prep, listed, part)
    for text in note_frames(listed.files, part.facts):
        prep.note(text)
    every = np.arange(len(listed.files))
    return _DecodedImages(listed, every, part.digests, part.pixels).take(good)


def _judge_depth(prep: Preparation, listed: ImageList, part: Decoded) -> None:
    depth, white = depth_of(listed.files, part.facts), prep.preprocess.white_level
    if (refusal := depth.refusal(white)) is not None:
        raise DataError(refusal)
    for text in depth.notes(white):
        prep.note(text)


def _bad_rows(prep: Preparation, part: Decoded) -> dict[int, str]:
    smallest = prep.options.smallest_side
    tiny = {
        int(row): f"has {part.sizes[row, 0]}x{part.sizes[row, 1]} pixels (height x width); "
        f"data.smallest_side = {smallest}"
        for row in np.flatnonzero(part.sizes.min(axis=1) < smallest)
    }
    return dict(sorted({**tiny, **part.failures}.items()))  # the size of a failure says nothing


def _note_enlarged(
    prep: Preparation, listed: ImageList, part: Decoded, good: NDArray[np.int64]
) -> None:
    height, width, _ = prep.shape
    small = [row for row in good if part.sizes[row, 0] < height or part.sizes[row, 1] < width]
    if small:
        named = [
            f"{listed.files[row]} ({part.sizes[row, 0]}x{part.sizes[row, 1]})" for row in small
        ]
        prep.note(
            f"{len(small):,} images are smaller than the model's {height}x{width} (height x width) "
            f"and are enlarged, as the predictor does: {some(named)}."
        )


# --- splits ---------------------------------------------------------------------------------


def _split(prep: Preparation, images: _DecodedImages) -> _DecodedImages:
    """The same images, each with its split: the source's, where it has such a split."""
    options, given = prep.options, images.listed.splits
    missing = [split for split in (VAL, TEST) if not np.any(given == split)]
    groups = images.listed.groups
    if not missing:
        prep.note("The splits are the source's own.")
        return images
    splits = fill_splits(
        images.pixels,
        images.listed.labels,
        given,
        (options.val_share, options.test_share),
        options.split_seed,
        groups,
    )
    kind = "class" if images.listed.task == "multi-class" else "attribute"
    if options.test_group is not None:
        prep.note(f"The test split is the group {options.test_group}, whole.")
    names = " and no ".join(SPLITS[split] for split in missing)
    whose = "There is" if options.test_group is not None else "The source has"
    prep.note(
        f"{whose} no {names} split: drawn by content, the same share of each {kind}'s different "
        f"images, copies of an image{' and the images of a group' * (groups is not None)} together."
    )
    if groups is not None:
        note_shares(prep, groups, splits, missing)
        if connected := len(set(groups)) - len(set(joined(images.pixels, groups))):
            prep.note(
                f"{connected:,} groups share a copy of an image with another one and stay with it."
            )
    return replace(images, listed=replace(images.listed, splits=splits))


def _judge_groups(prep: Preparation, images: _DecodedImages, given: ImageList) -> _DecodedImages:
    """Without what has its group in a later split, where the options ask for that; drawing parts
    none, so there is nothing to judge where no split was given."""
    listed = images.listed
    if listed.groups is None:
        if prep.options.groups_across_splits != "note":
            raise DataError(
                f'data.groups_across_splits = "{prep.options.groups_across_splits}" needs groups: '
                "give data.group_column or data.group_pattern, or remove it."
            )
        return images
    if np.all(given.splits == NO_SPLIT):
        return images
    drop = judge_groups(prep, listed.files, listed.groups, listed.splits, "groups")
    return images.take(np.delete(np.arange(len(images.places)), drop))


def _rows_by_split(
    prep: Preparation, images: _DecodedImages, everything: Path
) -> dict[str, NDArray[np.int64]]:
    """The rows of each split, in an order that mixes the classes: any first part is a sample."""
    same = _same_pictures(images, everything)
    check_splits(images.listed, images.listed.splits, same)
    for text in same:
        prep.note(text)
    order = np.array(order_by_content(images.pixels, prep.options.split_seed), np.int64)
    rows = {name: order[images.listed.splits[order] == i] for i, name in enumerate(SPLITS)}
    rows["train"] = rows["train"][: prep.train_limit(len(rows["train"]))]
    note_constants(prep, images.listed.names, images.listed.labels[rows["train"]])
    _note_repeated(prep, images, rows)
    return rows


def _same_pictures(images: _DecodedImages, everything: Path) -> tuple[str, ...]:
    array = np.load(everything, mmap_mode="r")

    def level_of(row: int) -> int | None:
        pixels = array[images.places[row]]
        return int(pixels.flat[0]) if (pixels == pixels[:1, :1]).all() else None

    def is_transparent(row: int) -> bool:
        data = read_file(images.listed.root / images.listed.files[row])
        return facts_of(data)[0].transparent

    return same_pictures(images.listed.files, images.pixels, level_of, is_transparent)


def _note_repeated(
    prep: Preparation, images: _DecodedImages, rows: dict[str, NDArray[np.int64]]
) -> None:
    """Which splits hold so many copies that fewer pictures decide than one believes."""
    for name, own in rows.items():
        different = len({images.pixels[row] for row in own})
        if len(own) > _REPEATED * different:
            prep.note(
                f"The {name} split has {len(own):,} images, of which only {different:,} are "
                "different; the others are copies of these and count as often as they occur."
            )


def _note_contradictions(prep: Preparation, images: _DecodedImages) -> None:
    listed = images.listed
    for sentence in contradictions(listed.files, listed.labels, images.pixels):
        prep.note(sentence)


# --- arrays ---------------------------------------------------------------------------------


def _write(prep: Preparation, name: str, images: _DecodedImages, everything: Path) -> None:
    array = prep.folder / f"{name}.images.npy"
    take_rows(everything, images.places, array)
    pixels = np.load(array, mmap_mode="r")
    write_split(
        prep.folder, name, Split(pixels, images.listed.labels, np.array(images.listed.files))
    )


def _content_hash(images: _DecodedImages, rows: dict[str, NDArray[np.int64]]) -> str:
    """Over the images that are used: split, name, label and content of each."""
    lines = [f"labels {images.listed.names}"]
    for name in SPLITS:
        for row in np.sort(rows[name]):
            label = _told(images.listed.labels[row])
            lines.append(f"{name} {images.listed.files[row]} {label} {images.digests[row].hex()}")
    return hash_lines(lines)


def _told(label: Sequence[int] | np.int64) -> str:
    return "".join(map(str, np.atleast_1d(label)))
