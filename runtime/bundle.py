"""Where a model's parts come from: a bundle, which is a zip that is never unpacked, or parts in
memory that are not packed yet. ``BUNDLE.md`` is the format's specification.

Opening a bundle checks names, sizes and the manifest, then hashes every member; nothing but the
manifest is parsed before that. ``read`` hashes again, so that the bytes that are used are the
bytes that were verified, even when somebody writes to the file in between. Hashes detect
damage; they do not detect forgery. Knows nothing of sessions or images.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol, cast

from .errors import BundleFormatError, BundleIntegrityError, InputError
from .manifest import (
    MANIFEST_HASH_NAME,
    MANIFEST_NAME,
    PREPROCESS_NAME,
    Default,
    Manifest,
    Variant,
)
from .spec import ModelSpec

MANIFEST_SIGNATURE_NAME = "manifest.sig"
_UNLISTED = (MANIFEST_NAME, MANIFEST_HASH_NAME, MANIFEST_SIGNATURE_NAME)
_MAX_MANIFEST_BYTES = 1 << 20  # a real one has some kilobytes; it is read before any hash is known
_MAX_HASH_BYTES = 256  # 64 digits, and what sha256sum adds
_MAX_MEMBERS = 1000
_MAX_MEMBER_BYTES = 1 << 31  # protobuf, and so ONNX, ends there
_CHUNK_BYTES = 1 << 20  # of one member in memory while it is hashed
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_LFS_POINTER = b"version https://git-lfs"
_ZIP_START = b"PK\x03\x04"
_READ_ERRORS = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


class ModelParts(Protocol):
    """What opening a model needs; ``Bundle`` and ``Parts`` have it."""

    manifest: Manifest
    id: str | None  # sha256 of the manifest; None when there is no bundle yet

    def read(self, name: str) -> bytes:
        """The bytes of one member, verified; raises BundleError."""

    def verify(self) -> None:
        """Hash every member; raises BundleIntegrityError."""

    def close(self) -> None:
        """Close what was opened; ``read`` is over."""


class Bundle:
    """A bundle that is open for reading; safe to read from many threads."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Check and hash the zip in ``file``; ``name`` is for messages. See ``Bundle.open``."""
        self._name = name
        self._owned: IO[bytes] | None = None  # what close() must close
        self._archive = _archive(file, name)
        self._members = _members(self._archive, name)
        text = self._inflate(MANIFEST_NAME, _MAX_MANIFEST_BYTES)
        self.id: str | None = hashlib.sha256(text).hexdigest()
        recorded = self._inflate(MANIFEST_HASH_NAME, _MAX_HASH_BYTES).split()
        if recorded[:1] != [self.id.encode()]:
            raise BundleIntegrityError(
                f"{name}: {MANIFEST_NAME} has the sha256 {self.id}, {MANIFEST_HASH_NAME} says "
                "otherwise; the bundle is damaged or was altered. Copy it again."
            )
        self.manifest = Manifest.from_json(text)
        self._check_members()
        self.verify()

    @classmethod
    def open(cls, source: Source) -> Bundle:
        """Open a path, the bytes of a bundle, or a binary file that can seek (left open).

        Raises BundleFormatError or BundleIntegrityError.
        """
        if hasattr(source, "read") and hasattr(source, "seek"):
            return cls(cast("IO[bytes]", source), str(getattr(source, "name", "the bundle")))
        if isinstance(source, (bytes, bytearray, memoryview)):
            return cls(io.BytesIO(source), "the bundle")
        if not isinstance(source, (str, os.PathLike)):
            raise BundleFormatError(
                f"a bundle cannot be opened from a {type(source).__name__}; expected a path, "
                "bytes or a binary file that can seek."
            )
        file = _open_file(source)
        try:
            bundle = cls(file, str(source))
        except BaseException:
            file.close()
            raise
        bundle._owned = file
        return bundle

    def read(self, name: str) -> bytes:
        """The bytes of one listed member, whose size and hash are those of the manifest."""
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleFormatError(f"{self._name}: there is no member {name}.")
        data = self._inflate(name, entry.size_bytes)
        self._check_hash(name, hashlib.sha256(data).hexdigest())
        return data

    def verify(self) -> None:
        """Hash every listed member in constant memory; raises BundleIntegrityError."""
        for name in self.manifest.files:
            digest = hashlib.sha256()
            for chunk in self._chunks(name):
                digest.update(chunk)
            self._check_hash(name, digest.hexdigest())

    def close(self) -> None:
        """Close the file, unless it was opened by the caller."""
        self._archive.close()
        if self._owned is not None:
            self._owned.close()

    def _check_members(self) -> None:
        listed, found = self.manifest.files, set(self._members) - set(_UNLISTED)
        if extra := sorted(found - set(listed)):
            raise BundleFormatError(f"{self._name}: the manifest does not list {extra}.")
        if missing := sorted(set(listed) - found):
            raise BundleFormatError(f"{self._name}: the members {missing} are missing.")
        for name, entry in listed.items():
            size = self._members[name].file_size
            if size != entry.size_bytes or size > _MAX_MEMBER_BYTES:
                raise BundleIntegrityError(
                    f"{self._name}: {name} has {size} bytes; expected the {entry.size_bytes} "
                    f"of the manifest, at most {_MAX_MEMBER_BYTES}. Copy the bundle again."
                )

    def _check_hash(self, name: str, found: str) -> None:
        expected = self.manifest.files[name].sha256
        if found != expected:
            raise BundleIntegrityError(
                f"{self._name}: {name} has the sha256 {found}; expected {expected}. The bundle is "
                "damaged or was altered. Copy it again."
            )

    def _inflate(self, name: str, limit_bytes: int) -> bytes:
        """The bytes of one member whose announced size is at most ``limit_bytes``."""
        if name not in self._members:
            raise BundleFormatError(f"{self._name}: there is no {name}, so this is no bundle.")
        size = self._members[name].file_size
        if size > limit_bytes:
            raise BundleFormatError(
                f"{self._name}: {name} has {size} bytes; expected at most {limit_bytes}."
            )
        return b"".join(self._chunks(name))

    def _chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of one member; zipfile stops at the size that the directory announces."""
        try:
            with self._archive.open(self._members[name]) as member:
                while chunk := member.read(_CHUNK_BYTES):
                    yield chunk
        except _READ_ERRORS as exc:
            raise BundleIntegrityError(
                f"{self._name}: {name} cannot be read ({exc}); the bundle is damaged or closed."
            ) from exc


class Parts:
    """A model that is not packed yet, opened by the very code that opens a bundle."""

    id: str | None = None

    def __init__(
        self,
        spec: ModelSpec,
        preprocess: bytes | None,
        model: bytes,
        *,
        thresholds: tuple[float, ...] | None,
        variant: str,
    ) -> None:
        """Only the named variant exists; ``thresholds`` default to 0.5 for each label."""
        if spec.task == "multi-class" and thresholds is not None:
            raise InputError("thresholds were given to a multi-class model, which has none.")
        if spec.task == "multi-label":
            thresholds = (0.5,) * len(spec.labels) if thresholds is None else thresholds
            if len(thresholds) != len(spec.labels):
                raise InputError(
                    f"{len(thresholds)} thresholds were given; expected one for each of the "
                    f"{len(spec.labels)} labels."
                )
        row = Variant(
            id=variant,
            file=f"variants/{variant}.onnx",
            precision=variant.partition("-")[0],  # ids begin with it
            portable=False,
            golden_tolerance=0.0,
            thresholds=thresholds,
        )
        self._members = {row.file: model}
        if preprocess is not None:
            self._members[PREPROCESS_NAME] = preprocess
        self.manifest = Manifest(
            model_version="",
            spec=spec,
            files={},
            variants=(row,),
            defaults=(Default("cpu", variant, "it is the only one."),),
        )

    def read(self, name: str) -> bytes:
        """One of the parts; raises BundleFormatError for one that was not given."""
        if name not in self._members:
            raise BundleFormatError(f"{name} was not among the parts of this predictor.")
        return self._members[name]

    def verify(self) -> None:
        """Parts have no hashes."""

    def close(self) -> None:
        """Let go of the parts."""
        self._members = {}


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file that is no member of a bundle; raises BundleFormatError."""
    with _open_file(path) as file:
        return file.read()


def _open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as exc:  # ValueError: a null character in the path
        raise BundleFormatError(f"{path}: cannot be opened: {exc}.") from exc


def _archive(file: IO[bytes], name: str) -> zipfile.ZipFile:
    """The zip in ``file``, or an error that says what is there instead."""
    try:
        return zipfile.ZipFile(file)
    except Exception as exc:  # a hostile directory raises struct.error, IndexError and more
        raise BundleFormatError(f"{name}: {_what_it_is(file)}") from exc


def _what_it_is(file: IO[bytes]) -> str:
    try:
        file.seek(0)
        start = file.read(len(_LFS_POINTER))
    except (OSError, ValueError) as exc:
        return f"cannot be read: {exc}."
    if not start:
        return "the file is empty; expected a bundle. Copy it again."
    if start == _LFS_POINTER:
        return "this is the pointer of a Git LFS file, not the bundle. Run git lfs pull."
    if start.startswith(_ZIP_START):
        return "the zip is truncated or damaged: its directory cannot be read. Copy it again."
    return f"this is no zip file (it begins with {start[:8]!r}); expected a bundle."


def _members(archive: zipfile.ZipFile, name: str) -> dict[str, zipfile.ZipInfo]:
    """The directory by name; refuses every entry that a bundle must not have."""
    entries = archive.infolist()
    if len(entries) > _MAX_MEMBERS:
        raise BundleFormatError(
            f"{name}: the zip has {len(entries)} members; expected at most {_MAX_MEMBERS}."
        )
    for entry in entries:
        if reason := _refusal(entry):
            raise BundleFormatError(f"{name}: the member {entry.orig_filename!r} {reason}.")
    names = Counter(entry.filename.casefold() for entry in entries)
    if repeated := sorted(name for name, count in names.items() if count > 1):
        raise BundleFormatError(f"{name}: the zip has several members named {repeated}.")
    return {entry.filename: entry for entry in entries}


def _refusal(entry: zipfile.ZipInfo) -> str | None:
    """Why a bundle must not have this entry; None for a decent one."""
    path = entry.orig_filename
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "has an absolute, parent or folder path; expected a relative file name"
    if "\\" in path or ":" in path or not path.isprintable():
        return "has a name that means different files on different systems"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a symbolic link; expected a file"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted; expected plain members"
    if entry.compress_type not in _METHODS:
        return f"is packed by method {entry.compress_type}; expected 0 (stored) or 8 (deflated)"
    return None
