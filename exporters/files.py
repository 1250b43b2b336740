"""Atomic writes: a file or a folder appears complete, or what existed before stays.

The new content is written next to its target, flushed to the disk and renamed; an error removes
it. Standard library only."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """Yield the path to write to; at the end of the block that file replaces ``file``.

    A new file has the permissions of any other new file, a replaced one keeps its own. An OSError
    of the writing names ``file``. The path is ``<name>.partial``: what a kill leaves of it, the
    next write replaces; processes that may write the same file at once need a lock between them.
    """
    partial = file.with_name(f"{file.name}.partial")
    with _named(file, partial):
        try:
            yield partial
            _flush_file(partial)
            if file.exists():
                partial.chmod(stat.S_IMODE(file.stat().st_mode))
            partial.replace(file)
            _flush_folder(file.parent)
        finally:
            partial.unlink(missing_ok=True)


def write_bytes(file: Path, data: bytes) -> None:
    """Replace ``file`` by ``data``; see :func:`atomic_file`."""
    with atomic_file(file) as partial:
        partial.write_bytes(data)


def write_text(file: Path, text: str) -> None:
    """Replace ``file`` by ``text`` in UTF-8, line ends as they are; see :func:`atomic_file`."""
    write_bytes(file, text.encode())


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new, empty folder to fill; at the end of the block it replaces ``folder``.

    A folder cannot be replaced in one step: a kill between the two renames leaves the old and the
    new one in a hidden folder next to it. An error, an interrupt included, keeps the old one.
    """
    work = tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}-", ignore_cleanup_errors=True
    )
    with _named(folder), work as name:
        new, old = Path(name) / "new", Path(name) / "old"
        new.mkdir()  # with the permissions of a new folder, which the one around it lacks
        yield new
        _flush_tree(new)
        try:
            if folder.exists():
                folder.replace(old)
            new.replace(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.replace(folder)
            raise
        _flush_folder(folder.parent)


@contextmanager
def _named(target: Path, partial: Path | None = None) -> Iterator[None]:
    """Name ``target`` in an OSError that names no file (a full disk) or the partial one."""
    try:
        yield
    except OSError as exc:
        if exc.errno is None or exc.filename not in (None, str(partial)):
            raise
        raise OSError(exc.errno, exc.strerror, str(target)) from exc


def _flush_file(file: Path) -> None:
    with file.open("ab") as stream:  # Windows flushes only what may be written
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Make renames in ``folder`` outlive a power cut; Windows has no call for it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent) / name
            if not file.is_symlink() and os.access(file, os.W_OK):
                _flush_file(file)
        _flush_folder(Path(parent))
