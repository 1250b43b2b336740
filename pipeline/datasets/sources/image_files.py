"""The image files below a folder, by their names. Reads none of them; standard library only."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.datasets.examples import some
from pipeline.errors import DataError

# Endings of the formats that Pillow reads on every platform. What is stored next to images (lists,
# licenses, .DS_Store) is known by its ending.
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif",
    ".apng", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2",
)  # fmt: skip
# Endings of pictures and films that the predictor does not read, or not everywhere
UNREAD_SUFFIXES = frozenset(
    (
        ".heic", ".heif", ".hif", ".avif", ".jxl", ".jxr", ".svg", ".psd", ".raw", ".dng", ".cr2",
        ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".exr", ".hdr", ".tga", ".pcx", ".ico",
        ".dds", ".j2k", ".jpf", ".jpx", ".j2c", ".dcm", ".dicom", ".nii", ".mha", ".fits", ".pfm",
        ".pam", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".parquet", ".tfrecord", ".czi", ".svs",
        ".ndpi", ".mp4", ".mov", ".avi", ".mkv", ".webm",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Files:
    """What a folder holds, below it as well; hidden files and folders are not looked at."""

    images: tuple[str, ...]  # sorted, relative, with /
    others: tuple[str, ...]  # by their ending no images
    without_images: tuple[str, ...]  # folders with none in or below them; not those inside these
    repeated: tuple[str, ...]  # "b = a": folders that links reach a second time, not read again
    special: tuple[str, ...] = ()  # images by their ending, but pipes, sockets or devices: not read


def walk(root: Path) -> Files:
    """The files below ``root``, through links too.

    Raises DataError when it cannot be read, and when the name of an image is not UTF-8.
    """
    images: list[str] = []
    others: list[str] = []
    folders: list[str] = []
    repeated: list[str] = []
    special: list[str] = []
    for place, files, same in _folders(root):
        if same is not None:
            repeated.append(f"{escaped(place)} = {escaped(same)}")
            continue
        folders.append(place)
        for file in files:
            name = file if place == "." else f"{place}/{file}"
            if file.lower().endswith(SUFFIXES):
                (special if _is_special(root / name) else images).append(name)
            else:
                others.append(escaped(name))
    misnamed = sorted(escaped(name) for name in images if escaped(name) != name)
    if misnamed:  # lists, hashes and reports are UTF-8 and could not name them
        raise DataError(
            f"{root} has {len(misnamed):,} images whose names, or folders' names, are not UTF-8: "
            f"{some(misnamed)}. Rename them; convmv does so for whole folders."
        )
    return Files(
        tuple(sorted(images)),
        tuple(sorted(others)),
        tuple(map(escaped, _without_images(folders, images))),
        tuple(repeated),
        tuple(sorted(map(escaped, special))),
    )


def _is_special(path: Path) -> bool:
    """Whether it is there and no regular file: a pipe is waited for, a device read, for ever."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:  # a link that leads nowhere: reading it says so
        return False


def note_files(files: Files, known: str | None = None) -> tuple[str, ...]:
    """Which files were not read as images, and which folders not a second time; ``known`` is a list
    that is stored among the files."""
    notes = []
    others = [name for name in files.others if name != known]
    if unread := [name for name in others if _suffix(name) in UNREAD_SUFFIXES]:
        notes.append(
            f"{len(unread):,} files look like pictures of formats that are NOT read "
            f"({by_suffix(unread)}): {some(unread)}. Save them as PNG or JPEG to use them."
        )
    if rest := [name for name in others if _suffix(name) not in UNREAD_SUFFIXES]:
        notes.append(
            f"{len(rest):,} files are not images by their ending ({by_suffix(rest)}): {some(rest)}."
        )
    if files.special:
        notes.append(
            f"{len(files.special):,} are not regular files but pipes, sockets, devices or folders "
            f"called like images, and are not read: {some(files.special)}."
        )
    if files.repeated:
        notes.append(
            f"{len(files.repeated):,} folders are, by links, the same as others and left out: "
            f"{some(files.repeated)}."
        )
    return tuple(notes)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def by_suffix(names: Sequence[str]) -> str:
    """ ".txt 12, .csv 1": how many files have each ending, the most frequent first."""
    counts = Counter(_suffix(name) or "none" for name in names)
    return some([f"{suffix} {count:,}" for suffix, count in counts.most_common()])


def escaped(name: str) -> str:
    """The name, with bytes that are not UTF-8 written as \\xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _folders(root: Path) -> Iterator[tuple[str, list[str], str | None]]:
    """(folder, its files, None), or (folder, [], the same folder under the name seen before)."""

    def refuse(exc: OSError) -> None:
        raise DataError(f"{exc.filename} cannot be read: {exc.strerror or exc}.") from exc

    seen: dict[str, str] = {}  # a link to a folder above it would lead round for ever
    for place, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        name, real = Path(place).relative_to(root).as_posix(), os.path.realpath(place)
        if real in seen:
            folders.clear()
            yield name, [], seen[real]
            continue
        seen[real] = name
        # ".*": a system's own, such as the "._photo.jpg" of macOS, which is no photo;
        # "__MACOSX": the folder that its archives keep those in
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "__MACOSX")
        yield name, [file for file in files if not file.startswith(".")], None


def _without_images(folders: Sequence[str], images: Sequence[str]) -> list[str]:
    holding = {PurePosixPath(folder or ".") for folder in {n.rpartition("/")[0] for n in images}}
    used = holding | {parent for folder in holding for parent in folder.parents}
    unused = (path for path in map(PurePosixPath, folders) if path not in used)
    return sorted(str(path) for path in unused if path.parent in used)


def visible_files(root: Path) -> Iterator[Path]:
    """The regular files below ``root``, through links too, without hidden ones and those in hidden
    folders, whatever bytes their names have. Raises DataError when it cannot be read."""
    for place, files, _ in _folders(root):
        yield from (path for file in files if (path := root / place / file).is_file())
