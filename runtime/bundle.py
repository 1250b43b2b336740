"""The sources of a model's parts: a bundle, which is a zip that is never unpacked, or parts in
memory that are not packed yet. ``BUNDLE.md`` is the format's specification.

Opening a bundle checks the zip, the manifest's hash, its signature where keys are given, and the
sizes, then hashes every member; nothing but the manifest is parsed before that. ``read`` hashes
again, so that the bytes that are used are those that were verified, even if the file was written to
in between. Hashes detect damage; only a signature detects forgery. Independent of sessions and
images.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable
from typing import IO, Protocol, cast

from .errors import BundleFormatError, BundleIntegrityError, InputError
from .manifest import (
    MANIFEST_HASH_NAME,
    MANIFEST_NAME,
    MANIFEST_SIGNATURE_NAME,
    PREPROCESS_NAME,
    Default,
    Manifest,
    Variant,
)
from .origin import let_through
from .regular_file import open_regular
from .signature import SIGNATURE_BYTES, signer
from .spec import ModelSpec
from .tasks import task_named
from .zip_reader import ZipReader

_UNLISTED = (MANIFEST_NAME, MANIFEST_HASH_NAME, MANIFEST_SIGNATURE_NAME)
_MAX_MANIFEST_BYTES = 1 << 20  # a real one has some kilobytes; it is read before any hash is known
_MAX_HASH_BYTES = 256  # 64 digits, and what sha256sum adds
_MAX_MEMBER_BYTES = 1 << 31  # protobuf, and so ONNX, ends there
_MAX_BUNDLE_BYTES = 1 << 32  # of all members together: some seconds of hashing
_HASH_FILE = re.compile(rb"([0-9a-f]{64})([ \t]+\*?[\w./-]*)?[\r\n]*")

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


class ModelParts(Protocol):
    """The interface that opening a model needs; ``Bundle`` and ``Parts`` have it."""

    manifest: Manifest
    id: str | None  # sha256 of the manifest; None when there is no bundle yet
    signed_by: str | None  # the trusted key that signed it; None when no key was asked for

    def read(self, name: str) -> bytes:
        """The bytes of one member, verified; raises BundleError."""

    def verify(self) -> None:
        """Hash every member; raises BundleIntegrityError."""

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where no thread is left to release it."""

    def close(self) -> None:
        """Close what was opened; ``read`` then raises."""


class Bundle:
    """A bundle that is open for reading; safe to read from many threads."""

    def __init__(
        self, file: IO[bytes], name: str, trusted_keys: Iterable[str] | None = None
    ) -> None:
        """Check and hash the zip in ``file``; ``name`` is for messages. See ``Bundle.open``."""
        self._name = name
        self._owned: IO[bytes] | None = None  # what close() must close
        self._zip = ZipReader(file, name)
        text = self._small(MANIFEST_NAME, _MAX_MANIFEST_BYTES)
        self.id: str | None = hashlib.sha256(text).hexdigest()
        recorded = _HASH_FILE.fullmatch(self._small(MANIFEST_HASH_NAME, _MAX_HASH_BYTES))
        if recorded is None or recorded[1] != self.id.encode():
            raise BundleIntegrityError(
                f"{name}: {MANIFEST_NAME} has the sha256 {self.id}, {MANIFEST_HASH_NAME} says "
                "otherwise; the bundle is damaged or was altered. Copy it again."
            )
        self.signed_by = self._signer(text, trusted_keys)
        if self.signed_by is not None:
            self._require_no_choice()
        self.manifest = Manifest.from_json(text)
        self._check_members()
        self.verify()

    @classmethod
    def open(cls, source: Source, trusted_keys: Iterable[str] | None = None) -> Bundle:
        """Open a path, the bytes of a bundle, or a binary file that can seek (left open).

        With ``trusted_keys``, public keys as ``pipeline keygen`` prints them, a bundle that none
        of them signed is refused.

        Raises BundleFormatError, BundleIntegrityError or SignatureError; InputError for a key
        that is not one; RuntimeMissing when keys are given and cryptography is not installed.
        """
        if hasattr(source, "read") and hasattr(source, "seek"):
            name = str(getattr(source, "name", "the bundle"))
            return cls(cast("IO[bytes]", source), name, trusted_keys)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return cls(io.BytesIO(source), "the bundle", trusted_keys)
        if not isinstance(source, (str, os.PathLike)):
            raise BundleFormatError(
                f"a bundle cannot be opened from a {type(source).__name__}; expected a path, "
                "bytes or a binary file that can seek."
            )
        file = open_file(source)
        try:
            bundle = cls(file, str(source), trusted_keys)
        except BaseException:
            file.close()
            raise
        bundle._owned = file
        return bundle

    @property
    def is_signed(self) -> bool:
        """True for a bundle with a signature; only trusted keys can show whether it holds."""
        return MANIFEST_SIGNATURE_NAME in self._zip.members

    def read(self, name: str) -> bytes:
        """The bytes of one listed member, whose size and hash are those of the manifest."""
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleFormatError(f"{self._name}: there is no member {name}.")
        data = self._zip.inflate(name, entry.size_bytes)
        self._check_hash(name, hashlib.sha256(data).hexdigest())
        return data

    def read_manifest(self) -> bytes:
        """The bytes of ``manifest.json``, whose hash is the bundle's id and which is signed."""
        text = self._small(MANIFEST_NAME, _MAX_MANIFEST_BYTES)
        if hashlib.sha256(text).hexdigest() != self.id:
            raise BundleIntegrityError(
                f"{self._name}: {MANIFEST_NAME} changed since it was opened."
            )
        return text

    def verify(self) -> None:
        """Hash every listed member in constant memory; raises BundleIntegrityError."""
        for name in self.manifest.files:
            digest = hashlib.sha256()
            for chunk in self._zip.chunks(name):
                digest.update(chunk)
            self._check_hash(name, digest.hexdigest())

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where no thread is left to release it."""
        self._zip.renew_lock()

    def close(self) -> None:
        """Close the file, unless it was opened by the caller."""
        self._zip.close()
        if self._owned is not None:
            self._owned.close()

    def _signer(self, text: bytes, trusted_keys: Iterable[str] | None) -> str | None:
        signature = None
        if MANIFEST_SIGNATURE_NAME in self._zip.members:
            signature = self._small(MANIFEST_SIGNATURE_NAME, SIGNATURE_BYTES)
            if len(signature) != SIGNATURE_BYTES:
                raise BundleFormatError(
                    f"{self._name}: {MANIFEST_SIGNATURE_NAME} has {len(signature)} bytes; "
                    f"expected {SIGNATURE_BYTES}. Sign the bundle again."
                )
        keys = reusable_keys(trusted_keys)
        if keys is None:
            return None
        return signer(text, signature, keys, self._name)

    def _require_no_choice(self) -> None:
        """Refuse a signed bundle with a byte that neither the format nor the signature fixes."""
        self._zip.require_fixed_fields()
        recorded = self._small(MANIFEST_HASH_NAME, _MAX_HASH_BYTES)
        if recorded != f"{self.id}\n".encode():
            raise BundleFormatError(
                f"{self._name}: {MANIFEST_HASH_NAME} has more than 64 digits and a line feed, "
                "which is all that it may have in a signed bundle. Sign it again with pipeline "
                "sign."
            )

    def _check_members(self) -> None:
        members = self._zip.members
        listed, present = self.manifest.files, set(members) - set(_UNLISTED)
        if extra := sorted(present - set(listed)):
            raise BundleFormatError(f"{self._name}: the manifest does not list {extra}.")
        if missing := sorted(set(listed) - present):
            raise BundleFormatError(f"{self._name}: the members {missing} are missing.")
        for name, entry in listed.items():
            size = members[name].size_bytes
            if size != entry.size_bytes or size > _MAX_MEMBER_BYTES:
                raise BundleIntegrityError(
                    f"{self._name}: {name} has {size} bytes; expected the {entry.size_bytes} "
                    f"of the manifest, at most {_MAX_MEMBER_BYTES}. Copy the bundle again."
                )
        total = sum(entry.size_bytes for entry in listed.values())
        if total > _MAX_BUNDLE_BYTES:
            raise BundleFormatError(
                f"{self._name}: the members have {total} bytes in all; expected at most "
                f"{_MAX_BUNDLE_BYTES}."
            )

    def _check_hash(self, name: str, digest: str) -> None:
        expected = self.manifest.files[name].sha256
        if digest != expected:
            raise BundleIntegrityError(
                f"{self._name}: {name} has the sha256 {digest}; expected {expected}. The bundle is "
                "damaged or was altered. Copy it again."
            )

    def _small(self, name: str, limit_bytes: int) -> bytes:
        """Read one of the members that no hash protects yet."""
        if name not in self._zip.members:
            raise BundleFormatError(f"{self._name}: {name} is missing; expected a bundle.")
        return self._zip.inflate(name, limit_bytes)


class Parts:
    """A model that is not packed yet, opened by the code that opens a bundle."""

    id: str | None = None
    signed_by: str | None = None

    def __init__(
        self,
        spec: ModelSpec,
        preprocess: bytes | None,
        model: bytes,
        *,
        thresholds: tuple[float, ...] | None,
        variant: str,
        portable: bool = True,
    ) -> None:
        """Only the named variant exists; where its task has thresholds, they default to 0.5 for
        each label."""
        if not task_named(spec.task).has_thresholds:
            if thresholds is not None:
                raise InputError(f"thresholds were given to a {spec.task} model, which has none.")
        else:
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
            portable=portable,
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
        """Do nothing: parts have no hashes."""

    def renew_lock(self) -> None:
        """Do nothing: parts have no lock."""

    def close(self) -> None:
        """Release the parts."""
        self._members = {}


def check_same(path: str, bundle_id: str | None, expected: str | None) -> None:
    """Raise BundleIntegrityError unless the bundle that was opened again has the expected id."""
    if bundle_id != expected:
        raise BundleIntegrityError(
            f"{path}: the bundle has the id {bundle_id}; expected {expected}, the one that was "
            "open. It was replaced: open it again."
        )


def reusable_keys(trusted_keys: Iterable[str] | None) -> tuple[str, ...] | None:
    """Trusted keys that can be read more than once, unlike an iterator; raises InputError."""
    if trusted_keys is None:
        return None
    if isinstance(trusted_keys, (str, bytes)) or not isinstance(trusted_keys, Iterable):
        raise InputError(f"trusted_keys={trusted_keys!r}; expected a list of keys.")
    return tuple(trusted_keys)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file outside of any bundle; raises BundleFormatError."""
    with open_file(path) as file:
        return file.read()


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """A regular file that is open for reading; raises BundleFormatError."""
    try:
        return open_regular(path)
    except (OSError, ValueError, TypeError) as exc:  # ValueError: a null character in the path
        let_through(exc)
        raise BundleFormatError(f"{path!s}: cannot be opened: {exc}.") from exc
