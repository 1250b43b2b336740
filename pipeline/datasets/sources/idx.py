"""The IDX files of MNIST and its relatives, read with every header checked.

Format (Y. LeCun, "The MNIST database", section "File formats for the MNIST database"): two zero
bytes, one byte for the type (8: unsigned byte), one for the number of dimensions, each dimension
as a big-endian uint32, then the values, last dimension fastest.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from runtime.regular_file import open_regular

_UNSIGNED_BYTE = 0x08  # the only type that images and labels have


@dataclass(frozen=True)
class IdxFile:
    """The content of one file, and the hash of its uncompressed bytes."""

    values: NDArray[np.uint8]  # [N] labels or [N, height, width] images
    sha256: str


@dataclass(frozen=True)
class IdxSet:
    """Four files that belong together; ``sha256`` holds their hashes in the order of the fields."""

    train_images: NDArray[np.uint8]  # [N, height, width]
    train_labels: NDArray[np.uint8]  # [N]
    test_images: NDArray[np.uint8]  # [M, height, width]
    test_labels: NDArray[np.uint8]  # [M]
    sha256: tuple[str, ...]


def read_idx(path: Path, dimensions: int) -> IdxFile:
    """Read one file, gzip-compressed or not; ``dimensions`` is 1 for labels and 3 for images.

    Raises DataError when it cannot be read, is damaged, or is not what its header says.
    """
    data = _uncompressed(path)
    shape = _shape(path, data, dimensions)
    start, expected = 4 + 4 * dimensions, int(np.prod(shape, dtype=object))
    if len(data) - start != expected:
        raise DataError(
            f"{path} has {len(data) - start:,} bytes of values; its header says "
            f"{'x'.join(map(str, shape))} = {expected:,}. Fetch the file again."
        )
    values = np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    return IdxFile(values, hashlib.sha256(data).hexdigest())


def read_set(paths: Sequence[Path]) -> IdxSet:
    """Read the train images, train labels, test images and test labels at ``paths``.

    Raises DataError when a file is damaged or they do not fit together.
    """
    files = [read_idx(path, 1 + 2 * (i % 2 == 0)) for i, path in enumerate(paths)]
    for images, labels in ((0, 1), (2, 3)):
        count, expected = len(files[labels].values), len(files[images].values)
        if count != expected:
            raise DataError(
                f"{paths[labels]} has {count:,} labels, {paths[images].name} {expected:,} images; "
                "expected the same number. Fetch both again from one source."
            )
    sizes = [files[i].values.shape[1:] for i in (0, 2)]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"{paths[0]} has images of {sizes[0]}, {paths[2].name} of {sizes[1]} (height, width); "
            "expected one size. Fetch both again from one source."
        )
    train_images, train_labels, test_images, test_labels = (file.values for file in files)
    hashes = tuple(file.sha256 for file in files)
    return IdxSet(train_images, train_labels, test_images, test_labels, hashes)


def check_labels(path: Path, values: NDArray[np.uint8], labels: int) -> None:
    """Raise DataError, naming the first image, when a value is not below ``labels``."""
    wrong = np.flatnonzero(values >= labels)
    if len(wrong):
        raise DataError(
            f"{path} gives image {wrong[0]} the class {values[wrong[0]]} ({len(wrong):,} such "
            f"labels); expected 0 to {labels - 1}. Correct the file, or name every class in "
            "data.labels."
        )


def _uncompressed(path: Path) -> bytes:
    try:
        if path.suffix != ".gz":
            with open_regular(path) as file:
                return file.read()
        with open_regular(path) as packed, gzip.open(packed) as file:
            return file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise DataError(
            f"{path} is truncated or damaged ({exc}); expected a whole gzip file. Fetch it again."
        ) from exc
    except OSError as exc:
        raise DataError(f"{path} cannot be read: {exc.strerror or exc}.") from exc


def _shape(path: Path, data: bytes, dimensions: int) -> tuple[int, ...]:
    expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if data[:4] != expected:
        raise DataError(
            f"{path} begins with {data[:4].hex(' ') or 'nothing'}; expected "
            f"{expected.hex(' ')}, an IDX file of unsigned bytes with {dimensions} "
            f"dimension{'s' * (dimensions > 1)}. Fetch the file again."
        )
    header = data[4 : 4 + 4 * dimensions]
    if len(header) < 4 * dimensions:
        raise DataError(f"{path} ends within its header. Fetch the file again.")
    shape = struct.unpack(f">{dimensions}I", header)
    if min(shape) < 1:
        raise DataError(f"{path} is empty: its header says {'x'.join(map(str, shape))}.")
    return shape
