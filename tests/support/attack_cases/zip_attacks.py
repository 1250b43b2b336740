"""Attacks on the layout of the zip."""

from __future__ import annotations

import struct

from attack_cases import zips
from attack_cases.attack import Attack
from attack_cases.forging import added, altered, changed, deflated, listed, plain, sound_members
from attack_cases.zips import DEFLATED, Entry
from runtime import BundleFormatError, BundleIntegrityError


def overlapping() -> bytes:
    """David Fifield's bomb: many rows of the directory share one member's data."""
    rows = zips.entries(sound_members())
    first = rows[0]
    return zips.write([*rows, Entry(b"again.json", first.data, offset=0, local_name=first.name)])


def two_directories() -> bytes:
    """A whole other bundle before this one: who reads from the front sees the other."""
    return altered(before=plain())


def bomb(announced: int | None) -> bytes:
    return added(Entry(b"bomb.bin", bytes(50_000_000), DEFLATED, size=announced))


ZIPS = (
    Attack(
        "bytes before the zip",
        "A self-extracting program with a bundle at its end passes for the bundle.",
        lambda: altered(before=b"MZ\x90\x00" + bytes(60)),
        BundleFormatError,
        "begins at byte",
    ),
    Attack(
        "another bundle in front",
        "Readers that scan for the first member see another bundle than those that read the end.",
        two_directories,
        BundleFormatError,
        "begins at byte",
    ),
    Attack(
        "bytes behind the zip",
        "A payload that no hash covers travels with the bundle.",
        lambda: altered(after=b"payload"),
        BundleFormatError,
        "a comment or 7 bytes behind its end",
    ),
    Attack(
        "a whole zip behind the zip",
        "The last end record wins with most readers, the first one with a few.",
        lambda: plain() + zips.write([Entry(b"evil", b"")]),
        BundleFormatError,
        "end record does not fit the file",
    ),
    Attack(
        "a comment",
        "A comment can hold a second end record, for readers that search from the front.",
        lambda: altered(comment=zips.write([])),
        BundleFormatError,
        "end record does not fit",
    ),
    Attack(
        "a gap between members",
        "Bytes that belong to no member hide a payload.",
        lambda: changed("preprocess.onnx", after=b"hidden"),
        BundleFormatError,
        "members overlap",
    ),
    Attack(
        "a gap before the directory",
        "The same, behind the last member.",
        lambda: altered(between=b"hidden"),
        BundleFormatError,
        "expected nothing between them",
    ),
    Attack(
        "overlapping members",
        "A zip bomb without nesting: each row inflates the same bytes once more.",
        overlapping,
        BundleFormatError,
        "members overlap",
    ),
    Attack(
        "a member in the directory's place",
        "An offset beyond the members reads the directory itself, or nothing, as a member.",
        lambda: changed("golden.npz", offset=10**9),
        BundleFormatError,
        "members overlap",
    ),
    Attack(
        "another name in the local header",
        "Streaming readers take the local name: what one verifies, the other calls differently.",
        lambda: changed("golden.npz", local_name=b"../../x.py"),
        BundleFormatError,
        r"golden\.npz has another name, size, method or flag",
    ),
    Attack(
        "another size in the local header",
        "Streaming readers cut the member elsewhere.",
        lambda: changed("golden.npz", local_size=4),
        BundleFormatError,
        r"golden\.npz has another name, size",
    ),
    Attack(
        "another method in the local header",
        "One reader hashes the packed bytes, the next one inflates them.",
        lambda: changed("golden.npz", local_method=DEFLATED),
        BundleFormatError,
        r"golden\.npz has another name, size, method",
    ),
    Attack(
        "encrypted in the local header only",
        "Checkers that read the directory see a plain member.",
        lambda: changed("golden.npz", local_flags=1),
        BundleFormatError,
        "method or flag",
    ),
    Attack(
        "a data descriptor",
        "Sizes behind the data are found only by who trusts the directory or guesses.",
        lambda: changed("golden.npz", flags=8, after=struct.pack("<4s3L", b"PK\x07\x08", 0, 0, 0)),
        BundleFormatError,
        "its sizes behind its data",
    ),
    Attack(
        "encrypted",
        "What nobody can read, nobody has checked.",
        lambda: changed("golden.npz", flags=1),
        BundleFormatError,
        "is encrypted",
    ),
    Attack(
        "strongly encrypted",
        "The flag of another scheme, which zipfile ignores.",
        lambda: changed("golden.npz", flags=0x41),
        BundleFormatError,
        "is encrypted",
    ),
    Attack(
        "patched data",
        "Flag 5 makes the member a patch to something else.",
        lambda: changed("golden.npz", flags=0x20),
        BundleFormatError,
        "unknown flags 0x20",
    ),
    Attack(
        "packed by LZMA",
        "One more decompressor, whose memory the archive chooses.",
        lambda: changed("golden.npz", method=14),
        BundleFormatError,
        "packed by method 14",
    ),
    Attack(
        "packed by deflate64",
        "Not every device has it: some would open the bundle and some not.",
        lambda: changed("golden.npz", method=9),
        BundleFormatError,
        "packed by method 9",
    ),
    Attack(
        "stored with two sizes",
        "Readers differ in which of the two they believe.",
        lambda: changed("golden.npz", packed_size=10),
        BundleFormatError,
        "is stored, yet 10 bytes are to become",
    ),
    Attack(
        "zip64 sizes",
        "A second place for every size, which not every reader looks at.",
        lambda: changed(
            "golden.npz",
            size=0xFFFFFFFF,
            packed_size=0xFFFFFFFF,
            extra=struct.pack("<2H2Q", 1, 16, 4, 4),
        ),
        BundleFormatError,
        "zip64 sizes, extra fields",
    ),
    Attack(
        "zip64 sizes in the local header that lie",
        "The form that NumPy writes, with other numbers in it.",
        lambda: changed(
            "golden.npz",
            local_size=0xFFFFFFFF,
            local_extra=struct.pack("<2H2Q", 1, 16, 4, 4),
        ),
        BundleFormatError,
        r"golden\.npz has extra fields",
    ),
    Attack(
        "a Unicode path in an extra field",
        "Info-ZIP's readers take this name instead of the one that was checked.",
        lambda: changed("golden.npz", extra=struct.pack("<2HBL", 0x7075, 9, 1, 0) + b"evil"),
        BundleFormatError,
        "extra fields",
    ),
    Attack(
        "an extra field in the local header",
        "The same, where only streaming readers look.",
        lambda: changed("golden.npz", local_extra=struct.pack("<2H", 0x7075, 0)),
        BundleFormatError,
        r"golden\.npz has extra fields in its header",
    ),
    Attack(
        "a comment on a member",
        "Up to 64 KiB for each member that no hash covers.",
        lambda: changed("golden.npz", comment=b"payload"),
        BundleFormatError,
        "a comment or another disk",
    ),
    Attack(
        "several disks",
        "The rest of the zip is in another file.",
        lambda: altered(disk=1),
        BundleFormatError,
        "end record does not fit",
    ),
    Attack(
        "fewer members counted than there are",
        "The hidden row is seen by readers that go by the directory's length.",
        lambda: zips.write(
            [*zips.entries(sound_members()), Entry(b"evil.py", b"import os")], hidden=1
        ),
        BundleFormatError,
        "bytes more than its .* members need",
    ),
    Attack(
        "more members counted than there are",
        "Readers that trust the count read past the directory.",
        lambda: altered(count=99),
        BundleFormatError,
        "directory is damaged",
    ),
    Attack(
        "100,000 members counted",
        "65,535 means 'see zip64', where the true count would be.",
        lambda: altered(count=0xFFFF),
        BundleFormatError,
        "has 65535 members; expected at most 1000",
    ),
    Attack(
        "1,001 members",
        "A directory that takes longer to check than any model.",
        lambda: zips.write([Entry(f"m{i}".encode(), b"") for i in range(1001)]),
        BundleFormatError,
        "has 1001 members",
    ),
    Attack(
        "another checksum",
        "Four bytes for each member that no hash covers; other readers refuse the file.",
        lambda: changed("golden.npz", crc=0x600DF00D),
        BundleIntegrityError,
        r"golden\.npz has the checksum .*expected 600df00d",
    ),
    Attack(
        "a later version of zip needed",
        "Two bytes for each member that no hash covers; other readers refuse the file.",
        lambda: changed("golden.npz", needed=0x1234),
        BundleFormatError,
        r"golden\.npz needs version 4660 of the zip format; expected 10 or 20",
    ),
    Attack(
        "cut in the middle",
        "A download that stopped.",
        lambda: plain()[: len(plain()) // 2],
        BundleFormatError,
        "truncated or damaged",
    ),
    Attack(
        "a Git LFS pointer",
        "A repository that was cloned without LFS.",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        BundleFormatError,
        "pointer of a Git LFS file, not the bundle",
    ),
    Attack(
        "a bomb that says so",
        "50 MB from 50 KB; a thousand of them fill any device.",
        lambda: bomb(None),
        BundleFormatError,
        r"'bomb\.bin' would inflate from \d+ to 50000000 bytes",
    ),
    Attack(
        "a bomb that hides its size",
        "Announces two bytes, inflates to 50 MB.",
        lambda: forged_bomb(),
        BundleIntegrityError,
        "inflates beyond its 2 bytes",
        clean=lambda: listed("bomb.bin", b"xx", method=DEFLATED),
    ),
    Attack(
        "deflated data that ends early",
        "The rest of the announced size would be whatever the memory held.",
        lambda: changed(
            "measurements.json", method=DEFLATED, packed=deflated(b"{"), local_method=DEFLATED
        ),
        BundleIntegrityError,
        "does not end with 2 bytes",
        clean=lambda: changed("measurements.json", method=DEFLATED),
    ),
    Attack(
        "deflated data with more behind it",
        "Bytes behind the end of the stream, covered by no hash.",
        lambda: changed("measurements.json", method=DEFLATED, packed=deflated(b"{}") + b"more"),
        BundleIntegrityError,
        "does not end with 2 bytes",
        clean=lambda: changed("measurements.json", method=DEFLATED),
    ),
    Attack(
        "deflated data that is none",
        "An invalid block makes careless callers of zlib leak or loop.",
        lambda: changed("measurements.json", method=DEFLATED, packed=b"\xff" * 20),
        BundleIntegrityError,
        r"measurements\.json cannot be read",
        clean=lambda: changed("measurements.json", method=DEFLATED),
    ),
    Attack(
        "a symbolic link",
        "Unpacked, it leads out of the folder.",
        lambda: listed("link", b"/etc/passwd", attributes=0o120777 << 16),
        BundleFormatError,
        "'link' is a symbolic link",
        clean=lambda: listed("link", b"/etc/passwd"),
    ),
    Attack(
        "a device",
        "Unpacked by root, it is one.",
        lambda: listed("null", b"", attributes=0o020666 << 16),
        BundleFormatError,
        "a folder or a device",
        clean=lambda: listed("null", b""),
    ),
    Attack(
        "a folder",
        "Has no hash, and may be there with or without its members.",
        lambda: added(Entry(b"variants/", b"")),
        BundleFormatError,
        "'variants/' has an absolute, parent or folder path",
    ),
    Attack(
        "a folder by its DOS attribute",
        "A file for some readers, a folder for others.",
        lambda: changed("measurements.json", attributes=0x10),
        BundleFormatError,
        "a folder or a device",
    ),
)


def forged_bomb() -> bytes:
    """Both headers and the manifest agree on two bytes; only the data does not."""
    packed = deflated(bytes(50_000_000))
    return listed("bomb.bin", b"xx", method=DEFLATED, packed=packed)
