"""A lock on a folder, for one run at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.engine.errors import as_store_error
from pipeline.errors import StoreError

LOCK_NAME = ".lock"  # holds the number of the process that has locked it
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_OWNER_BYTES = 32  # the number of a process


@contextmanager
def locked(folder: Path, option: str = "--artifacts DIR", kept: str = "stages") -> Iterator[None]:
    """Make ``folder`` and keep other runs out of it; a killed run leaves no lock behind.

    ``option`` chooses another folder, and finished ``kept`` survive, for messages. Raises
    StoreError where another run works in the folder, and where it cannot be written or locked.
    """
    from filelock import FileLock, Timeout  # takes 80 ms, which --help need not wait for

    file = folder / LOCK_NAME
    with as_store_error(folder, option, kept):
        folder.mkdir(parents=True, exist_ok=True)
        # a soft lock would outlive a killed run
        lock = FileLock(file, timeout=0, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout as exc:
            raise StoreError(
                f"{folder} is in use by another run (process {_owner(file)}). Wait for it, or "
                f"give this run a folder of its own with {option}."
            ) from exc
        except (OSError, NotImplementedError) as exc:
            if isinstance(exc, OSError) and exc.errno not in _NO_LOCKS:
                raise
            raise StoreError(
                f"{folder} cannot be locked: {exc}. Some network file systems do not support "
                f"locks. Choose a folder on a local disk with {option}."
            ) from exc
    try:
        with suppress(OSError):  # on a full disk the lock holds without its owner's name
            file.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        lock.release()


def _owner(file: Path) -> str:
    """The process that holds the lock; on Windows nobody can read a locked file."""
    try:
        with file.open("rb") as content:
            return content.read(_OWNER_BYTES).decode("ascii", "replace").strip() or "unknown"
    except OSError:
        return "unknown"
