"""Keys and signatures of bundles: Ed25519 over the manifest, as specified by ``runtime/BUNDLE.md``.
The runtime verifies signatures; only this module handles private keys."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.errors import PackageError
from exporters.package.archive import replace_file, zip_bytes
from runtime import Bundle, PredictorError
from runtime.manifest import MANIFEST_HASH_NAME, MANIFEST_NAME, MANIFEST_SIGNATURE_NAME
from runtime.regular_file import read_regular
from runtime.signature import DOMAIN, key_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_SUFFIX = ".pub"
_MAX_KEY_BYTES = 1 << 16  # of a PEM file with one key


def generate_key(path: Path) -> str:
    """Write a new private key (PEM, PKCS #8, owner only) to ``path`` and its public key
    to ``path`` + ".pub"; returns the public key's text.

    Raises PackageError; an existing file is never replaced, since a lost key cannot be made again.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    text = key_text(key.public_key().public_bytes_raw())
    public = path.with_name(path.name + PUBLIC_SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if public.exists():
            raise FileExistsError(f"{public} exists")
        _write_new(path, pem, 0o600)
        _write_new(public, f"{text}\n".encode(), 0o644)
    except OSError as exc:
        raise PackageError(
            f"the key {path} cannot be written: {exc}. An existing key is never replaced; give "
            "another name."
        ) from exc
    return text


def sign_bundle(bundle: Path, key_file: Path) -> str:
    """Write the signature of the bundle's manifest into the bundle; returns the public key's text.

    The bundle is rewritten under another name, opened with this key as the only trusted one, and
    then renamed. Its id stays, and an existing signature is replaced. Raises PackageError.
    """
    key = _private_key(key_file)
    public = key_text(key.public_key().public_bytes_raw())
    try:
        opened = Bundle.open(bundle)
        try:
            manifest = opened.read_manifest()
            members = {
                MANIFEST_NAME: manifest,
                MANIFEST_HASH_NAME: f"{opened.id}\n".encode(),
                MANIFEST_SIGNATURE_NAME: key.sign(DOMAIN + manifest),
                **{name: opened.read(name) for name in sorted(opened.manifest.files)},
            }
        finally:
            opened.close()
        replace_file(bundle, zip_bytes(members), lambda new: Bundle.open(new, [public]).close())
    except PredictorError as exc:
        raise PackageError(f"the bundle is not signed: {exc}") from exc
    except OSError as exc:
        raise PackageError(
            f"the bundle {bundle} cannot be written: {exc}. It is as it was."
        ) from exc
    return public


def _private_key(path: Path) -> Ed25519PrivateKey:
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(read_regular(path, _MAX_KEY_BYTES), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise PackageError(
            f"{path} is not a readable private key: {exc}; expected a PEM file without password, "
            "as pipeline keygen writes it."
        ) from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise PackageError(f"{path} has a {type(key).__name__}; expected an Ed25519 key.")
    return key


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401 - imported only to see whether it is installed
    except ImportError as exc:
        raise PackageError(
            f"signing needs the package cryptography, which cannot be imported ({exc}). Run pip "
            "install 'edgeproof[sign]'."
        ) from exc


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist, with its mode from the start."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
