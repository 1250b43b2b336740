"""The file operations of a slot: reading a bundle in pieces of bounded size, renames that outlive a
power cut, one installer at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .bundle import open_file
from .errors import BundleFormatError
from .origin import let_through

_COPY_BYTES = 1 << 20


def chunks(bundle: str | os.PathLike[str] | bytes, limit_bytes: int) -> Iterator[bytes]:
    """The bytes of a bundle, at most so many; raises BundleFormatError for more, and for a path
    that is not a file or cannot be read."""
    if isinstance(bundle, bytes):
        _check_size(len(bundle), limit_bytes)
        yield bundle
        return
    with open_file(bundle) as file:
        _check_size(
            os.fstat(file.fileno()).st_size, limit_bytes
        )  # before the first byte is written
        done = 0
        while True:
            try:
                chunk = file.read(_COPY_BYTES)
            except OSError as exc:  # of the source, not of the slot
                let_through(exc)
                raise BundleFormatError(f"{bundle!s}: cannot be read: {exc}.") from exc
            if not chunk:
                return
            done += len(chunk)
            _check_size(done, limit_bytes)  # a file can grow
            yield chunk


def _check_size(size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise BundleFormatError(
            f"the bundle has {size_bytes:,} bytes or more; expected at most {limit_bytes:,}, the "
            "slot's max_bytes. Nothing was installed."
        )


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` outlive a power cut; Windows has no call for it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def lock(file: IO[bytes]) -> bool:
        """Lock a byte until the file is closed or the process dies; False if it is taken."""
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as exc:
            let_through(exc)
            return False
        return True

else:
    import fcntl

    def lock(file: IO[bytes]) -> bool:
        """Lock until the file is closed or the process dies; False if it is taken."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
