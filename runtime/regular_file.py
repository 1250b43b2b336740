"""Reading of paths that come from elsewhere, if they are files: a pipe would wait for its writer, a
device like /dev/zero never ends. Standard library only; independent of what files hold."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """The file at ``path``, open for reading, without ever waiting. Raises OSError, also
    where it is not a regular file, and ValueError for a path with a null character."""
    _require_file(os.stat(path).st_mode, path)  # noqa: PTH116 - opening a device may do something
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller's
    try:
        _require_file(os.fstat(file.fileno()).st_mode, path)  # it may be another one by now
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], limit_bytes: int) -> bytes:
    """The bytes of the file at ``path``, at most ``limit_bytes`` of them; raises as
    :func:`open_regular` does, and OSError where there are more."""
    with open_regular(path) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise OSError(
            errno.EFBIG, f"it has more than {limit_bytes:,} bytes, the most", os.fspath(path)
        )
    return data


def _require_file(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, f"it is {kind}; expected a file", os.fspath(path))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
