"""The images of a verification: of a data set, of a file, or drawn by seed where there is
neither."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.generated_images import mixed_images
from exporters.evaluate.tasks import label_task
from pipeline.datasets.arrays import INFO_NAME, UNREADABLE, open_dataset
from pipeline.errors import DataError
from runtime import ModelSpec

DATA_FOLDER = "1_data"  # of a run, beside its bundle
REGRESSION_NAME = "regression.npz"  # what differential testing kept, likewise
_BATCH = 256


@dataclass(frozen=True)
class Images:
    """Model pixels, and where they are from."""

    pixels: NDArray[np.uint8]  # [n, h, w, c], memory-mapped where it is a data set
    source: str  # in words
    labels: NDArray[np.integer] | None = None  # as in ``datasets.arrays.Split``


def find_images(data: Path | None, beside: Path, spec: ModelSpec, split: str = "test") -> Images:
    """The images in ``data`` (a data stage's folder, .npy, or .npz with "images" and maybe
    "labels"); without it those of the run whose bundle lies in the folder ``beside``, or else
    generated ones. Raises DataError for images that are not the model's pixels."""
    if data is None:
        folder = beside / DATA_FOLDER
        if not (folder / INFO_NAME).exists():
            return Images(mixed_images(spec.shape), "generated images (give others with --data)")
        data = folder
    images = read(data, split)
    if images.pixels.shape[1:] != spec.shape or images.pixels.dtype != np.uint8:
        raise DataError(
            f"{data}: images are {images.pixels.dtype} {images.pixels.shape}; expected uint8 (n, "
            f"{', '.join(map(str, spec.shape))}), the pixels of the model {spec.name}."
        )
    if images.labels is not None and images.labels.shape != (
        shape := label_task(spec.task).truth_shape(len(images.pixels), len(spec.labels))
    ):
        raise DataError(
            f"{data}: labels have the shape {images.labels.shape}; expected {shape} for the "
            f"{spec.task} model {spec.name}."
        )
    if not len(images.pixels):
        raise DataError(f"{data}: there are no images; expected at least one.")
    return images


def read(data: Path, split: str) -> Images:
    """The images of a place, whatever their shape; raises DataError."""
    try:
        if data.is_dir():
            part = {s: getattr(open_dataset(data), s) for s in ("train", "val", "test")}[split]
            return Images(part.images, f"{split} split of {data}", part.labels)
        loaded = np.load(data, mmap_mode="r")
        if isinstance(loaded, np.ndarray):
            return Images(loaded, str(data))
        with loaded as archive:
            labels = archive["labels"] if "labels" in archive.files else None
            return Images(archive["images"], str(data), labels)
    except (*UNREADABLE, KeyError) as exc:
        raise DataError(
            f"{data} holds no images: {exc}. Expected the folder of a data stage (1_data), a .npy "
            'of uint8 [n, h, w, c], or a .npz with an array "images".'
        ) from exc


def spread(images: Images, count: int) -> Images:
    """At most ``count`` of them, evenly over the whole set, which may be sorted by person."""
    total = len(images.pixels)
    if total <= count:
        return images
    rows = np.linspace(0, total - 1, count).astype(np.int64)
    labels = None if images.labels is None else images.labels[rows]
    return Images(images.pixels[rows], f"{count} of the {images.source}", labels)


def with_regression(images: Images, beside: Path, spec: ModelSpec) -> Images:
    """The images, and behind them what differential testing kept in the folder ``beside``."""
    kept = beside / REGRESSION_NAME
    if not kept.exists():
        return images
    more = find_images(kept, beside, spec)
    pixels = np.concatenate([images.pixels, more.pixels])
    return Images(pixels, f"{images.source}, and {len(more.pixels)} of {REGRESSION_NAME}")


def nothing_to_see(images: Images) -> str:
    """Why these images prove nothing, whatever the answers are; "" where they may."""
    pixels: NDArray[Any] = images.pixels
    first = np.asarray(pixels[0])
    # of pixels [n, h, w, c] each channel may have its level
    axes = (1, 2) if pixels.dtype == np.uint8 and pixels.ndim == 4 else (*range(1, pixels.ndim),)
    flat, same = first.size > 1, True
    for start in range(0, len(pixels), _BATCH):
        batch = np.asarray(pixels[start : start + _BATCH])
        same = same and bool((batch == first).all())
        flat = flat and bool((batch.max(axis=axes) == batch.min(axis=axes)).all())
        if not (same or flat):
            return ""
    advice = "they prove nothing. Give others with --data."
    if flat and same and not first.any():
        return f"all {len(pixels)} images are black (0 everywhere): {advice}"
    if flat:
        return f"all {len(pixels)} images are of one flat color each: {advice}"
    if same and len(pixels) > 1:
        return f"all {len(pixels)} images are the same one: {advice}"
    return ""
