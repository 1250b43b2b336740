"""Zips with the same bytes for the same members, and files that appear whole or not at all."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from exporters.files import atomic_file

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip can hold
_FILE_MODE = 0o100644 << 16  # a plain file, as unix writes it into a zip


def zip_bytes(members: Mapping[str, bytes]) -> bytes:
    """An uncompressed zip of ``members`` in their order, without times.

    Uncompressed, because weights hardly shrink, stored members load fastest, and the bytes of
    deflate depend on the version of zlib.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # unix, wherever this runs
            entry.external_attr = _FILE_MODE
            archive.writestr(entry, data)
    return buffer.getvalue()


def replace_file(path: Path, data: bytes, check: Callable[[Path], None]) -> None:
    """Write ``data`` next to ``path``, let ``check`` read it, then rename it to ``path``.

    Whatever fails before the rename (a full disk, ``check``, an interrupt) leaves an existing
    ``path`` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        partial.write_bytes(data)
        check(partial)
