"""The image files below a folder, by their names. Reads none of them; standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError

# Endings of the formats that Pillow reads on every platform. What lies beside images (lists,
# licences, .DS_Store) is told by its ending.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
NAMED = 5  # examples in a message


@dataclass(frozen=True)
class Files:
    """What a folder holds, below it as well; hidden files and folders are not looked at."""

    images: tuple[str, ...]  # sorted, relative, with /
    others: tuple[str, ...]  # by their ending no images


def walk(root: Path) -> Files:
    """The files below ``root``, through links too.

    Raises DataError when it cannot be read, and when the name of an image is not UTF-8.
    """
    images: list[str] = []
    others: list[str] = []
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() in SUFFIXES:
            images.append(name)
        else:
            others.append(escaped(name))
    misnamed = sorted(escaped(name) for name in images if escaped(name) != name)
    if misnamed:  # lists, hashes and reports are UTF-8 and could not name them
        raise DataError(
            f"{root} has {len(misnamed):,} images whose names, or folders' names, are not UTF-8: "
            f"{some(misnamed)}. Rename them; convmv does so for whole folders."
        )
    return Files(tuple(sorted(images)), tuple(sorted(others)))


def note_others(files: Files, known: str | None = None) -> tuple[str, ...]:
    """Which files were no images; ``known`` is a list that lies among them."""
    others = [name for name in files.others if name != known]
    if not others:
        return ()
    return (f"{len(others):,} files are no images by their ending: {some(others)}.",)


def escaped(name: str) -> str:
    """The name, with bytes that are not UTF-8 written as \\xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def some(names: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED:,} more"


def _files(root: Path) -> Iterator[Path]:
    def refuse(exc: OSError) -> None:
        raise DataError(f"{exc.filename} cannot be read: {exc.strerror or exc}.") from exc

    seen: set[str] = set()  # a link to a folder above it would lead round for ever
    for place, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # ".*": a system's own, such as the "._photo.jpg" of macOS, which is no photo;
        # "__MACOSX": the folder that its archives keep those in
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "__MACOSX")
        yield from (Path(place) / name for name in files if not name.startswith("."))
