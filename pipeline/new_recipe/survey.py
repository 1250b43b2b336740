"""A survey of images before anything is decided about them: sizes, colors, damage, copies. Every
file is decoded by the predictor's own ``as_image``, so what is bad here is bad for training,
too."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.datasets.decoding import picture
from pipeline.datasets.decoding.decode import CHUNK, POOL_PAYS_FROM, reason_of
from pipeline.datasets.decoding.depth import Depth, depth_of
from pipeline.datasets.decoding.picture import Facts
from pipeline.datasets.decoding.workers import Progress, run_in_processes, workers_for
from pipeline.datasets.sources.image_list import ImageList, LeftOut


@dataclass(frozen=True)
class Look:
    """The findings on one file."""

    height: int = 0  # pixels, upright; 0 for a failure
    width: int = 0
    facts: Facts = field(default_factory=Facts)
    gray: bool = False  # no pixel has a color
    level: int | None = None  # the value of all pixels, where they are the same
    # SHA-256 of size and decoded pixels; of the value alone where they all have the same, since
    # to the model that is one picture, whatever its size
    pixels: bytes = b""
    failure: str | None = None


@dataclass(frozen=True)
class Survey:
    """The findings on all files of a list."""

    listed: ImageList
    looks: tuple[Look, ...]  # in the order of listed.files

    @cached_property
    def good(self) -> tuple[Look, ...]:
        """The findings on files that can be decoded."""
        return tuple(look for look in self.looks if look.failure is None)

    @property
    def bad(self) -> tuple[LeftOut, ...]:
        """Images that cannot be decoded or have no label, with reasons."""
        failed = (
            LeftOut(name, look.failure)
            for name, look in zip(self.listed.files, self.looks, strict=True)
            if look.failure is not None
        )
        return (*failed, *self.listed.unusable)

    @property
    def kinds(self) -> Counter[str]:
        """The number of files of each format and mode."""
        return Counter(look.facts.kind for look in self.good)

    @cached_property
    def facts(self) -> dict[int, Facts]:
        """The facts of files with several frames or 16 bits, by row."""
        return {
            row: look.facts
            for row, look in enumerate(self.looks)
            if look.failure is None and (look.facts.frames or look.facts.peak is not None)
        }

    @cached_property
    def depth(self) -> Depth:
        """The pictures of 16 bits."""
        return depth_of(self.listed.files, self.facts)

    @cached_property
    def usable(self) -> ImageList:
        """The list of images that can be decoded."""
        rows = [row for row, look in enumerate(self.looks) if look.failure is None]
        return self.listed.take(np.array(rows, np.int64))

    @property
    def copies(self) -> int:
        """The number of images that repeat the pixels of another one."""
        return len(self.good) - len({look.pixels for look in self.good})

    @property
    def counts(self) -> tuple[int, ...]:
        """Images that can be decoded, of each class or with each attribute."""
        return tuple(self.usable.counts.tolist())


def look_at_all(
    listed: ImageList, smallest_side: int, progress: Progress, workers: int | None = None
) -> Survey:
    """Decode every file; an image with a side below ``smallest_side`` pixels counts as bad.

    The result does not depend on ``workers`` (None: every usable core).
    """
    paths = [listed.root / name for name in listed.files]
    chunks = [
        _Chunk(start, tuple(paths[start : start + CHUNK]), smallest_side)
        for start in range(0, len(paths), CHUNK)
    ]
    looks: dict[int, Look] = {}
    workers = workers_for(len(paths), POOL_PAYS_FROM, workers)
    for start, part in run_in_processes(_look_at_chunk, chunks, workers):
        looks |= dict(enumerate(part, start))
        progress(len(looks), len(paths))
    return Survey(listed, tuple(looks[row] for row in range(len(paths))))


@dataclass(frozen=True)
class _Chunk:
    start: int
    paths: Sequence[Path]
    smallest_side: int


def _look_at_chunk(chunk: _Chunk) -> tuple[int, list[Look]]:
    return chunk.start, [_look(path, chunk.smallest_side) for path in chunk.paths]


def _look(path: Path, smallest_side: int) -> Look:
    try:
        data = picture.read_file(path)
        pixels = picture.decode(data, None)
        facts, deep = picture.facts_of(data)
    except Exception as exc:  # Pillow's decoders raise nearly every type there is
        return Look(failure=reason_of(exc))
    height, width, channels = pixels.shape
    if min(height, width) < smallest_side:
        return Look(
            failure=f"has {height}x{width} pixels (height x width), a side below {smallest_side}"
        )
    gray = channels == 1 or bool((pixels == pixels[:, :, :1]).all())
    # not scaled from 65535, by which darker 16-bit pictures would become copies of each other
    values = pixels if deep is None else deep
    level = int(pixels.flat[0]) if bool((values == values[:1, :1]).all()) and gray else None
    what = f"{level}" if level is not None and deep is None else f"{pixels.shape}"
    content = b"" if level is not None and deep is None else values.tobytes()
    digest = hashlib.sha256(what.encode() + content).digest()
    return Look(height, width, facts, gray, level, digest)
