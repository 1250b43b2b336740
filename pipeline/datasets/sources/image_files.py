"""The image files below a folder, by their names. No file is read."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.datasets.examples import some
from pipeline.errors import DataError

# Endings of the formats that Pillow reads on every platform. Other files are stored next to images:
# lists, licenses, .DS_Store.
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif",
    ".apng", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2",
)  # fmt: skip
# Endings of pictures and videos that the predictor does not read, or not on every platform
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
    """The files in and below a folder, without hidden files and folders."""

    images: tuple[str, ...]  # sorted, relative, with /
    others: tuple[str, ...]  # not images by their ending
    without_images: tuple[str, ...]  # the topmost folders with none in or below them
    repeated: tuple[str, ...]  # "b = a": folders that links reach again, and that are read once
    special: tuple[str, ...] = ()  # pipes, sockets or devices with an image's ending: not read


def walk(root: Path) -> Files:
    """List the files below ``root``, through links, too.

    Raises DataError when it cannot be read, and when the name of an image is not UTF-8.
    """
    images: list[str] = []
    others: list[str] = []
    folders: list[str] = []
    repeated: list[str] = []
    special: list[str] = []
    for folder, files, same in _folders(root):
        if same is not None:
            repeated.append(f"{escaped(folder)} = {escaped(same)}")
            continue
        folders.append(folder)
        for file in files:
            name = file if folder == "." else f"{folder}/{file}"
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
    """Return whether it exists but is not a regular file: reading a pipe or a device may never
    end."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:  # a broken link: reading it raises the error
        return False


def note_files(files: Files, label_file: str | None = None) -> tuple[str, ...]:
    """Return remarks on files that are not read as images and on folders that are not read twice;
    ``label_file`` is a list among the files."""
    notes = []
    others = [name for name in files.others if name != label_file]
    if unread := [name for name in others if _suffix(name) in UNREAD_SUFFIXES]:
        notes.append(
            f"{len(unread):,} files look like pictures of formats that are NOT read "
            f"({by_suffix(unread)}): {some(unread)}. Save them as PNG or JPEG to use them."
        )
    if rest := [name for name in others if _suffix(name) not in UNREAD_SUFFIXES]:
        notes.append(
            f"{len(rest):,} files do not end like images ({by_suffix(rest)}): {some(rest)}."
        )
    if files.special:
        notes.append(
            f"{len(files.special):,} have names of images but are pipes, sockets, devices or "
            f"folders, and are not read: {some(files.special)}."
        )
    if files.repeated:
        notes.append(
            f"{len(files.repeated):,} folders are links to others and left out: "
            f"{some(files.repeated)}."
        )
    return tuple(notes)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def by_suffix(names: Sequence[str]) -> str:
    """Return the number of files with each ending, the most frequent first: ".txt 12, .csv 1"."""
    counts = Counter(_suffix(name) or "none" for name in names)
    return some([f"{suffix} {count:,}" for suffix, count in counts.most_common()])


def escaped(name: str) -> str:
    """Return the name with bytes that are not UTF-8 written as \\xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _folders(root: Path) -> Iterator[tuple[str, list[str], str | None]]:
    """Yield (folder, its files, None), or (folder, [], its earlier name) where a link repeats
    it."""

    def refuse(exc: OSError) -> None:
        raise DataError(f"{exc.filename} cannot be read: {exc.strerror or exc}.") from exc

    first_names: dict[str, str] = {}  # a link to a folder above would repeat forever
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        name, real = Path(folder).relative_to(root).as_posix(), os.path.realpath(folder)
        if real in first_names:
            folders.clear()
            yield name, [], first_names[real]
            continue
        first_names[real] = name
        # ".*" are files of the system, such as "._photo.jpg" of macOS, which is not a photo;
        # its archives keep those in "__MACOSX"
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "__MACOSX")
        yield name, [file for file in files if not file.startswith(".")], None


def _without_images(folders: Sequence[str], images: Sequence[str]) -> list[str]:
    holding = {PurePosixPath(folder or ".") for folder in {n.rpartition("/")[0] for n in images}}
    used = holding | {parent for folder in holding for parent in folder.parents}
    unused = (path for path in map(PurePosixPath, folders) if path not in used)
    return sorted(str(path) for path in unused if path.parent in used)


def visible_files(root: Path) -> Iterator[Path]:
    """Yield the regular files below ``root``, through links, too, without hidden ones and those in
    hidden folders; names may be any bytes. Raises DataError when it cannot be read."""
    for folder, files, _ in _folders(root):
        yield from (path for file in files if (path := root / folder / file).is_file())
