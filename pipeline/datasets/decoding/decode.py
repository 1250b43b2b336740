"""Image files -> uint8 arrays on disk, decoded once, in parallel, through the
predictor's own ``as_image`` and ``preprocess.onnx``: what training sees is what a device
computes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.decoding import picture
from pipeline.datasets.decoding.workers import Progress, run_in_processes, workers_for
from pipeline.errors import DataError
from runtime.spec import PREPROCESS_INPUT, PREPROCESS_OUTPUT

Preprocess = Callable[
    [picture.Pixels], picture.Pixels
]  # [H, W, 1 or 3] of any size -> [h, w, c] of the model

CHUNK = 64  # images between two reports of a worker: some 50 ms
POOL_PAYS_FROM = 512  # images; a worker takes half a second to start, as long as it takes for these
_REPORT_EVERY = 500  # small images in memory
NAMED_FAILURES = 10  # in an error message


@dataclass(frozen=True)
class Target:
    """Files to decode, and the ``.npy`` file that is made of them, row by row."""

    files: tuple[Path, ...]
    array: Path


@dataclass(frozen=True)
class Decoded:
    """The results of a target's files, row by row. A file that could not be decoded has a reason
    in ``failures`` and zeros in the array."""

    files: tuple[Path, ...]
    digests: tuple[bytes, ...]  # SHA-256 of the file; b"" when it cannot be read
    pixels: tuple[bytes, ...]  # SHA-256 of what the model sees of it; b"" for failures
    sizes: NDArray[np.int64]  # [N, 2] upright (height, width); 0 for failures
    failures: dict[int, str]  # row -> reason
    facts: dict[int, picture.Facts]  # row -> of files with more than one frame or 16 bits


def open_preprocess(preprocess_onnx: bytes) -> Preprocess:
    """Return the graph as a function, run in the same session as the predictor's."""
    from runtime.onnx_session import create_on_cpu

    session = create_on_cpu(preprocess_onnx, threads=1, any_size=True)

    def preprocess(image: picture.Pixels) -> picture.Pixels:
        pixels: picture.Pixels = session.run([PREPROCESS_OUTPUT], {PREPROCESS_INPUT: image})[0]
        return pixels

    return preprocess


def preprocess_arrays(
    images: NDArray[np.uint8],
    shape: tuple[int, int, int],
    preprocess_onnx: bytes,
    progress: Progress,
) -> NDArray[np.uint8]:
    """Return images in memory, uint8 [N, H, W, C], as the model's pixels,
    uint8 [N, *shape]; computed in this process."""
    preprocess = open_preprocess(preprocess_onnx)
    result = np.empty((len(images), *shape), np.uint8)
    for i, image in enumerate(images):
        result[i] = _checked(preprocess(image), shape)
        if (i + 1) % _REPORT_EVERY == 0 or i + 1 == len(images):
            progress(i + 1, len(images))
    return result


def decode_files(
    targets: Sequence[Target],
    shape: tuple[int, int, int],
    preprocess_onnx: bytes,
    progress: Progress,
    workers: int | None = None,
    white_level: int | None = None,
) -> list[Decoded]:
    """Write each target's array, uint8 [N, *shape], and return the results of its files.

    ``white_level`` is the recipe's, of 16-bit pixels. The result does not depend on the number of
    ``workers`` (None: every usable core).
    Raises OSError when the disk is full. The caller judges what cannot be decoded, for example with
    ``refuse_failures``.
    """
    for target in targets:
        _create(target.array, (len(target.files), *shape))
    chunks = [chunk for i, target in enumerate(targets) for chunk in _chunks(i, target)]
    total = sum(len(target.files) for target in targets)
    rows: list[list[_Row]] = [[_Row()] * len(target.files) for target in targets]
    done = 0
    progress(0, total)
    for part in _decoded(
        chunks, (preprocess_onnx, white_level), workers_for(total, POOL_PAYS_FROM, workers)
    ):
        rows[part.target][part.start : part.start + len(part.rows)] = part.rows
        done += len(part.rows)
        progress(done, total)
    return [_gathered(target, part) for target, part in zip(targets, rows, strict=True)]


def refuse_failures(parts: Sequence[Decoded], advice: str) -> None:
    """Raise DataError, naming the files, when any could not be decoded."""
    failures = [
        f"{part.files[row]}: {reason}" for part in parts for row, reason in part.failures.items()
    ]
    if failures:
        shown = "\n  ".join(failures[:NAMED_FAILURES])
        more = len(failures) - NAMED_FAILURES
        raise DataError(
            f"{len(failures):,} of {sum(len(part.files) for part in parts):,} images cannot be "
            f"decoded:\n  {shown}" + (f"\n  and {more:,} more" if more > 0 else "") + f"\n{advice}"
        )


def _gathered(target: Target, rows: Sequence[_Row]) -> Decoded:
    return Decoded(
        target.files,
        tuple(row.digest for row in rows),
        tuple(row.pixels for row in rows),
        np.array([row.size for row in rows], np.int64).reshape(len(rows), 2),
        {i: row.failure for i, row in enumerate(rows) if row.failure is not None},
        {i: row.facts for i, row in enumerate(rows) if row.facts is not None},
    )


# --- inside a worker ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chunk:
    """Consecutive rows of one target, for one call of a worker."""

    target: int
    array: Path
    start: int
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _Row:
    """The result of one file; the fields are those of ``Decoded``."""

    digest: bytes = b""
    pixels: bytes = b""
    size: tuple[int, int] = (0, 0)
    failure: str | None = None
    facts: picture.Facts | None = None


@dataclass(frozen=True)
class _Part:
    """The results of a chunk."""

    target: int
    start: int
    rows: list[_Row]


class _Decoder:
    """A decoder of chunks with one session; a session can't be pickled, so each worker has its
    own."""

    def __init__(self, preprocess_onnx: bytes, white_level: int | None) -> None:
        self._preprocess = open_preprocess(preprocess_onnx)
        self._white_level = white_level

    def decode(self, chunk: _Chunk) -> _Part:
        array: NDArray[np.uint8] = np.lib.format.open_memmap(chunk.array, mode="r+")
        rows = [
            self._decode_one(file, array, index)
            for index, file in enumerate(chunk.files, start=chunk.start)
        ]
        return _Part(chunk.target, chunk.start, rows)

    def _decode_one(self, file: Path, array: NDArray[np.uint8], index: int) -> _Row:
        digest = b""
        try:
            data = picture.read_file(file)
            digest = hashlib.sha256(data).digest()
            image = picture.decode(data, self._white_level)
            pixels = self._preprocess(image)
            facts = picture.facts_of(data)[0] if picture.may_be_special(data) else None
        except Exception as exc:  # OSError, DataError, InputError, or what onnxruntime raises
            return _Row(digest, failure=reason_of(exc))
        array[index] = _checked(pixels, array.shape[1:])
        pixel_digest = hashlib.sha256(pixels.tobytes()).digest()
        special = facts if facts and (facts.frames or facts.peak is not None) else None
        return _Row(digest, pixel_digest, (image.shape[0], image.shape[1]), facts=special)


_decoder: _Decoder | None = None  # of this worker process


def _open_decoder(preprocess_onnx: bytes, white_level: int | None) -> None:
    global _decoder
    _decoder = _Decoder(preprocess_onnx, white_level)


def _decode(chunk: _Chunk) -> _Part:
    assert _decoder is not None  # the pool's initializer has run
    return _decoder.decode(chunk)


def _checked(pixels: picture.Pixels, shape: tuple[int, ...]) -> picture.Pixels:
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise DataError(
            f"preprocess.onnx made {pixels.dtype} {pixels.shape} of an image; the recipe's "
            f"[preprocess] says uint8 {shape}. Build the graph from the same recipe."
        )
    return pixels


def reason_of(exc: Exception) -> str:
    """Return why an image file could not be read, for a line that begins with its path."""
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror  # without the path, which the line begins with
    # without the address of the buffer, which differs between runs
    return re.sub(r" <_io\.BytesIO object at 0x[0-9a-f]+>", "", str(exc)) or type(exc).__name__


# --- around the workers ---------------------------------------------------------------------


def _decoded(
    chunks: Sequence[_Chunk], arguments: tuple[bytes, int | None], workers: int
) -> Iterator[_Part]:
    if workers == 1:
        decoder = _Decoder(*arguments)
        yield from map(decoder.decode, chunks)
        return
    try:
        yield from run_in_processes(_decode, chunks, workers, _open_decoder, arguments)
    except BrokenProcessPool as exc:
        raise DataError(
            "a decoding process ended before its work was done, most often because memory ran "
            "out. Free some memory and run again; a script that calls this needs the guard "
            "if __name__ == '__main__'."
        ) from exc


def _chunks(index: int, target: Target) -> list[_Chunk]:
    return [
        _Chunk(index, target.array, start, target.files[start : start + CHUNK])
        for start in range(0, len(target.files), CHUNK)
    ]


def _create(path: Path, shape: tuple[int, ...]) -> None:
    """Create an array file with all its disk space reserved: writing through a memory map to a full
    disk would kill the process (SIGBUS) instead of raising an error."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    del array
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
