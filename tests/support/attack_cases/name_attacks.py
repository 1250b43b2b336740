"""Attacks by the names of members."""

from __future__ import annotations

import unicodedata

from attack_cases.attack import Attack
from attack_cases.forging import added, listed
from attack_cases.zips import Entry
from runtime import BundleFormatError


def _name(name: str, why: str, message: str = "means different files", title: str = "") -> Attack:
    return Attack(f"name {title or name!r}", why, lambda: listed(name), BundleFormatError, message)


PATH = "has an absolute, parent or folder path"
NAMES = (
    _name("../evil.py", "Unpacked, it lands next to the folder.", PATH),
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
        "name that is not UTF-8",
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
