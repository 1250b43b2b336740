"""Attacks on signatures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from attack_cases import zips
from attack_cases.attack import KEY, OTHER_KEY, TRUSTED, Attack
from attack_cases.forging import forged, sound_members
from attack_cases.zips import DEFLATED
from runtime import BundleError, BundleFormatError, InputError, SignatureError
from runtime.signature import DOMAIN, key_text


def signed(
    signature: Callable[[bytes], bytes | None],
    edit: Callable[[dict[str, Any]], object] = lambda manifest: None,
    **others: bytes,
) -> bytes:
    """A bundle with what ``signature`` makes of the manifest before ``edit``; ``others`` are
    members in the place of those of the same name."""
    made = signature(sound_members()["manifest.json"])
    members = forged(edit, {}, packed=False) if edit(_scratch()) != () else sound_members()
    if made is not None:
        members["manifest.sig"] = made
    members.update(others)
    return zips.write(zips.entries(members))


def _scratch() -> dict[str, Any]:
    return json.loads(sound_members()["manifest.json"])  # type: ignore[no-any-return]


def _unchanged(manifest: dict[str, Any]) -> object:
    return ()


def well_signed() -> bytes:
    return signed(lambda text: KEY.sign(DOMAIN + text), _unchanged)


def _signature(
    name: str,
    why: str,
    signature: Callable[[bytes], bytes | None],
    message: str = "none of the 1 trusted keys made",
    edit: Callable[[dict[str, Any]], object] = _unchanged,
    error: type[BundleError] = SignatureError,
) -> Attack:
    return Attack(
        f"signature: {name}",
        why,
        lambda: signed(signature, edit),
        error,
        message,
        well_signed,
        TRUSTED,
    )


def weakly_signed(key: bytes, signature: bytes) -> Attack:
    """The signature of nobody, under a key of small order."""
    return Attack(
        f"signature: a weak key, {key.hex()[:4]}...{key.hex()[-2:]}",
        "Under it the same 64 bytes hold for every manifest, or for one in a few.",
        lambda: signed(lambda text: signature),
        InputError,
        "is a weak public key",
        lambda: signed(lambda text: KEY.sign(DOMAIN + text), _unchanged),
        (key_text(key),),
    )


def freely(name: str, why: str, field: str, **changes: Any) -> Attack:
    """A signed bundle of which a header was changed, in all places alike."""

    def evil() -> bytes:
        members = sound_members()
        signature = KEY.sign(DOMAIN + members["manifest.json"])
        rows = zips.entries({**members, "manifest.sig": signature})
        rows = [replace(r, **changes) if r.name == b"golden.npz" else r for r in rows]
        return zips.write(rows)

    return Attack(f"signature: {name}", why, evil, BundleFormatError, field, well_signed, TRUSTED)


WEAK_KEYS = (
    bytes(32),  # y = 0, of order 4
    b"\x01" + bytes(31),  # the neutral element
    b"\x01" + bytes(30) + b"\x80",  # the same with a sign
    b"\xec" + b"\xff" * 30 + b"\x7f",  # y = -1, of order 2
    b"\xed" + b"\xff" * 30 + b"\x7f",  # y = p, a second way to write 0
    b"\xee" + b"\xff" * 31,  # y = p + 1, a second way to write 1
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),  # of order 8
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),  # likewise
)
FREE = (
    freely("another time", "Eight bytes for each member.", "has the time 0x1", time=(1, 33)),
    freely("another date", "The same.", "has the date 0x22", time=(0, 34)),
    freely("made by another system", "The same.", "version made by 0x14", made_by=20),
    freely("an older version needed", "The same.", "version needed 0xa", needed=10),
    freely("another mode", "The same.", "external attributes", attributes=0o100755 << 16),
    freely("called text", "The same.", "internal attributes 0x1", internal=1),
    freely("a flag without a meaning", "The same.", "has the flags 0x800", flags=0x800),
    freely("deflated", "One content, and as many streams as one likes.", "method", method=DEFLATED),
    Attack(
        "signature: a file name behind the hash",
        "Free text, which sha256sum reads as the name of a file.",
        lambda: signed(
            lambda text: KEY.sign(DOMAIN + text),
            _unchanged,
            **{"manifest.sha256": sound_members()["manifest.sha256"][:64] + b"  manifest.json\n"},
        ),
        BundleFormatError,
        r"manifest\.sha256 has more than 64 digits and a line feed",
        well_signed,
        TRUSTED,
    ),
)
SIGNATURES = (
    *FREE,
    *(weakly_signed(key, b"\x01" + bytes(63)) for key in WEAK_KEYS),
    _signature("none", "All hashes fit; anyone can do that.", lambda t: None, "is not signed"),
    _signature("another key's", "Signed, by somebody.", lambda t: OTHER_KEY.sign(DOMAIN + t)),
    _signature(
        "an edited manifest",
        "The forger makes all hashes fit and keeps the signature.",
        lambda t: KEY.sign(DOMAIN + t),
        edit=lambda m: m.update(model_version="6.6.6"),
    ),
    _signature(
        "an edited manifest that is not JSON of ours",
        "The signature is checked first: nothing of a forged manifest is parsed.",
        lambda t: KEY.sign(DOMAIN + t),
        edit=lambda m: m.clear(),
    ),
    _signature(
        "of another bundle",
        "Sound, and of another manifest.",
        lambda t: KEY.sign(DOMAIN + t.replace(b"1.2.3", b"1.2.2")),
    ),
    _signature(
        "of something else",
        "The key signed these bytes as something else than a bundle.",
        lambda t: KEY.sign(t),
    ),
    _signature("zeros", "Checks that compare lengths only.", lambda t: bytes(64)),
    _signature(
        "cut short",
        "63 bytes.",
        lambda t: KEY.sign(DOMAIN + t)[:-1],
        "manifest.sig has 63 bytes; expected 64",
        error=BundleFormatError,
    ),
    _signature(
        "too long",
        "A payload behind it, which nothing covers.",
        lambda t: KEY.sign(DOMAIN + t) + b"payload",
        "manifest.sig has 71 bytes; expected at most 64",
        error=BundleFormatError,
    ),
    _signature(
        "the same, larger by the group's order",
        "Equal in arithmetic; accepted, one signature could be made into another.",
        lambda t: _malleable(KEY.sign(DOMAIN + t)),
    ),
)


def _malleable(signature: bytes) -> bytes:
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(signature[32:], "little") + order
    return signature[:32] + s.to_bytes(32, "little")
