"""A zip that can be read in one way only. Readers of zips disagree on files that hold two
directories, two names or two sizes for one member, and what one of them checked is not what the
next one uses; here such a file is refused.

From its first byte to its last the file is: members, each a header and its data, without a gap;
the directory; the end record. Every local header says what the directory says, and the checksum
is that of the data. Nothing is inflated beyond the size that the directory announces.
``require_fixed_fields`` refuses whatever else a header can say in several ways. Independent of
bundles and arrays.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, NoReturn

from .errors import BundleError, BundleFormatError, BundleIntegrityError
from .origin import let_through

MAX_MEMBERS = 1000
_MAX_FILE_BYTES = (1 << 32) - 2  # beyond it a zip needs zip64, a second place for every size
_MAX_NAME_BYTES = 200
_CHUNK_BYTES = 1 << 20  # of one member in memory while it is hashed
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DESCRIPTOR = 0x8  # sizes behind the data, where only readers that trust them find them
_KNOWN_FLAGS = 0x2 | 0x4 | 0x800  # two levels of deflate, and that names are UTF-8
_FOLDER = 0x10  # of DOS
_FREE_BYTES = 1 << 20  # up to here any ratio will do
_MAX_RATIO = 100  # deflate reaches 1032; text and weights stay below 20
_LFS_POINTER = b"version https://git-lfs"
_START, _ENTRY_MARK, _END_MARK = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_ZIP64 = struct.Struct("<2H2Q")
_IN_ZIP64 = 0xFFFFFFFF
_VERSIONS_NEEDED = (10, 20)  # 1.0 and 2.0, as writers of stored and deflated members say
_ZIP64_NEEDED = 45  # 4.5, next to a zip64 field
# What exporters/package writes: version 2.0 of unix made it and is needed, stored, 1980-01-01,
# a plain file that its owner may write. With them no bit of a header is free.
_FIXED = {
    "version made by": 0x0314,
    "version needed": 20,
    "flags": 0,
    "method": _STORED,
    "time": 0,
    "date": 0x21,
    "internal attributes": 0,
    "external attributes": 0o100644 << 16,
}
_MAX_COMMENT_BYTES = 0xFFFF
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*", re.ASCII)
_RESERVED = re.compile(r"(?:^|/)(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|/|$)|\.(?:/|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Member:
    """One row of the directory that passed the checks."""

    name: str
    method: int
    packed_bytes: int
    size_bytes: int  # of what comes out
    header_at: int  # of the local header, from the start of the file
    # version needed, flags, method, time, date, checksum: as the local header has them
    fields: tuple[int, ...]
    made: tuple[int, int, int]  # version made by, internal and external attributes

    @property
    def checksum(self) -> int:
        """CRC-32 of what comes out."""
        return self.fields[5]


class ZipReader:
    """The members of a zip, checked as the module says; safe to read from many threads."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Read the directory in ``file``; ``name`` is for messages.

        Raises BundleFormatError.
        """
        self.name = name
        self._file: IO[bytes] | None = file
        self._lock = threading.Lock()  # the file offset is shared state
        try:
            rows, directory_at = self._directory(file)
            self.members = self._checked(rows)
            self._data_at = self._layout(directory_at)
        except (OSError, ValueError) as exc:  # ValueError: a closed file
            let_through(exc)
            raise BundleFormatError(f"{name}: cannot be read: {exc}.") from exc

    def inflate(self, name: str, limit_bytes: int) -> bytes:
        """The bytes of one member whose announced size is at most ``limit_bytes``.

        Raises BundleFormatError or BundleIntegrityError.
        """
        size = self.members[name].size_bytes
        if size > limit_bytes:
            raise BundleFormatError(
                f"{self.name}: {name} has {size} bytes; expected at most {limit_bytes}."
            )
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of one member, exactly as many as announced.

        Raises BundleIntegrityError; BundleError when it was closed."""
        member = self.members[name]
        chunks = self._packed if member.method == _STORED else self._inflated
        checksum = 0
        try:
            for chunk in chunks(member):
                checksum = zlib.crc32(chunk, checksum)
                yield chunk
        except (OSError, ValueError, EOFError, zlib.error) as exc:
            let_through(exc)
            raise BundleIntegrityError(
                f"{self.name}: {name} cannot be read ({exc}); the bundle is damaged or closed."
            ) from exc
        if checksum != member.checksum:
            raise BundleIntegrityError(
                f"{self.name}: {name} has the checksum {checksum:08x}; expected "
                f"{member.checksum:08x}, as its header says. The bundle is damaged or was altered. "
                "Copy it again."
            )

    def require_fixed_fields(self) -> None:
        """Refuse a header with another version, flag, method, time or attribute than the one that
        bundles are written with: no hash covers it. Raises BundleFormatError."""
        for member in self.members.values():
            needed, flags, method, time, date, _ = member.fields
            made_by, internal, external = member.made
            values = (made_by, needed, flags, method, time, date, internal, external)
            for (field, expected), value in zip(_FIXED.items(), values, strict=True):
                if value != expected:
                    self._refuse(
                        f"{member.name} has the {field} {value:#x} in the zip's directory; "
                        f"expected {expected:#x} in a signed bundle, where no bit may be changed. "
                        "Sign it again with pipeline sign."
                    )

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where no thread is left to release it."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Release the file; it is the caller's."""
        self._file = None

    def _directory(self, file: IO[bytes]) -> tuple[list[Member], int]:
        """The rows of the directory, and its position."""
        file.seek(0, os.SEEK_END)
        size = file.tell()  # not every file's seek() returns it
        if size > _MAX_FILE_BYTES:
            self._refuse(f"the file has {size} bytes; expected at most {_MAX_FILE_BYTES}.")
        end_at = max(0, size - _END.size)
        end = self._at(end_at, _END.size)
        if len(end) < _END.size or not end.startswith(_END_MARK):
            self._refuse(self._what_it_is(size))
        _, disk, first_disk, here, count, length, start, comment = _END.unpack(end)
        if count > MAX_MEMBERS:
            self._refuse(f"the zip has {count} members; expected at most {MAX_MEMBERS}.")
        if disk or first_disk or here != count or comment or start + length != end_at:
            self._refuse(
                f"the zip's end record does not fit the file ({count} members in a directory of "
                f"{length} bytes at {start}, {size} bytes in all); something was added, cut or "
                "altered. Copy it again."
            )
        if length > MAX_MEMBERS * (_ENTRY.size + _MAX_NAME_BYTES):
            self._refuse(f"the zip's directory has {length} bytes for {count} members.")
        return self._rows(self._at(start, length), count), start

    def _rows(self, directory: bytes, count: int) -> list[Member]:
        rows, at = [], 0
        for _ in range(count):
            if len(directory) - at < _ENTRY.size or directory[at : at + 4] != _ENTRY_MARK:
                self._refuse(f"the zip's directory is damaged at byte {at}. Copy it again.")
            fields = _ENTRY.unpack_from(directory, at)
            name_end = at + _ENTRY.size + fields[10]
            raw_name = directory[at + _ENTRY.size : name_end]
            if len(raw_name) != fields[10]:
                self._refuse(f"the zip's directory is damaged at byte {at}. Copy it again.")
            if reason := _refusal(raw_name, fields):
                shown = raw_name[:_MAX_NAME_BYTES].decode("utf-8", "backslashreplace")
                self._refuse(f"the member {shown!r} {reason}.")
            method, packed, size, header_at = (fields[i] for i in (4, 8, 9, 16))
            made = (fields[1], fields[14], fields[15])
            name = raw_name.decode()
            rows.append(Member(name, method, packed, size, header_at, fields[2:8], made))
            at = name_end
        if at != len(directory):
            self._refuse(
                f"the zip's directory has {len(directory) - at} bytes more than its {count} "
                "members need. Copy it again."
            )
        return rows

    def _checked(self, rows: list[Member]) -> dict[str, Member]:
        names = Counter(row.name.lower() for row in rows)
        if repeated := sorted(name for name, times in names.items() if times > 1):
            self._refuse(f"the zip has several members named {repeated}.")
        return {row.name: row for row in rows}

    def _layout(self, directory_at: int) -> dict[str, int]:
        """The position of each member's data; refuses gaps, overlaps and headers that disagree."""
        positions, at = {}, 0
        for member in sorted(self.members.values(), key=lambda row: row.header_at):
            if member.header_at != at:
                self._refuse(
                    f"{member.name} begins at byte {member.header_at}; expected {at}: members "
                    "overlap, or something is between them. Copy it again."
                )
            data_at = at + self._header_bytes(member)
            positions[member.name] = data_at
            at = data_at + member.packed_bytes
        if at != directory_at:
            self._refuse(
                f"the zip's members end at byte {at} and its directory begins at {directory_at}; "
                "expected nothing between them. Copy it again."
            )
        return positions

    def _header_bytes(self, member: Member) -> int:
        """The length of a local header that says what the directory says."""
        name = member.name.encode()
        length = _LOCAL.size + len(name)
        header = self._at(member.header_at, length + _ZIP64.size)
        header = header.ljust(length + _ZIP64.size, b"\0")  # in a file that was cut short
        extra_bytes: int
        mark, *fields, name_bytes, extra_bytes = _LOCAL.unpack_from(header)
        versions: tuple[int, ...] = _VERSIONS_NEEDED
        if extra_bytes == _ZIP64.size and fields[6:] == [_IN_ZIP64] * 2:  # as NumPy writes it
            *kind, size_bytes, packed_bytes = _ZIP64.unpack_from(header, length)
            fields[6:] = [packed_bytes, size_bytes] if kind == [1, 16] else kind
            versions = (*versions, _ZIP64_NEEDED)
        elif extra_bytes and mark == _START:
            self._refuse(f"{member.name} has extra fields in its header; expected none.")
        header_fields = (mark, name_bytes, header[_LOCAL.size : length], *fields)
        sizes = (member.packed_bytes, member.size_bytes)
        if header_fields != (_START, len(name), name, *member.fields, *sizes):
            self._refuse(
                f"{member.name} has another name, size, method or flag in its own header than in "
                "the zip's directory; the bundle is damaged or was altered. Copy it again."
            )
        if fields[0] not in versions:
            self._refuse(
                f"{member.name} needs version {fields[0]} of the zip format; expected 10 or 20."
            )
        return length + extra_bytes

    def _packed(self, member: Member) -> Iterator[bytes]:
        start = self._data_at[member.name]
        for done in range(0, member.packed_bytes, _CHUNK_BYTES):
            size = min(_CHUNK_BYTES, member.packed_bytes - done)
            chunk = self._at(start + done, size)
            if len(chunk) != size:
                raise EOFError("the file ends too early")
            yield chunk

    def _inflated(self, member: Member) -> Iterator[bytes]:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        left = member.size_bytes
        for packed in self._packed(member):
            more = True
            while more:
                chunk = inflater.decompress(packed, _CHUNK_BYTES)
                left -= len(chunk)
                if left < 0:
                    raise ValueError(f"it inflates beyond its {member.size_bytes} bytes")
                if chunk:
                    yield chunk
                packed = inflater.unconsumed_tail
                more = bool(packed) or len(chunk) == _CHUNK_BYTES
        if left or not inflater.eof or inflater.unused_data:
            raise ValueError(f"its deflated data does not end with {member.size_bytes} bytes")

    def _at(self, position: int, count: int) -> bytes:
        with self._lock:
            file = self._file  # close(), in another thread, does not wait
            if file is None:
                raise BundleError(f"{self.name}: the bundle was closed. Open it again.")
            file.seek(position)
            data = file.read(count)
        if not isinstance(data, bytes):
            raise ValueError(f"its read() gives a {type(data).__name__}; open it in binary mode")
        return data

    def _what_it_is(self, size: int) -> str:
        """Describe a file without an end record at its end."""
        start = self._at(0, len(_LFS_POINTER))
        if not start:
            return "the file is empty; expected a bundle. Copy it again."
        if start == _LFS_POINTER:
            return "this is the pointer of a Git LFS file, not the bundle. Run git lfs pull."
        tail = self._at(max(0, size - _END.size - _MAX_COMMENT_BYTES), size)
        if (mark := tail.rfind(_END_MARK)) >= 0 and len(tail) - mark > _END.size:
            extra = len(tail) - mark - _END.size
            return f"the zip has a comment or {extra} bytes behind its end; expected none."
        if start.startswith(_START):
            return "the zip is truncated or damaged: its directory cannot be read. Copy it again."
        return f"this is not a zip file (it begins with {start[:8]!r}); expected a bundle."

    def _refuse(self, reason: str) -> NoReturn:
        raise BundleFormatError(f"{self.name}: {reason}")


def _refusal(raw_name: bytes, fields: tuple[int, ...]) -> str | None:
    """Why a member of this name, with these fields of the directory, may not be; or None."""
    flags, method, packed, size = fields[3], fields[4], fields[8], fields[9]
    mode, dos = fields[15] >> 16, fields[15] & 0xFFFF
    if reason := _name_refusal(raw_name):
        return reason
    if stat.S_ISLNK(mode):
        return "is a symbolic link; expected a file"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or dos & _FOLDER:
        return "is a folder or a device; expected a file"
    if flags & _ENCRYPTED:
        return "is encrypted; expected plain members"
    if flags & _DESCRIPTOR:
        return "has its sizes behind its data; expected them in its header"
    if flags & ~_KNOWN_FLAGS:
        return f"has the unknown flags {flags & ~_KNOWN_FLAGS:#x}"
    if method not in (_STORED, _DEFLATED):
        return f"is packed by method {method}; expected 0 (stored) or 8 (deflated)"
    if method == _STORED and packed != size:
        return f"is stored, yet {packed} bytes are to become {size}"
    if _IN_ZIP64 in (packed, size, fields[16]) or any(fields[11:14]):
        return "has zip64 sizes, extra fields, a comment or another disk; expected none"
    if size > max(_FREE_BYTES, _MAX_RATIO * packed):
        return (
            f"would inflate from {packed} to {size} bytes; expected at most {_MAX_RATIO} times "
            "as many"
        )
    return None


def _name_refusal(raw_name: bytes) -> str | None:
    name = raw_name.decode("utf-8", "replace")
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "has an absolute, parent or folder path; expected a relative file name"
    if not _NAME.fullmatch(name) or _RESERVED.search(name) or len(name) > _MAX_NAME_BYTES:
        return (
            "has a name that means different files on different systems; expected at most "
            f"{_MAX_NAME_BYTES} letters, digits and _ . + - of ASCII"
        )
    return None
