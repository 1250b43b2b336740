"""Attacks by the manifest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from attack_cases import zips
from attack_cases.attack import Attack
from attack_cases.forging import (
    added,
    changed,
    list_member,
    listed,
    manifest_with,
    sound_members,
    text_with,
    with_manifest,
)
from attack_cases.zips import Entry
from runtime import BundleError, BundleFormatError, BundleIntegrityError


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
        r"the key .*has U\+E0041",
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
        "The hash next to it is not that of these bytes.",
        lambda: zips.write(zips.entries({**sound_members(), "manifest.json": b"{}"})),
        BundleIntegrityError,
        "manifest.sha256 says otherwise",
    ),
    Attack(
        "a hash with more behind it",
        "Loose readers take the first word, or the last.",
        lambda: changed("manifest.sha256", data=sound_members()["manifest.sha256"] + b"x=1\n"),
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
        lambda: with_manifest(sound_members()["manifest.json"].decode().encode("utf-16")),
        BundleFormatError,
        "is not JSON",
    ),
    Attack(
        "a byte order mark",
        "Some parsers skip it, others refuse.",
        lambda: with_manifest(b"\xef\xbb\xbf" + sound_members()["manifest.json"]),
        BundleFormatError,
        "is not JSON",
    ),
    _text(
        "a key twice",
        "The first wins in some parsers, the last in others: two models in one bundle.",
        VERSION,
        f'"model_version": "9.9.9", {VERSION}',
        r"\['model_version'\].* more than once",
    ),
    _text(
        "a key twice, one of them escaped",
        "The same for those who compare the raw text.",
        VERSION,
        f'"model\\u005fversion": "9.9.9", {VERSION}',
        r"\['model_version'\].* more than once",
    ),
    _text(
        "NaN as a tolerance",
        "No comparison with it is ever false, so every selftest would pass.",
        '"fp32", "portable": false, "precision": "fp32"',
        '"fp32", "portable": false, "precision": "fp32", "x": NaN',
        "NaN",
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
        lambda m: list_member(m, "extra.bin", b""),
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
        lambda m: list_member(m, "manifest.json", b""),
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
                    **sound_members(),
                    "preprocess.onnx": sound_members()["variants/fp32.onnx"],
                    "variants/fp32.onnx": sound_members()["preprocess.onnx"],
                }
            )
        ),
        BundleIntegrityError,
        "has .* expected",
    ),
)
