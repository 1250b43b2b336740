"""The state of the files that a recipe's data come from, so that a plan sees what changed. Only
names, sizes and times are read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pipeline.datasets.sources.image_files import walk
from pipeline.datasets.sources.locate import (
    SHIPPED_MNIST,
    CelebaFiles,
    find_celeba,
    find_idx,
    find_label_file,
    folder_of,
)
from pipeline.errors import DataError
from pipeline.recipe import DataOptions


def source_state(options: DataOptions) -> dict[str, str]:
    """What decides the data stage's result beyond the recipe and the artifact folder.

    Fast: sizes and time stamps of the label files and of images in folders; of CelebA's one folder
    of 200,000 only time stamp and number of entries; no content is read. Constant for what is
    checked against published hashes anyway: the shipped MNIST and downloads. A missing
    source is a state too; ``prepare`` raises, this doesn't.
    """
    if options.download:
        return {"source": "download"}
    if options.root is None:
        return _state_without_root(options.kind)
    try:
        folder = folder_of(options.root)
        if options.kind == "celeba":
            return _celeba_state(find_celeba(folder))
        if options.kind == "images":
            return _images_state(folder, options.label_file)
        return dict(_file_state(path) for path in find_idx(folder))
    except (DataError, OSError):
        return {"source": "missing"}


def _state_without_root(kind: str) -> dict[str, str]:
    if kind == "images":
        return {"source": "missing"}
    if kind != "celeba":
        return {"source": "shipped" if SHIPPED_MNIST.is_dir() else "missing"}
    from pipeline.datasets.drawn.synthetic_faces import GENERATOR_VERSION

    return {"source": f"generated, version {GENERATOR_VERSION}"}


def _celeba_state(files: CelebaFiles) -> dict[str, str]:
    with os.scandir(files.images) as entries:
        count = sum(1 for _ in entries)
    state = dict(_file_state(path) for path in files.lists)
    state[files.images.name] = f"{count} entries, mtime_ns {files.images.stat().st_mtime_ns}"
    return state


def _images_state(folder: Path, label_file: str | None) -> dict[str, str]:
    state: dict[str, str] = {}
    if label_file is not None:
        state = dict([_file_state(find_label_file(folder, label_file))])
    files = walk(folder)
    lines = [" ".join(_file_state(folder / name)) + name for name in files.images]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    state["images"] = f"{len(lines)} files, names, sizes and times {digest[:16]}"
    return state


def _file_state(path: Path) -> tuple[str, str]:
    try:
        stat = path.stat()
    except OSError:  # a link that leads nowhere says nothing of the files beside it
        return path.name, "unreadable"
    return path.name, f"{stat.st_size} bytes, mtime_ns {stat.st_mtime_ns}"
