"""Attempts to make the runtime believe, read, allocate or run what it must not, one by one, each
with its reasoning. Every attack has a clean twin, the same bundle without the one evil, which
opens: so it is the evil that is refused.

    python tests/attacks/cases.py    # try all of them in this one process
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import re
import struct
import sys
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import zips
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper
from zips import DEFLATED, Entry

from runtime import (
    AnswerError,
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    InputError,
    Predictor,
    PredictorError,
    SelftestError,
    SignatureError,
)
from runtime.signature import DOMAIN, key_text

_PLACE = Path(__file__).parents[1] / "runtime" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("bundle_builders", _PLACE)
assert _SPEC and _SPEC.loader
build = importlib.util.module_from_spec(_SPEC)
sys.modules["bundle_builders"] = build
_SPEC.loader.exec_module(build)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
TRUSTED = (key_text(KEY.public_key().public_bytes_raw()),)
IMAGE = np.random.default_rng(5).integers(0, 256, (30, 20), np.uint8)


@dataclass(frozen=True)
class Attack:
    name: str
    why: str  # what it would do to a trusting reader
    evil: Callable[[], bytes]
    error: type[PredictorError]
    message: str  # regular expression
    clean: Callable[[], bytes] = field(default_factory=lambda: plain)
    keys: tuple[str, ...] | None = None


def attempt(data: bytes, keys: tuple[str, ...] | None = None) -> tuple[Any, ...]:
    """Everything that an app does with a bundle: open it, ask it, test it."""
    with Predictor(data, device="cpu", threads=1, trusted_keys=keys) as predictor:
        answer = predictor.predict(IMAGE)
        predictor.selftest()
        return answer.probabilities


# --- bundles to start from ---------------------------------------------------------------------


@cache
def _members() -> tuple[tuple[str, bytes], ...]:
    with zipfile.ZipFile(io.BytesIO(build.bundle())) as archive:
        return tuple((name, archive.read(name)) for name in archive.namelist())


def plain() -> bytes:
    return zips.write(zips.entries(dict(_members())))


def altered(**changes: Any) -> bytes:
    """The bundle with arguments for ``zips.write``."""
    return zips.write(zips.entries(dict(_members())), **changes)


def changed(name: str, **changes: Any) -> bytes:
    """The bundle with fields of one member changed."""
    rows = zips.entries(dict(_members()))
    return zips.write([replace(r, **changes) if r.name == name.encode() else r for r in rows])


def added(*rows: Entry) -> bytes:
    return zips.write([*zips.entries(dict(_members())), *rows])


def listed(name: str, data: bytes = b"x", **fields: Any) -> bytes:
    """A bundle with one more member that its manifest lists: all but the name is in order."""
    members = forged(lambda m: _list_member(m, name, data), {}, packed=False)
    return zips.write(
        [*zips.entries(members), Entry(name.encode("utf-8", "surrogateescape"), data, **fields)]
    )


def _list_member(manifest: dict[str, Any], name: str, data: bytes) -> None:
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    manifest["files"][name] = entry


def forged(
    edit: Callable[[dict[str, Any]], object], members: dict[str, bytes], packed: bool = True
) -> Any:
    """What a forger makes: members replaced, the manifest edited, and all hashes made to fit."""
    files = {**dict(_members()), **members}
    manifest = json.loads(files["manifest.json"])
    for name, data in members.items():
        _list_member(manifest, name, data)
    edit(manifest)
    return with_manifest(json.dumps(manifest).encode(), files, packed)


def with_manifest(text: bytes, files: dict[str, bytes] | None = None, packed: bool = True) -> Any:
    files = {**(files or dict(_members())), "manifest.json": text}
    files["manifest.sha256"] = hashlib.sha256(text).hexdigest().encode() + b"\n"
    return zips.write(zips.entries(files)) if packed else files


def manifest_with(edit: Callable[[dict[str, Any]], object]) -> Callable[[], bytes]:
    return lambda: forged(edit, {})  # type: ignore[no-any-return]


def text_with(old: str, new: str) -> Callable[[], bytes]:
    """A manifest whose text is changed, for what no JSON writer writes."""

    def make() -> bytes:
        text = dict(_members())["manifest.json"].decode()
        assert text.count(old) == 1, old
        return with_manifest(text.replace(old, new).encode("utf-8", "surrogatepass"))  # type: ignore[no-any-return]

    return make


def member_with(name: str, data: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: forged(lambda m: None, {name: data()})  # type: ignore[no-any-return]


# --- zips --------------------------------------------------------------------------------------


def overlapping() -> bytes:
    """David Fifield's bomb: many rows of the directory share one member's data."""
    rows = zips.entries(dict(_members()))
    first = rows[0]
    return zips.write([*rows, Entry(b"again.json", first.data, offset=0, local_name=first.name)])


def two_directories() -> bytes:
    """A whole other bundle before this one: who reads from the front sees the other."""
    return altered(before=plain())


def bomb(announced: int | None) -> bytes:
    return added(Entry(b"bomb.bin", bytes(50_000_000), DEFLATED, size=announced))


def _deflated(data: bytes) -> bytes:
    return Entry(b"", data, DEFLATED).packed_data()


ZIPS = (
    Attack(
        "bytes before the zip",
        "A self-extracting program with a bundle at its end passes for the bundle.",
        lambda: altered(before=b"MZ\x90\x00" + bytes(60)),
        BundleFormatError,
        "end record does not fit the file|begins at byte",
    ),
    Attack(
        "another bundle in front",
        "Readers that scan for the first member see another bundle than those that read the end.",
        two_directories,
        BundleFormatError,
        "end record does not fit the file|begins at byte",
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
        "end record does not fit|comment",
    ),
    Attack(
        "a gap between members",
        "Bytes that belong to no member hide a payload.",
        lambda: changed("preprocess.onnx", after=b"hidden"),
        BundleFormatError,
        "or something stands between them",
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
        "members overlap, or something stands between them",
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
        r"golden\.npz has (extra fields|another name)",
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
            [*zips.entries(dict(_members())), Entry(b"evil.py", b"import os")], hidden=1
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
        "65,535 stands for 'see zip64', where the true count would be.",
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
            "measurements.json", method=DEFLATED, packed=_deflated(b"{"), local_method=DEFLATED
        ),
        BundleIntegrityError,
        "does not end with 2 bytes",
        clean=lambda: changed("measurements.json", method=DEFLATED),
    ),
    Attack(
        "deflated data that goes on",
        "Bytes behind the end of the stream, covered by no hash.",
        lambda: changed("measurements.json", method=DEFLATED, packed=_deflated(b"{}") + b"more"),
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
    packed = _deflated(bytes(50_000_000))
    return listed("bomb.bin", b"xx", method=DEFLATED, packed=packed)


# --- names -------------------------------------------------------------------------------------


def _name(name: str, why: str, message: str = "means different files", title: str = "") -> Attack:
    return Attack(f"name {title or name!r}", why, lambda: listed(name), BundleFormatError, message)


PATH = "has an absolute, parent or folder path"
NAMES = (
    _name("../evil.py", "Unpacked, it lands beside the folder.", PATH),
    _name("variants/../../evil.py", "The same, where a prefix is checked only.", PATH),
    _name("/etc/cron.d/evil", "Unpacked, it lands where it says.", PATH),
    _name("./measurements.json", "A second name for the same file.", PATH),
    _name("variants//fp32.onnx", "A second name for the same file.", PATH),
    _name("..\\evil.py", "A parent path on Windows, a plain name elsewhere."),
    _name("C:evil.py", "A drive on Windows."),
    _name("golden.npz:stream", "An alternate stream of a file on NTFS."),
    _name("aux.onnx", "A device on Windows, whatever the extension."),
    _name("golden.npz.", "Windows drops the dot: a second name for the same file."),
    _name("golden.npz ", "Windows drops the blank, too."),
    _name("-rf", "An option to a careless shell script."),
    _name("caf\u00e9.txt", "Two byte sequences, NFC and NFD, show the same and collide on macOS."),
    _name(unicodedata.normalize("NFD", "caf\u00e9.txt"), "The other one of the two.", title="NFD"),
    _name("\uff4danifest.json", "Full-width m: NFKC makes it manifest.json.", title="NFKC"),
    _name("\u0440reprocess.onnx", "Cyrillic er looks like p.", title="homoglyph"),
    _name("txt.\u202eexe.onnx", "Shows as another extension.", title="right-to-left override"),
    _name("a\nb.json", "A line break forges lines in logs.", title="line break"),
    _name("a\x1b[2Jb", "An escape sequence clears the terminal that lists it.", title="escape"),
    _name("golden.npz\0.txt", "C ends the name at the null, Python does not.", title="null"),
    _name("n" * 201, "Longer than some file systems take.", title="of 201 letters"),
    Attack(
        "name that is no UTF-8",
        "Decoded as another code page by every second reader.",
        lambda: added(Entry(b"\xff\xfe.json", b"")),
        BundleFormatError,
        "means different files",
    ),
    Attack(
        "the same name twice",
        "Which of the two is read depends on the reader.",
        lambda: added(Entry(b"measurements.json", b"[]")),
        BundleFormatError,
        r"several members named \['measurements\.json'\]",
    ),
    Attack(
        "two names that differ in case",
        "One file on Windows and macOS, two on Linux.",
        lambda: listed("Golden.npz"),
        BundleFormatError,
        r"several members named \['golden\.npz'\]",
    ),
    Attack(
        "a second manifest in capitals",
        "Lookups that ignore case may find the second.",
        lambda: added(Entry(b"MANIFEST.JSON", b"{}")),
        BundleFormatError,
        r"several members named \['manifest\.json'\]",
    ),
)

# --- manifests ---------------------------------------------------------------------------------


def _manifest(
    name: str,
    why: str,
    edit: Callable[[dict[str, Any]], object],
    message: str,
    error: type[BundleError] = BundleFormatError,
) -> Attack:
    return Attack(name, why, manifest_with(edit), error, message, manifest_with(lambda m: None))


def _text(name: str, why: str, old: str, new: str, message: str) -> Attack:
    return Attack(name, why, text_with(old, new), BundleFormatError, message)


def _hidden(name: str, why: str, edit: Callable[[dict[str, Any]], object], shown: str) -> Attack:
    return _manifest(f"hidden: {name}", why, edit, f"{shown}, a control or invisible")


def _label(manifest: dict[str, Any], text: str) -> None:
    manifest["spec"]["labels"][0] = text


HIDDEN = (
    _hidden(
        "an escape sequence in a label",
        "Clears the terminal that prints the answer, or types into it.",
        lambda m: _label(m, "ok\x1b[2J"),
        r"spec\.labels\[0\] has U\+001B",
    ),
    _hidden(
        "a line break in a label",
        "One answer becomes two lines of a log.",
        lambda m: _label(m, "cat\nerror: all is lost"),
        r"spec\.labels\[0\] has U\+000A",
    ),
    _hidden(
        "a label that is turned around",
        "Reads as another word than it is compared by.",
        lambda m: _label(m, "\u202etac"),
        r"spec\.labels\[0\] has U\+202E",
    ),
    _hidden(
        "two labels that look the same",
        "A zero-width space makes them distinct.",
        lambda m: _label(m, m["spec"]["labels"][1] + "\u200b"),
        r"spec\.labels\[0\] has U\+200B",
    ),
    _hidden(
        "a control of eight bits in a version",
        "CSI in one byte, which filters for ESC let pass.",
        lambda m: m.update(model_version="1.0\x9b2J"),
        r"model_version has U\+009B",
    ),
    _hidden(
        "a line separator in a reason",
        "Splits lines for Python's splitlines and for JavaScript.",
        lambda m: m["defaults"][0].update(reason="fast\u2028error: none"),
        r"defaults\[0\]\.reason has U\+2028",
    ),
    _hidden(
        "a header of packages in a licence",
        "A carriage return ends the line in a wheel's metadata: the next one chooses a package.",
        lambda m: m["provenance"].update(licence="MIT\rRequires-Dist: evil"),
        r"provenance\.licence has U\+000D",
    ),
    _hidden(
        "a key of tags",
        "Invisible letters, also where nobody looks.",
        lambda m: m["provenance"].update({"a": [{"note\U000e0041": 1}]}),
        r"a key .*has U\+E0041|the key .*has U\+E0041",
    ),
    _hidden(
        "a tab in the model's name",
        "Moves what follows out of sight.",
        lambda m: m["spec"].update(name="digits\t"),
        r"spec\.name has U\+0009",
    ),
)

NOISE = np.random.default_rng(0).bytes(2 << 20)
VERSION = '"model_version": "1.2.3"'
MANIFESTS = (
    Attack(
        "a manifest of 2 MB",
        "It is read before any hash is known.",
        lambda: with_manifest(NOISE),
        BundleFormatError,
        "manifest.json has 2097152 bytes; expected at most",
    ),
    Attack(
        "an altered manifest",
        "The hash beside it is not that of these bytes.",
        lambda: zips.write(zips.entries({**dict(_members()), "manifest.json": b"{}"})),
        BundleIntegrityError,
        "manifest.sha256 says otherwise",
    ),
    Attack(
        "a hash with more behind it",
        "Loose readers take the first word, or the last.",
        lambda: changed("manifest.sha256", data=dict(_members())["manifest.sha256"] + b"x=1\n"),
        BundleIntegrityError,
        "says otherwise",
    ),
    Attack(
        "100,000 open brackets",
        "Parsers recurse; where the limit was raised, until the stack ends.",
        lambda: with_manifest(b"[" * 100_000),
        BundleFormatError,
        "100000 lists and objects",
    ),
    Attack(
        "1,900 open brackets",
        "Below that limit, above Python's own.",
        lambda: with_manifest(b"[" * 1_900),
        BundleFormatError,
        "is not JSON",
    ),
    Attack(
        "a manifest in UTF-16",
        "Some parsers guess the encoding, others see other text.",
        lambda: with_manifest(dict(_members())["manifest.json"].decode().encode("utf-16")),
        BundleFormatError,
        "is not JSON",
    ),
    Attack(
        "a byte order mark",
        "Some parsers skip it, others refuse.",
        lambda: with_manifest(b"\xef\xbb\xbf" + dict(_members())["manifest.json"]),
        BundleFormatError,
        "is not JSON",
    ),
    _text(
        "a key twice",
        "The first wins in some parsers, the last in others: two models in one bundle.",
        VERSION,
        f'"model_version": "9.9.9", {VERSION}',
        r"the keys \['model_version'\] stand more than once",
    ),
    _text(
        "a key twice, one of them escaped",
        "The same for those who compare the raw text.",
        VERSION,
        f'"model\\u005fversion": "9.9.9", {VERSION}',
        r"the keys \['model_version'\] stand more than once",
    ),
    _text(
        "NaN as a tolerance",
        "No comparison with it is ever false, so every selftest would pass.",
        '"fp32", "portable": false, "precision": "fp32"',
        '"fp32", "portable": false, "precision": "fp32", "x": NaN',
        "NaN is no number",
    ),
    _text(
        "a number beyond all",
        "Becomes infinity, which JSON writers refuse or misspell.",
        VERSION,
        f'{VERSION}, "x": 1e999',
        "1e999 is too large",
    ),
    _text(
        "a number of 100,000 digits",
        "Python needs quadratic time for it, and newer ones raise another error.",
        VERSION,
        f'{VERSION}, "x": {"9" * 100_000}',
        "a whole number has 100000 digits",
    ),
    _text(
        "half a surrogate pair",
        "Passes every check and fails where the label is printed.",
        VERSION,
        '"model_version": "\\ud800"',
        "surrogates not allowed",
    ),
    _manifest(
        "a newer schema",
        "Meanings may have changed.",
        lambda m: m.update(schema_version=2),
        "schema_version 2; this runtime reads up to 1",
    ),
    _manifest(
        "true as schema",
        "True is 1 in Python.",
        lambda m: m.update(schema_version=True),
        "schema_version True",
    ),
    _manifest(
        "a member that is not there",
        "Would be found missing at the first image.",
        lambda m: _list_member(m, "extra.bin", b""),
        r"members \['extra\.bin'\] are missing",
    ),
    Attack(
        "a member that is not listed",
        "Code or weights that no hash covers.",
        lambda: added(Entry(b"evil.py", b"import os")),
        BundleFormatError,
        r"does not list \['evil\.py'\]",
        clean=lambda: listed("evil.py"),
    ),
    _manifest(
        "a manifest that lists itself",
        "Its own hash cannot be in it.",
        lambda m: _list_member(m, "manifest.json", b""),
        r"members \['manifest\.json'\] are missing",
    ),
    _manifest(
        "a larger size",
        "What it would read beyond the member is not in the bundle.",
        lambda m: m["files"]["golden.npz"].update(size_bytes=10**12),
        "expected the 1000000000000 of the manifest",
        BundleIntegrityError,
    ),
    _manifest(
        "another hash",
        "The member is not what was listed.",
        lambda m: m["files"]["golden.npz"].update(sha256="0" * 64),
        r"golden\.npz has the sha256",
        BundleIntegrityError,
    ),
    _manifest(
        "a hash in capitals",
        "Compared as text it never fits, compared as bytes it does.",
        lambda m: m["files"]["golden.npz"].update(
            sha256=m["files"]["golden.npz"]["sha256"].upper()
        ),
        "sha256 .*expected",
    ),
    _manifest(
        "devices as an object",
        "Its keys pass for a list.",
        lambda m: m.update(devices={"cpu": 1}),
        "expected a list",
    ),
    _manifest(
        "a variant with a path in its id",
        "Ids become names of files, in caches for example.",
        lambda m: m["variants"][0].update(id="fp32/../../x"),
        "id 'fp32/../../x'",
    ),
    _manifest(
        "synthetic as text",
        "'no' is true in Python: the warning about generated data would lie.",
        lambda m: m["provenance"]["data"].update(synthetic="no"),
        "provenance.data",
    ),
    _manifest(
        "an image of 10^9 x 10^9",
        "Whoever allocates one batch of it is gone.",
        lambda m: m["spec"].update(height=10**9, width=10**9),
        "positive height and width of at most 16384",
    ),
    _manifest(
        "other labels than the model's",
        "The answers of a sound model, renamed.",
        lambda m: m["spec"].update(labels=["two", "one", "zero"]),
        "stamped with another spec",
    ),
    Attack(
        "swapped members",
        "Both are listed and sound, each under the other's name.",
        lambda: zips.write(
            zips.entries(
                {
                    **dict(_members()),
                    "preprocess.onnx": dict(_members())["variants/fp32.onnx"],
                    "variants/fp32.onnx": dict(_members())["preprocess.onnx"],
                }
            )
        ),
        BundleIntegrityError,
        "has .* expected",
    ),
)

# --- models ------------------------------------------------------------------------------------


def model_with(edit: Callable[[onnx.ModelProto], object]) -> Callable[[], bytes]:
    """A bundle whose default variant was edited, with all hashes made to fit."""

    def data() -> bytes:
        model = onnx.load_model_from_string(build.model(build.GREY))
        edit(model)
        return model.SerializeToString()  # type: ignore[no-any-return]

    return member_with("variants/fp32.onnx", data)


def elsewhere(location: str, name: str = "weights", **keys: str) -> TensorProto:
    """A tensor whose values lie in a file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[64, 3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **keys}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def with_weights(location: str, **keys: str) -> Callable[[onnx.ModelProto], object]:
    return lambda model: model.graph.initializer[2].CopyFrom(elsewhere(location, **keys))


def hidden_in_a_branch(model: onnx.ModelProto) -> None:
    """An If whose branch has the tensor, four messages deep."""
    output = helper.make_tensor_value_info("w", TensorProto.FLOAT, None)
    constant = helper.make_node("Constant", [], ["w"], value=elsewhere("secret.bin"))
    branch = helper.make_graph([constant], "branch", [], [output])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    node = helper.make_node("If", ["yes"], ["weights"], then_branch=branch, else_branch=branch)
    del model.graph.initializer[2]
    model.graph.node.insert(0, node)


def hidden_in_a_function(model: onnx.ModelProto) -> None:
    constant = helper.make_node("Constant", [], ["w"], value=elsewhere("secret.bin"))
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "weights", [], ["w"], [constant], opset))


def hidden_sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add(values=elsewhere("secret.bin", "s"), dims=[64, 3])


def compiled(model: onnx.ModelProto) -> None:
    node = helper.make_node(
        "EPContext",
        [],
        ["x"],
        domain="com.microsoft",
        ep_cache_context="/opt/x.so",
        embed_mode=0,
    )
    model.graph.node.insert(0, node)


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "evil"
    model.opset_import.append(helper.make_opsetid("evil", 1))


def short_weights(model: onnx.ModelProto) -> None:
    """The shape promises 192 numbers, the data are four bytes."""
    model.graph.initializer[2].raw_data = bytes(4)


def cyclic(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "logits"


def ort_format() -> bytes:
    """A flat buffer begins with an offset and its mark."""
    return b"\x1c\x00\x00\x00ORTM" + build.model(build.GREY)


def answering(*nodes: Any) -> Callable[[onnx.ModelProto], object]:
    """Nodes that make "probabilities" of the model's own, "own"."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "own"
        model.graph.node.extend(nodes)
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "rows_axis"))

    return edit


def _model(
    name: str,
    why: str,
    edit: Callable[[onnx.ModelProto], object],
    message: str,
    error: type[PredictorError] = BundleFormatError,
) -> Attack:
    clean = model_with(lambda model: None)
    return Attack(name, why, model_with(edit), error, message, clean)


def _file(name: str, why: str, data: Callable[[], bytes], message: str, member: str = "") -> Attack:
    member = member or "variants/fp32.onnx"
    return Attack(name, why, member_with(member, data), BundleFormatError, message)


EXTERNAL = "a tensor lies in another file"
MODELS = (
    _model(
        "two rows for each image",
        "The second image is answered by a copy of the first one's row.",
        answering(helper.make_node("Concat", ["own", "own"], ["probabilities"], axis=0)),
        r"for 1 image; expected float32 \(1, 3\)",
        AnswerError,
    ),
    _model(
        "logits for probabilities",
        "Every number reads as a probability: 8 454.2 %.",
        answering(helper.make_node("Log", ["own"], ["probabilities"])),
        "expected probabilities from 0 to 1",
        AnswerError,
    ),
    _model(
        "a batch that is mixed",
        "Right for one image, and another one's answer in a list of them.",
        answering(
            helper.make_node("ReduceMean", ["own", "rows_axis"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["own", "mean"], ["apart"]),
            helper.make_node("Sub", ["own", "apart"], ["probabilities"]),
        ),
        "mixes the images",
        SelftestError,
    ),
    _model(
        "weights in another file",
        "onnxruntime, given bytes, looks for it below the working directory.",
        with_weights("secret.bin"),
        EXTERNAL,
    ),
    _model(
        "weights in /etc/passwd",
        "Reads any file, and gives it back as answers.",
        with_weights("/etc/passwd"),
        EXTERNAL,
    ),
    _model(
        "weights in a parent folder",
        "The same for those who refuse absolute paths only.",
        with_weights("../../secret.bin"),
        EXTERNAL,
    ),
    _model(
        "weights in memory",
        "onnxruntime's own mark for 'the offset is an address of this process'.",
        with_weights("*/_ORT_MEM_ADDR_/*", offset="4096", length="768"),
        EXTERNAL,
    ),
    _model(
        "weights in a device",
        "/dev/zero never ends.",
        with_weights("/dev/zero", offset="0", length=str(1 << 60)),
        EXTERNAL,
    ),
    _model(
        "weights in another file, in a branch",
        "Checkers that look at initializers only do not see it.",
        hidden_in_a_branch,
        EXTERNAL,
    ),
    _model(
        "weights in another file, in a function",
        "The same, in a function of the model's own.",
        hidden_in_a_function,
        EXTERNAL,
    ),
    _model(
        "weights in another file, sparse",
        "The same, in a sparse tensor.",
        hidden_sparse,
        EXTERNAL,
    ),
    Attack(
        "preprocessing with weights in another file",
        "The second graph of the bundle, opened at the first image.",
        member_with("preprocess.onnx", lambda: _preprocess_elsewhere()),
        BundleFormatError,
        EXTERNAL,
    ),
    _model(
        "a node of compiled code",
        "EPContext names a file or holds a binary for a device's own loader.",
        compiled,
        "a node EPContext",
    ),
    _file(
        "onnxruntime's own format",
        "Taken by its mark, parsed by other code, seen by no check of ONNX.",
        ort_format,
        "onnxruntime's own format",
    ),
    _file(
        "a Git LFS pointer as model",
        "Packed from a repository that was cloned without LFS.",
        lambda: b"version https://git-lfs.github.com/spec/v1\n",
        "pointer of a Git LFS file",
    ),
    _file(
        "a truncated model",
        "An export that was cut.",
        lambda: build.model(build.GREY)[:-40],
        "no ONNX model.* or a truncated one|truncated one",
    ),
    _file(
        "a picture as model",
        "Protobuf has no mark of its own; anything may look like it.",
        lambda: b"\x89PNG\r\n\x1a\n" + bytes(500),
        "no ONNX model",
    ),
    _file("an empty model", "Zero bytes are valid protobuf.", lambda: b"", "no ONNX model"),
    _file(
        "5,000 nested graphs",
        "A parser that recurses runs out of stack.",
        lambda: _nested(5_000),
        "no ONNX model|cannot be loaded",
    ),
    _file(
        "a newer IR version",
        "Names both numbers, so that one knows what to install.",
        lambda: build.model(build.GREY, ir=99),
        r"IR version 99; this onnxruntime reads up to \d+",
    ),
    _file(
        "a newer opset",
        "Names both numbers.",
        lambda: build.model(build.GREY, opset=99),
        r"opset 99; this onnxruntime knows up to \d+",
    ),
    _model(
        "an operator of nobody's",
        "Runs only where its library is loaded.",
        unknown_operator,
        "cannot be loaded",
    ),
    _model(
        "weights shorter than their shape",
        "Reads behind the end of the buffer.",
        short_weights,
        "cannot be loaded",
    ),
    _model("a cycle", "No order to run it in.", cyclic, "cannot be loaded"),
    _file(
        "no stamp",
        "Nobody said what this model takes.",
        lambda: build.model(build.GREY, stamp=None),
        "has no metadata 'edgeproof.spec'",
    ),
    _file(
        "a stamp that is no text",
        "onnxruntime decodes it when it is asked for, and raises an error of Python's own.",
        lambda: build.model(build.GREY).replace(b"multi-class", b"multi-\xff\xfe\xff\xfe\xff"),
        "names or metadata that are not UTF-8",
    ),
    _file(
        "an input whose name is no text",
        "The same, for the names of inputs and outputs.",
        lambda: build.model(build.GREY, input_name="imagex").replace(b"imagex", b"imag\xff\xfe"),
        "names or metadata that are not UTF-8|cannot be loaded",
    ),
    _file(
        "a fixed batch",
        "Fails at the second image.",
        lambda: build.model(build.GREY, batch=1),
        "the graph has the inputs",
    ),
    _file(
        "float pixels",
        "Takes them scaled, or not: nobody knows.",
        lambda: build.model(build.GREY, input_type=TensorProto.FLOAT),
        "the graph has the inputs|cannot be loaded",
    ),
    _file(
        "preprocessing to another size",
        "The model would see other pixels than it was trained on.",
        lambda: build.preprocess(build.GREY, shape=(9, 8, 1)),
        "the graph has the outputs",
        member="preprocess.onnx",
    ),
)


def _preprocess_elsewhere() -> bytes:
    model = onnx.load_model_from_string(build.preprocess(build.GREY))
    model.graph.initializer[0].CopyFrom(elsewhere("secret.bin", model.graph.initializer[0].name))
    return model.SerializeToString()  # type: ignore[no-any-return]


def _nested(depth: int) -> bytes:
    """graph { node { attribute { g { node ..., written from the inside; "location" makes the
    runtime walk it."""
    data = b"location"
    for i in range(depth):
        tag = (b"\x0a", b"\x32", b"\x2a")[i % 3]  # Graph.node, Attribute.g, Node.attribute
        length, size = b"", len(data)
        while size >= 0x80:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        data = tag + length + bytes([size]) + data
    length, size = b"", len(data)
    while size >= 0x80:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return b"\x08\x08\x3a" + length + bytes([size]) + data


# --- golden samples ----------------------------------------------------------------------------


def golden_with(**arrays: Any) -> Callable[[], bytes]:
    """Golden samples with arrays replaced; bytes stand for a whole .npy file."""

    def data() -> bytes:
        sound = dict(np.load(io.BytesIO(dict(_members())["golden.npz"])))
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, value in {**sound, **arrays}.items():
                archive.writestr(f"{name}.npy", value if isinstance(value, bytes) else npy(value))
        return file.getvalue()

    return data


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array))
    return file.getvalue()


def head(text: str, values: bytes = b"") -> bytes:
    data = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(data)) + data + values


def _golden(name: str, why: str, data: Callable[[], bytes], message: str, **more: Any) -> Attack:
    return Attack(
        f"golden: {name}",
        why,
        member_with("golden.npz", data),
        more.get("error", BundleFormatError),
        message,
        member_with("golden.npz", golden_with()),
    )


def deflated_golden() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pixels.npy", bytes(50_000_000))
    return file.getvalue()


GOLDEN = (
    _golden(
        "pickled objects",
        "Loading runs whatever the pickle says.",
        golden_with(pixels=np.array([print])),
        "is no array of uint8 or float32",
    ),
    _golden(
        "a shape of 10^18 values",
        "Allocates by the header, before a single value is read.",
        golden_with(
            pixels=head(
                "{'descr': '|u1', 'fortran_order': False, 'shape': (999999999, 999999999), }"
            )
        ),
        "expected 999999998000000001 for the shape",
    ),
    _golden(
        "a negative size",
        "-1 times -1 is the right number of bytes.",
        golden_with(
            pixels=head("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -192), }", b"x")
        ),
        "is no array of uint8",
    ),
    _golden(
        "a header that is code",
        "Headers are Python text; nested deep, it takes the parser's stack.",
        golden_with(pixels=head("(" * 5000 + ")" * 5000)),
        "is no array of uint8",
    ),
    _golden(
        "a record dtype",
        "Titles, offsets and sub-arrays: the richest parser in NumPy.",
        golden_with(pixels=np.zeros(3, [("a", "u1"), ("b", "O")])[["a"]]),
        "is no array of uint8",
    ),
    _golden(
        "values cut off",
        "Fewer values than the shape.",
        golden_with(pixels=npy(np.zeros((3, 8, 8, 1), np.uint8))[:-5]),
        "has 187 bytes of values; expected 192",
    ),
    _golden(
        "more values",
        "Bytes that belong to no array.",
        golden_with(pixels=npy(np.zeros((3, 8, 8, 1), np.uint8)) + b"payload"),
        "has 199 bytes of values; expected 192",
    ),
    _golden(
        "no dimensions",
        "len() of it raises in places that expect a list.",
        golden_with(pixels=np.uint8(1)),
        r"pixels are uint8 \(\)",
    ),
    _golden(
        "a bomb inside",
        "The zip in the zip inflates without bound.",
        deflated_golden,
        "would inflate",
    ),
    _golden(
        "bytes behind the inner zip",
        "The strict reading holds inside, too.",
        lambda: golden_with()() + b"payload",
        "behind its end",
    ),
    _golden(
        "answers that are not a number",
        "No difference to them is ever too large.",
        golden_with(**{"probabilities/fp32": np.full((3, 3), np.nan, np.float32)}),
        "differs .* by nan",
        error=SelftestError,
    ),
    _golden(
        "other answers",
        "The model does not compute what was recorded.",
        golden_with(**{"probabilities/fp32": np.zeros((3, 3), np.float32)}),
        "differs from its golden outputs",
        error=SelftestError,
    ),
)

# --- signatures --------------------------------------------------------------------------------


def signed(
    signature: Callable[[bytes], bytes | None],
    edit: Callable[[dict[str, Any]], object] = lambda manifest: None,
    **others: bytes,
) -> bytes:
    """A bundle with what ``signature`` makes of the manifest before ``edit``; ``others`` are
    members in the place of those of the same name."""
    made = signature(dict(_members())["manifest.json"])
    members = forged(edit, {}, packed=False) if edit(_scratch()) != () else dict(_members())
    if made is not None:
        members["manifest.sig"] = made
    members.update(others)
    return zips.write(zips.entries(members))


def _scratch() -> dict[str, Any]:
    return json.loads(dict(_members())["manifest.json"])  # type: ignore[no-any-return]


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
        members = dict(_members())
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
            **{"manifest.sha256": dict(_members())["manifest.sha256"][:64] + b"  manifest.json\n"},
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
        "an edited manifest that is no JSON of ours",
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


ATTACKS = (*ZIPS, *NAMES, *MANIFESTS, *HIDDEN, *MODELS, *GOLDEN, *SIGNATURES)


def main() -> int:
    """Try all; one line for what is not refused as it should be."""
    wrong = 0
    for attack in ATTACKS:
        try:
            attempt(attack.evil(), attack.keys)
        except PredictorError as exc:
            if type(exc) is attack.error and re.search(attack.message, str(exc), re.DOTALL):
                continue
            print(f"{attack.name}: {type(exc).__name__}: {exc}")
        else:
            print(f"{attack.name}: accepted")
        wrong += 1
    print(f"{len(ATTACKS) - wrong} of {len(ATTACKS)} attacks refused")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
