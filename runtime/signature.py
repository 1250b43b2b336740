"""The check of Ed25519 signatures of manifests. Signing is in ``exporters/package``, so that a
device holds no code that needs a private key.

A key is written as the word ``ed25519:`` and the base64 of its 32 bytes: short enough for an
app's source, and its own fingerprint. The cryptography package, with OpenSSL in it, is
imported when a key is given, never before.
"""

from __future__ import annotations

import base64

from .errors import InputError, RuntimeMissing, SignatureError
from .origin import let_through

SIGNATURE_BYTES = 64
KEY_BYTES = 32
KEY_PREFIX = "ed25519:"
# The signed bytes are this line and then the manifest's bytes, so that a signature which the same
# key gave to anything else, another format's JSON for one, is not one of a bundle.
DOMAIN = b"edgeproof bundle 1\n"
_PRIME = 2**255 - 19  # of the field of Curve25519
# The y coordinates of the eight points of small order (RFC 7748 and 8032; the list of libsodium's
# ge25519_has_small_order). Under such a key anybody can make a signature that holds.
_SMALL_ORDER = (
    *(0, 1, _PRIME - 1),
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
)


def key_text(raw: bytes) -> str:
    """The text of a public key of 32 bytes."""
    return KEY_PREFIX + base64.b64encode(raw).decode()


def key_bytes(key: str) -> bytes:
    """The 32 bytes of a public key's text; raises InputError, also for a key under which anybody
    can sign (a point of small order, or written in a second way)."""
    raw = _decoded(key)
    y = int.from_bytes(raw, "little") & ~(1 << 255)  # the highest bit is the sign of x
    if y >= _PRIME or y in _SMALL_ORDER:
        raise InputError(
            f"{key!r} is a weak public key, under which a signature can be made without a private "
            "one; expected a key that pipeline keygen made. Do not trust it."
        )
    return raw


def _decoded(key: str) -> bytes:
    try:
        if not key.startswith(KEY_PREFIX):
            raise ValueError(f"it does not begin with {KEY_PREFIX!r}")
        raw = base64.b64decode(key.removeprefix(KEY_PREFIX).strip(), validate=True)
        if len(raw) != KEY_BYTES:
            raise ValueError(f"it has {len(raw)} bytes")
    except (AttributeError, TypeError, ValueError) as exc:
        let_through(exc)
        raise InputError(
            f"{key!r} is not a public key: {exc}; expected {KEY_PREFIX!r} and the base64 of "
            f"{KEY_BYTES} bytes, as pipeline keygen prints it."
        ) from exc
    return raw


def signer(
    manifest: bytes, signature: bytes | None, trusted_keys: tuple[str, ...], name: str
) -> str:
    """The trusted key that signed ``manifest``; ``signature`` is None where there is none.

    Raises SignatureError when there is none, InputError for a key that is none, and
    RuntimeMissing without the cryptography package.
    """
    for key in trusted_keys:
        _decoded(key)
    if not trusted_keys:
        raise InputError(
            "trusted_keys is empty, so no bundle could be trusted; expected at least one key, or "
            "None to open bundles without looking at signatures."
        )
    if signature is None:
        raise SignatureError(
            f"{name}: the bundle is not signed; expected a signature by one of the "
            f"{len(trusted_keys)} trusted keys. Sign it with pipeline sign, or get it from who "
            "does."
        )
    keys = [(key, key_bytes(key)) for key in trusted_keys]
    for key, raw in keys:
        if _is_valid(raw, signature, manifest):
            return key.strip()
    raise SignatureError(
        f"{name}: none of the {len(keys)} trusted keys made the bundle's signature; it was signed "
        "with another key, or its manifest was altered after it was signed. Do not use it."
    )


def _is_valid(key: bytes, signature: bytes, manifest: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as exc:
        raise RuntimeMissing(
            f"trusted_keys were given, and the package cryptography, which checks signatures, "
            f"cannot be imported ({exc}). Run pip install 'edgeproof[sign]' (or cryptography)."
        ) from exc
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, DOMAIN + manifest)
    except UnsupportedAlgorithm as exc:  # an OpenSSL that was built or set up without it
        raise RuntimeMissing(f"this build of cryptography has no Ed25519: {exc}") from exc
    except (InvalidSignature, ValueError) as exc:
        let_through(exc)
        return False
    return True
