"""Decoded images on disk: arrays for each split, memory-mapped when read, so that a
data set larger than memory trains like a small one. Knows nothing of torch or of recipes."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from exporters.files import atomic_file, write_text
from pipeline.datasets.info import DatasetInfo
from pipeline.errors import DataError

SPLITS = ("train", "val", "test")
TRAIN, VAL, TEST = range(3)  # indices in SPLITS
NO_SPLIT = -1  # the source does not say
_BYTES_AT_ONCE = 16 << 20
# What numpy raises for an .npy or .npz that is damaged, cut short or another kind of file
UNREADABLE = (
    *(OSError, ValueError, EOFError, MemoryError),
    *(BadZipFile, zlib.error, TokenError, SyntaxError),
)
INFO_NAME = "dataset.json"  # written last: without it the arrays are not finished


@dataclass(frozen=True)
class Split:
    """One split. ``labels`` is int64 [N] for multi-class and uint8 [N, labels] of 0 and 1 for
    multi-label; ``ids`` names the images in the source (file names or row numbers)."""

    images: NDArray[np.uint8]  # [N, height, width, channels]
    labels: NDArray[Any]
    ids: NDArray[np.str_]  # [N]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """The three splits of a decoded data set."""

    info: DatasetInfo
    train: Split
    val: Split
    test: Split


def write_split(folder: Path, name: str, split: Split) -> None:
    """Write the arrays of one split; ``images`` may already be a memory map of that file."""
    target = folder / f"{name}.images.npy"
    mapped = getattr(split.images, "filename", None)  # numpy keeps a resolved Path there
    if mapped is None or Path(mapped).resolve() != target.resolve():
        np.save(target, split.images)  # onto its own map this would destroy the content
    np.save(folder / f"{name}.labels.npy", split.labels)
    np.save(folder / f"{name}.ids.npy", split.ids)


def take_rows(source: Path, rows: NDArray[np.int64], target: Path) -> None:
    """Write those rows of the array file ``source``, in that order, as ``target``, which may be
    ``source`` itself. Never more than a part of the array is in memory."""
    array = np.load(source, mmap_mode="r")
    # not through a map: a full disk would end the process
    with atomic_file(target) as partial, partial.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file,
            {
                "descr": array.dtype.str,
                "fortran_order": False,
                "shape": (len(rows), *array.shape[1:]),
            },
        )
        at_once = max(1, _BYTES_AT_ONCE // max(1, array[:1].nbytes))
        for start in range(0, len(rows), at_once):
            file.write(np.ascontiguousarray(array[rows[start : start + at_once]]).data)
        del array  # Windows replaces no file that is mapped


def write_info(folder: Path, info: DatasetInfo) -> None:
    """Write ``dataset.json``, which declares the arrays beside it finished."""
    write_text(folder / INFO_NAME, json.dumps(asdict(info), indent=2, sort_keys=True) + "\n")


def open_dataset(folder: Path) -> Dataset:
    """Memory-map a finished data set; raises DataError when it is not finished or damaged."""
    try:
        raw = json.loads((folder / INFO_NAME).read_text(encoding="utf-8"))
        if "licence" in raw:  # the former spelling
            raw["license"] = raw.pop("licence")
        raw["labels"], raw["notes"] = tuple(raw["labels"]), tuple(raw["notes"])
        info = DatasetInfo(**raw)
        splits = {name: _open_split(folder, name) for name in SPLITS}
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise DataError(
            f"{folder} holds no finished data set ({exc}). Run the data stage again."
        ) from exc
    for name, split in splits.items():
        sizes = {len(split.images), len(split.labels), len(split.ids), info.counts[name]}
        if len(sizes) != 1:
            raise DataError(
                f"{folder}: the {name} split has {len(split.images)} images, {len(split.labels)} "
                f"labels, {len(split.ids)} ids and {info.counts[name]} in {INFO_NAME}; expected "
                "the same number. Run the data stage again with --force."
            )
    return Dataset(info, **splits)


def _open_split(folder: Path, name: str) -> Split:
    images = np.load(folder / f"{name}.images.npy", mmap_mode="r")
    # Of many images labels and ids are large as well. As plain arrays: what is computed from a
    # memmap would be called one too.
    labels = np.load(folder / f"{name}.labels.npy", mmap_mode="r").view(np.ndarray)
    ids = np.load(folder / f"{name}.ids.npy", mmap_mode="r").view(np.ndarray)
    return Split(images, labels, ids)
