"""MNIST: where its files are, and that they are MNIST's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.datasets.sources.download import download_mnist, find_or_download
from pipeline.datasets.sources.idx import IdxSet, read_set
from pipeline.datasets.sources.locate import (
    IDX_NAMES,
    SHIPPED_MNIST,
    find_idx,
    folder_of,
)
from pipeline.errors import DataError
from pipeline.recipe import DataOptions

LABELS = tuple("0123456789")
LICENSE = "CC BY-SA 3.0 (MNIST: Yann LeCun, Corinna Cortes, Christopher J. C. Burges)"
# of the uncompressed files, in the order of IDX_NAMES; the same as in mnist/README.md
SHA256 = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)


def find_mnist(options: DataOptions) -> tuple[Path, ...]:
    """The four files: in ``root``, else the repository's own copy, else the download cache.

    Raises DataError when they are nowhere and ``download`` is off, or the download fails.
    """
    if options.root is None and SHIPPED_MNIST.is_dir():
        return find_idx(SHIPPED_MNIST)
    if options.download:
        return find_or_download(find_idx, download_mnist, options.root)
    if options.root is None:
        raise DataError(
            "the installed package holds no copy of MNIST (the repository does). Let it be "
            "downloaded with --set data.download=true, or point at a folder of the four IDX "
            "files with --set data.root=FOLDER."
        )
    return find_idx(folder_of(options.root))


def read_mnist(paths: Sequence[Path]) -> IdxSet:
    """Read the four files; raises DataError unless they are MNIST's, byte for byte."""
    files = read_set(paths)
    for path, name, found, expected in zip(paths, IDX_NAMES, files.sha256, SHA256, strict=True):
        if found != expected:
            raise DataError(
                f"{path} is not MNIST's {name}: uncompressed it has sha256 {found[:16]}..., "
                f"expected {expected[:16]}.... Fetch it again; for another set in the same "
                'format use data.kind="idx".'
            )
    return files
