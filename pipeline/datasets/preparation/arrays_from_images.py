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

from pipeline.datasets.arrays import SPLITS, Split, take_rows, write_split
from pipeline.datasets.decoding.decode import Decoded, Target, decode_files
from pipeline.datasets.decoding.depth import contradictions, depth_of, note_frames, same_pictures
from pipeline.datasets.decoding.picture import facts_of, read_file
from pipeline.datasets.info import DatasetInfo
from pipeline.datasets.preparation.duplicates import judge_duplicates
from pipeline.datasets.preparation.groups import (
    group_counts,
    judge_groups,
    note_shares,
    with_groups,
)
from pipeline.datasets.preparation.preparation import UNKNOWN, Job, hash_lines
from pipeline.datasets.sources import locate
from pipeline.datasets.sources.class_folders import read_class_folders
from pipeline.datasets.sources.image_files import escaped, some
from pipeline.datasets.sources.image_list import NO_SPLIT, ImageList, LeftOut
from pipeline.datasets.sources.label_file import Columns, read_label_file
from pipeline.datasets.splitting import (
    TEST,
    TRAIN,
    VAL,
    fill_splits,
    joined,
    order_by_content,
)
from pipeline.errors import DataError
from pipeline.recipe import DataOptions

_DECODED = "decoded.npy"  # beside the arrays, until they are made of it
_REPEATED = 1.25  # images of a split for each different one: more are worth a note


@dataclass(frozen=True)
class _Images:
    """Images in use: where each is in the array of all, and its hashes."""

    listed: ImageList
    places: NDArray[np.int64]  # [N] rows of the array of all
    digests: tuple[bytes, ...]  # [N] SHA-256 of the files
    pixels: tuple[bytes, ...]  # [N] SHA-256 of what the model sees

    def take(self, rows: NDArray[np.int64]) -> _Images:
        """Those in the given rows, in that order."""
        return _Images(
            self.listed.take(rows),
            self.places[rows],
            tuple(self.digests[row] for row in rows),
            tuple(self.pixels[row] for row in rows),
        )


def read_list(options: DataOptions) -> ImageList:
    """The images and labels that the options name; raises DataError."""
    if options.download:
        raise DataError('data.kind = "images" has no download. Set data.download=false.')
    if options.root is None:
        raise DataError(
            'data.kind = "images" needs data.root, a folder of images. `pipeline init NAME --data '
            "FOLDER` writes a recipe for one."
        )
    root = locate.folder_of(options.root)
    if options.label_file is None:
        for key in ("label_column", "attributes", "group_column", "tags_separator", "one_hot"):
            if getattr(options, key):
                raise DataError(
                    f"data.{key} names columns of a CSV file; give that with data.label_file, or "
                    f"take data.{key} out: sub-folders are classes."
                )
        return with_groups(read_class_folders(root, options.labels), options)
    columns = Columns(
        options.labels,
        options.attributes,
        options.label_column,
        options.one_hot,
        options.tags_separator,
        options.group_column,
    )
    file = locate.find_label_file(root, options.label_file)
    return with_groups(read_label_file(root, file, columns), options)


def arrays_from_images(job: Job) -> DatasetInfo:
    """Write the splits of the images that the options name; raises DataError."""
    listed = read_list(job.options)
    for text in (*listed.notes, *_note_unused_keys(job.options, listed)):
        job.note(text)
    job.left_out.extend(listed.unlisted)
    everything = job.folder / _DECODED
    try:
        images = _decode(job, listed, everything)
        images = _judge_groups(job, _split(job, images), listed)
        drop = judge_duplicates(
            job, images.listed.files, images.listed.splits, images.digests, images.pixels
        )
        images = images.take(np.delete(np.arange(len(images.places)), drop))
        _note_contradictions(job, images)
        rows = _rows_by_split(job, images, everything)
        for name in SPLITS:
            _write(job, name, images.take(rows[name]), everything)
    finally:
        everything.unlink(missing_ok=True)
    return DatasetInfo(
        name=escaped(listed.root.resolve().name),
        task=listed.task,
        labels=listed.names,
        counts={name: len(rows[name]) for name in SPLITS},
        sha256=_content_hash(images, rows),
        synthetic=False,
        redistributable=job.redistributable(known=False),
        licence=job.licence(UNKNOWN),
        notes=tuple(job.notes),
        grouped_by=_grouped_by(job.options),
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


def _decode(job: Job, listed: ImageList, everything: Path) -> _Images:
    """Decode all images into one array; what is bad is refused or left out."""
    target = Target(tuple(listed.root / name for name in listed.files), everything)
    (part,) = decode_files(
        [target],
        job.shape,
        job.preprocess_onnx,
        job.progress("decode images"),
        job.workers,
        job.preprocess.white_level,
    )
    bad = _bad_rows(job, part)
    unusable = [*(LeftOut(listed.files[row], reason) for row, reason in bad.items())]
    unusable += listed.unusable
    job.judge_bad(unusable, len(listed.files) + len(listed.unusable), listed.root)
    good = np.array([row for row in range(len(listed.files)) if row not in bad], np.int64)
    if not len(good):
        raise DataError(f"no image of {listed.root} is left to use. Give other images.")
    _note_enlarged(job, listed, part, good)
    _judge_depth(job, listed, part)
    for text in note_frames(listed.files, part.facts):
        job.note(text)
    every = np.arange(len(listed.files))
    return _Images(listed, every, part.digests, part.pixels).take(good)


def _judge_depth(job: Job, listed: ImageList, part: Decoded) -> None:
    depth, white = depth_of(listed.files, part.facts), job.preprocess.white_level
    if (refusal := depth.refusal(white)) is not None:
        raise DataError(refusal)
    for text in depth.notes(white):
        job.note(text)


def _bad_rows(job: Job, part: Decoded) -> dict[int, str]:
    smallest = job.options.smallest_side
    tiny = {
        int(row): f"has {part.sizes[row, 0]}x{part.sizes[row, 1]} pixels (height x width); "
        f"data.smallest_side = {smallest}"
        for row in np.flatnonzero(part.sizes.min(axis=1) < smallest)
    }
    return dict(sorted({**tiny, **part.failures}.items()))  # the size of a failure says nothing


def _note_enlarged(job: Job, listed: ImageList, part: Decoded, good: NDArray[np.int64]) -> None:
    height, width, _ = job.shape
    small = [row for row in good if part.sizes[row, 0] < height or part.sizes[row, 1] < width]
    if small:
        named = [
            f"{listed.files[row]} ({part.sizes[row, 0]}x{part.sizes[row, 1]})" for row in small
        ]
        job.note(
            f"{len(small):,} images are smaller than the model's {height}x{width} (height x width) "
            f"and are enlarged, as the predictor does: {some(named)}."
        )


# --- splits ---------------------------------------------------------------------------------


def _split(job: Job, images: _Images) -> _Images:
    """The same images, each with its split: the source's, where it has such a split."""
    options, given = job.options, images.listed.splits
    missing = [split for split in (VAL, TEST) if not np.any(given == split)]
    groups = images.listed.groups
    if not missing:
        job.note("The splits are the source's own.")
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
        job.note(f"The test split is the group {options.test_group}, whole.")
    names = " and no ".join(SPLITS[split] for split in missing)
    whose = "There is" if options.test_group is not None else "The source has"
    job.note(
        f"{whose} no {names} split: drawn by content, the same share of each {kind}'s different "
        f"images, copies of an image{' and the images of a group' * (groups is not None)} together."
    )
    if groups is not None:
        note_shares(job, groups, splits, missing)
        if connected := len(set(groups)) - len(set(joined(images.pixels, groups))):
            job.note(
                f"{connected:,} groups share a copy of an image with another one and stay with it."
            )
    return replace(images, listed=replace(images.listed, splits=splits))


def _judge_groups(job: Job, images: _Images, given: ImageList) -> _Images:
    """Without what has its group in a later split, where the options ask for that; drawing parts
    none, so there is nothing to judge where no split was given."""
    listed = images.listed
    if listed.groups is None:
        if job.options.across_groups != "note":
            raise DataError(
                f'data.groups_across_splits = "{job.options.across_groups}" needs to know the '
                "groups: give data.group_column or data.group_pattern, or take it out."
            )
        return images
    if np.all(given.splits == NO_SPLIT):
        return images
    drop = judge_groups(job, listed.files, listed.groups, listed.splits, "groups")
    return images.take(np.delete(np.arange(len(images.places)), drop))


def _rows_by_split(job: Job, images: _Images, everything: Path) -> dict[str, NDArray[np.int64]]:
    """The rows of each split, in an order that mixes the classes: any first part is a sample."""
    same = _same_pictures(images, everything)
    check_splits(images.listed, images.listed.splits, same)
    for text in same:
        job.note(text)
    order = np.array(order_by_content(images.pixels, job.options.split_seed), np.int64)
    rows = {name: order[images.listed.splits[order] == i] for i, name in enumerate(SPLITS)}
    rows["train"] = rows["train"][: job.train_limit(len(rows["train"]))]
    _note_constants(job, images.listed, rows["train"])
    _note_repeated(job, images, rows)
    return rows


def _same_pictures(images: _Images, everything: Path) -> tuple[str, ...]:
    array = np.load(everything, mmap_mode="r")

    def level_of(row: int) -> int | None:
        pixels = array[images.places[row]]
        return int(pixels.flat[0]) if (pixels == pixels[:1, :1]).all() else None

    def is_transparent(row: int) -> bool:
        data = read_file(images.listed.root / images.listed.files[row])
        return facts_of(data)[0].transparent

    return same_pictures(images.listed.files, images.pixels, level_of, is_transparent)


def _note_repeated(job: Job, images: _Images, rows: dict[str, NDArray[np.int64]]) -> None:
    """Which splits hold so many copies that fewer pictures decide than one believes."""
    for name, own in rows.items():
        different = len({images.pixels[row] for row in own})
        if len(own) > _REPEATED * different:
            job.note(
                f"The {name} split has {len(own):,} images, of which only {different:,} are "
                "different; the others are copies of these and count as often as they occur."
            )


def check_splits(listed: ImageList, splits: NDArray[np.int8], same: Sequence[str] = ()) -> None:
    """Raises DataError when a split is empty, or train has no image of a class. ``same`` says which
    images are one picture, which then is the reason to give."""
    counts = [int((splits == i).sum()) for i in range(len(SPLITS))]
    reason = "".join(f"\n{sentence}" for sentence in same)
    if not all(counts):
        found = ", ".join(f"{count:,} {name}" for count, name in zip(counts, SPLITS, strict=True))
        advice = (
            f"Images that are the same are never parted:{reason}"
            if same
            else "Add images, or change data.val_share and data.test_share."
        )
        if listed.groups is not None and not same:
            advice = (
                f"There are {len(set(listed.groups)):,} groups, and none is parted: add images of "
                "others, or name data.test_group."
            )
        raise DataError(
            f"{listed.root} gives {found} images; expected some in every split. {advice}"
        )
    if listed.task == "multi-class":
        trained = set(listed.labels[splits == TRAIN].tolist())
        lacking = [name for i, name in enumerate(listed.names) if i not in trained]
        if lacking:
            grouped = ", of different groups" * (listed.groups is not None)
            raise DataError(
                f"{listed.root} has no image to train with of the class {some(lacking)}; expected "
                f"at least three different images of each class{grouped}, one for each of train, "
                f"val and test. Add some, or take the class away.{reason}"
            )


def _note_constants(job: Job, listed: ImageList, train: NDArray[np.int64]) -> None:
    values = listed.labels[train]
    if listed.task == "multi-class":
        lacking = [n for i, n in enumerate(listed.names) if i not in set(values.tolist())]
        told = "The train images have none of the class, so it can't be learned"
    else:
        constant = values.min(axis=0) == values.max(axis=0)
        lacking = [name for name, same in zip(listed.names, constant, strict=True) if same]
        told = "Never or always true in the train split, so nothing can be learned"
    if lacking:
        job.note(f"{told}: {', '.join(lacking)}.")


def _note_contradictions(job: Job, images: _Images) -> None:
    listed = images.listed
    for sentence in contradictions(listed.files, listed.labels, images.pixels):
        job.note(sentence)


# --- arrays ---------------------------------------------------------------------------------


def _write(job: Job, name: str, images: _Images, everything: Path) -> None:
    array = job.folder / f"{name}.images.npy"
    take_rows(everything, images.places, array)
    pixels = np.load(array, mmap_mode="r")
    write_split(
        job.folder, name, Split(pixels, images.listed.labels, np.array(images.listed.files))
    )


def _content_hash(images: _Images, rows: dict[str, NDArray[np.int64]]) -> str:
    """Over the images that are used: split, name, label and content of each."""
    lines = [f"labels {images.listed.names}"]
    for name in SPLITS:
        for row in np.sort(rows[name]):
            label = _told(images.listed.labels[row])
            lines.append(f"{name} {images.listed.files[row]} {label} {images.digests[row].hex()}")
    return hash_lines(lines)


def _told(label: Sequence[int] | np.int64) -> str:
    return "".join(map(str, np.atleast_1d(label)))
