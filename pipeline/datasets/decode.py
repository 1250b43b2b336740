"""Image files -> uint8 arrays on disk, decoded once, in parallel, through the
predictor's own ``as_image`` and ``preprocess.onnx``: what training sees is what a device computes.
Knows nothing of labels or splits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.workers import run_in_processes
from pipeline.errors import DataError
from runtime.cpu import usable_threads
from runtime.images import as_image
from runtime.spec import PREPROCESS_INPUT, PREPROCESS_OUTPUT

Pixels = NDArray[np.uint8]
Preprocess = Callable[[Pixels], Pixels]  # [H, W, 1 or 3] of any size -> [h, w, c] of the model
Progress = Callable[[int, int], None]  # (images done, images in all)

CHUNK = 64  # images between two reports of a worker: some 50 ms
POOL_PAYS_FROM = 512  # images; a worker takes half a second to start, as long as it takes for these
_REPORT_EVERY = 500  # small images in memory
NAMED_FAILURES = 10  # in an error message


@dataclass(frozen=True)
class Target:
    """Files to decode, and the ``.npy`` file that is made of them, row by row."""

    files: tuple[Path, ...]
    array: Path


def open_preprocess(preprocess_onnx: bytes) -> Preprocess:
    """The graph as a function, in the very session that the predictor opens for it."""
    from runtime.onnx_session import create_on_cpu

    session = create_on_cpu(preprocess_onnx, threads=1, any_size=True)

    def preprocess(image: Pixels) -> Pixels:
        pixels: Pixels = session.run([PREPROCESS_OUTPUT], {PREPROCESS_INPUT: image})[0]
        return pixels

    return preprocess


def preprocess_arrays(
    images: NDArray[np.uint8],
    shape: tuple[int, int, int],
    preprocess_onnx: bytes,
    progress: Progress,
) -> NDArray[np.uint8]:
    """Images that are in memory already, uint8 [N, H, W, C], to the model's pixels, uint8
    [N, *shape], in this process."""
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
) -> list[list[bytes]]:
    """Write each target's array, uint8 [N, *shape], and return the SHA-256 of each of its files.

    The result does not depend on the number of ``workers`` (None: every usable core).
    Raises DataError naming the files that cannot be decoded, and OSError when the disk is full.
    """
    for target in targets:
        _create(target.array, (len(target.files), *shape))
    chunks = [chunk for i, target in enumerate(targets) for chunk in _chunks(i, target)]
    total = sum(len(target.files) for target in targets)
    digests: list[list[bytes]] = [[b""] * len(target.files) for target in targets]
    failures: dict[tuple[int, int], str] = {}
    done = 0
    progress(0, total)
    for part in _decoded(chunks, preprocess_onnx, _resolve(workers, total)):
        digests[part.target][part.start : part.start + len(part.digests)] = part.digests
        failures |= {(part.target, row): text for row, text in part.failures}
        done += len(part.digests)
        progress(done, total)
    if failures:
        _refuse([failures[key] for key in sorted(failures)], total)
    return digests


# --- inside a worker ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chunk:
    """Consecutive rows of one target, for one call of a worker."""

    target: int
    array: Path
    start: int
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _Part:
    """What became of a chunk: a digest for each row, and (row, reason) for each failure."""

    target: int
    start: int
    digests: list[bytes]
    failures: list[tuple[int, str]]


class _Decoder:
    """Decodes chunks with one session; a session can't be pickled, so each worker has its own."""

    def __init__(self, preprocess_onnx: bytes) -> None:
        self._preprocess = open_preprocess(preprocess_onnx)

    def decode(self, chunk: _Chunk) -> _Part:
        rows: NDArray[np.uint8] = np.lib.format.open_memmap(chunk.array, mode="r+")
        digests: list[bytes] = []
        failures: list[tuple[int, str]] = []
        for row, file in enumerate(chunk.files, start=chunk.start):
            digest = b""
            try:
                data = file.read_bytes()
                digest = hashlib.sha256(data).digest()
                pixels = self._preprocess(as_image(data))
            except Exception as exc:  # OSError, InputError, or what onnxruntime raises
                failures.append((row, f"{file}: {_reason(exc)}"))
            else:
                rows[row] = _checked(pixels, rows.shape[1:])
            digests.append(digest)
        return _Part(chunk.target, chunk.start, digests, failures)


_decoder: _Decoder | None = None  # of this worker process


def _open_decoder(preprocess_onnx: bytes) -> None:
    global _decoder
    _decoder = _Decoder(preprocess_onnx)


def _decode(chunk: _Chunk) -> _Part:
    assert _decoder is not None  # the pool's initializer has run
    return _decoder.decode(chunk)


def _checked(pixels: Pixels, shape: tuple[int, ...]) -> Pixels:
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise DataError(
            f"preprocess.onnx made {pixels.dtype} {pixels.shape} of an image; the recipe's "
            f"[preprocess] says uint8 {shape}. Build the graph from the same recipe."
        )
    return pixels


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror  # without the path, which stands before it already
    return str(exc) or type(exc).__name__


# --- around the workers ---------------------------------------------------------------------


def _decoded(chunks: Sequence[_Chunk], preprocess_onnx: bytes, workers: int) -> Iterator[_Part]:
    if workers == 1:
        decoder = _Decoder(preprocess_onnx)
        yield from map(decoder.decode, chunks)
        return
    try:
        yield from run_in_processes(_decode, chunks, workers, _open_decoder, (preprocess_onnx,))
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


def _resolve(workers: int | None, images: int) -> int:
    if workers is not None:
        return workers
    return 1 if images < POOL_PAYS_FROM else usable_threads()


def _create(path: Path, shape: tuple[int, ...]) -> None:
    """An array file with all its disk space taken: writing through a memory map to a full disk
    would kill the process (SIGBUS) instead of raising an error."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    del array
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _refuse(failures: Sequence[str], total: int) -> None:
    shown = "\n  ".join(failures[:NAMED_FAILURES])
    more = len(failures) - NAMED_FAILURES
    raise DataError(
        f"{len(failures):,} of {total:,} images cannot be decoded:\n  {shown}"
        + (f"\n  and {more:,} more" if more > 0 else "")
        + "\nFetch these files again, or take them away: rows without an image are left out."
    )
