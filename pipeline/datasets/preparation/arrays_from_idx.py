"""MNIST and other sets in IDX files -> the arrays of ``arrays.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import Split, write_split
from pipeline.datasets.decoding.decode import preprocess_arrays
from pipeline.datasets.info import DatasetInfo
from pipeline.datasets.preparation.preparation import UNKNOWN, Preparation, hash_lines
from pipeline.datasets.sources import idx, locate, mnist
from pipeline.errors import DataError
from pipeline.recipe import DataOptions


def arrays_from_idx(prep: Preparation) -> DatasetInfo:
    """Write the splits of the four files that the options name; raises DataError."""
    is_mnist = prep.options.kind == "mnist"
    if is_mnist:
        paths = mnist.find_mnist(prep.options)
        files = mnist.read_mnist(paths)
    else:
        paths = locate.find_idx(_idx_folder(prep.options))
        files = idx.read_set(paths)
    labels = mnist.LABELS if is_mnist else _idx_labels(prep.options, files)
    idx.check_labels(paths[1], files.train_labels, len(labels))
    idx.check_labels(paths[3], files.test_labels, len(labels))
    splits = _split_idx(prep, files)
    for name, split in splits.items():
        write_split(prep.folder, name, split)
    return DatasetInfo(
        name="mnist" if is_mnist else Path(prep.options.root or "idx").name,
        task="multi-class",
        labels=labels,
        counts={name: len(split) for name, split in splits.items()},
        sha256=hash_lines(f"{n} {h}" for n, h in zip(locate.IDX_NAMES, files.sha256, strict=True)),
        synthetic=False,
        redistributable=prep.redistributable(known=is_mnist),
        license=prep.license(mnist.LICENSE if is_mnist else UNKNOWN),
        notes=tuple(prep.notes),
    )


def _idx_folder(options: DataOptions) -> Path:
    if options.download:
        raise DataError(
            'data.kind = "idx" has no download: these files may be any data set. Set '
            "data.download=false and point data.root at a folder of the four IDX files."
        )
    if options.root is None:
        raise DataError(
            'data.kind = "idx" needs data.root, a folder of the four IDX files: --set '
            "data.root=FOLDER."
        )
    return locate.folder_of(options.root)


def _idx_labels(options: DataOptions, files: idx.IdxSet) -> tuple[str, ...]:
    if options.labels is None:
        classes = 1 + max(int(files.train_labels.max()), int(files.test_labels.max()))
        return tuple(str(i) for i in range(classes))
    if not options.labels or len(set(options.labels)) != len(options.labels):
        raise DataError(
            f"data.labels = {list(options.labels)}; expected a distinct name for each class."
        )
    return options.labels


def _split_idx(prep: Preparation, files: idx.IdxSet) -> dict[str, Split]:
    """The last images of the train files are for validation; the test files stay as they are."""
    held_out = prep.options.validation_images
    available = len(files.train_images) - held_out
    if available < 1:
        raise DataError(
            f"data.validation_images = {held_out:,} leaves no image to train with; the train files "
            f"hold {len(files.train_images):,}. Ask for fewer."
        )
    used = prep.train_limit(available)
    train, test = _in_model_form(prep, files)
    train_ids, test_ids = _ids("train", len(train)), _ids("test", len(test))
    labels = files.train_labels.astype(np.int64)
    return {
        "train": Split(train[:used], labels[:used], train_ids[:used]),
        "val": Split(train[available:], labels[available:], train_ids[available:]),
        "test": Split(test, files.test_labels.astype(np.int64), test_ids),
    }


def _in_model_form(
    prep: Preparation, files: idx.IdxSet
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Train and test images as the model's pixels, uint8 [N, h, w, c].

    With ``preprocess.kind = "digit"`` images of the model's size are taken as they are: the graph
    makes strangers' digits look like MNIST's, and MNIST's do already.
    """
    train, test = files.train_images[..., None], files.test_images[..., None]
    if prep.preprocess.kind == "digit" and train.shape[1:] == prep.shape:
        size = "x".join(map(str, prep.shape))
        prep.note(
            f"The images are in the model's form already ({size}), so preprocess.onnx is not "
            "applied to them."
        )
        return train, test
    both = np.concatenate([train, test])
    pixels = preprocess_arrays(
        both, prep.shape, prep.preprocess_onnx, prep.progress("preprocess images")
    )
    return pixels[: len(train)], pixels[len(train) :]


def _ids(split: str, count: int) -> NDArray[np.str_]:
    return np.array([f"{split}/{i:05d}" for i in range(count)])
