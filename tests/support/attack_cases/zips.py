"""Zips written byte by byte, so that every field can lie on its own."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Sequence

STORED, DEFLATED = 0, 8


@dataclasses.dataclass
class Entry:
    """One member; ``None`` means the truth. ``local_*`` are what its own header says."""

    name: bytes
    data: bytes
    method: int = STORED
    flags: int = 0
    attributes: int = 0o100644 << 16
    size: int | None = None  # announced
    packed_size: int | None = None
    extra: bytes = b""
    comment: bytes = b""
    local_name: bytes | None = None
    local_size: int | None = None
    local_method: int | None = None
    local_flags: int | None = None
    local_extra: bytes = b""
    offset: int | None = None  # in the directory
    after: bytes = b""  # behind the data
    packed: bytes | None = None  # other bytes than those that the method gives
    crc: int | None = None  # in both headers
    needed: int = 20  # version, in both headers
    made_by: int = 0x0314
    time: tuple[int, int] = (0, 33)  # and date, in both headers
    internal: int = 0  # attributes

    def packed_data(self) -> bytes:
        if self.packed is not None:
            return self.packed
        if self.method != DEFLATED:
            return self.data
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflater.compress(self.data) + deflater.flush()


def entries(members: dict[str, bytes]) -> list[Entry]:
    return [Entry(name.encode(), data) for name, data in members.items()]


def write(
    rows: Sequence[Entry],
    *,
    before: bytes = b"",
    between: bytes = b"",
    after: bytes = b"",
    comment: bytes = b"",
    count: int | None = None,
    hidden: int = 0,
    disk: int = 0,
) -> bytes:
    """``before`` the first member, ``between`` members and directory, ``after`` the end record;
    the last ``hidden`` rows stand in the directory and are not counted."""
    body, directory = bytearray(before), bytearray()
    for row in rows:
        packed = row.packed_data()
        size = len(row.data) if row.size is None else row.size
        packed_size = len(packed) if row.packed_size is None else row.packed_size
        crc = zlib.crc32(row.data) if row.crc is None else row.crc
        offset = len(body) if row.offset is None else row.offset
        local_name = row.name if row.local_name is None else row.local_name
        body += struct.pack(
            "<4s5H3L2H",
            *(b"PK\x03\x04", row.needed, row.flags if row.local_flags is None else row.local_flags),
            *(row.method if row.local_method is None else row.local_method, *row.time, crc),
            *(packed_size, size if row.local_size is None else row.local_size),
            *(len(local_name), len(row.local_extra)),
        )
        body += local_name + row.local_extra + packed + row.after
        directory += struct.pack(
            "<4s6H3L5H2L",
            *(b"PK\x01\x02", row.made_by, row.needed, row.flags, row.method, *row.time, crc),
            *(packed_size, size, len(row.name), len(row.extra), len(row.comment), 0, row.internal),
            *(row.attributes, offset),
        )
        directory += row.name + row.extra + row.comment
    body += between
    total = len(rows) - hidden if count is None else count
    end = (b"PK\x05\x06", disk, 0, total, total, len(directory), len(body), len(comment))
    return bytes(body + directory + struct.pack("<4s4H2LH", *end) + comment + after)
