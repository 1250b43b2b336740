"""Names that look the same but differ: of classes, and of files in a table and in a folder. macOS
stores "ü" as u and two dots, a table as one letter; Unicode calls the composed form NFC."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from pipeline.datasets.examples import some
from pipeline.datasets.sources.image_files import SUFFIXES


def composed(name: str) -> str:
    """Return the name in NFC, in which the same letters are the same characters."""
    return unicodedata.normalize("NFC", name)


def note_spellings(spellings: Iterable[str]) -> tuple[str, ...]:
    """Return a remark on names that are joined since they differ only in their Unicode form."""
    forms: dict[str, set[str]] = defaultdict(set)
    for name in spellings:
        forms[composed(name)].add(name)
    joined = sorted(repr(name) for name, written in forms.items() if len(written) > 1)
    if not joined:
        return ()
    return (
        f"{len(joined):,} classes are spelled in two Unicode forms that look the same, and are "
        f"joined: {some(joined)}.",
    )


def note_alike(names: Sequence[str], what: str = "classes") -> tuple[str, ...]:
    """Return a remark on names that differ only in case, blanks, invisible characters or the form
    of letters."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[_skeleton(name)].append(name)
    groups = [" and ".join(map(ascii_if_odd, group)) for group in alike.values() if len(group) > 1]
    if not groups:
        return ()
    return (
        f"{what.capitalize()} that differ only in case, blanks or the form of their letters are "
        f"different ones here: {some(groups)}. If they are one, give them one name.",
    )


def ascii_if_odd(name: str) -> str:
    """Return the name in quotes, with invisible characters as escapes."""
    visible = all(c.isprintable() and (c == " " or not c.isspace()) for c in name)
    return repr(name) if visible and composed(name) == name else ascii(name)


def _skeleton(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    # Cf: zero width spaces and joiners, byte order marks, soft hyphens
    kept = [c for c in folded if not c.isspace() and unicodedata.category(c) != "Cf"]
    letters = "".join(c for c in kept if c not in "_-")
    return letters or "".join(kept)  # "-" and "_" may be classes


class ImageNames:
    """The files of a folder, to look up by their names in a table."""

    def __init__(self, files: Sequence[str]) -> None:
        self._exact = set(files)
        self._composed: dict[str, list[str]] = defaultdict(list)
        self._folded: dict[str, list[str]] = defaultdict(list)
        for file in files:
            self._composed[composed(file)].append(file)
            self._folded[composed(file).casefold()].append(file)

    def find(self, cell: str) -> str:
        """Return the file that a cell names: as it is written, with a missing ending, in another
        Unicode form, or, where that is one file only, in another case. Return the cell for none."""
        name = PurePosixPath(cell.replace("\\", "/")).as_posix()  # "./a.jpg" is a.jpg
        spellings = [name, *(name + ending for ending in SUFFIXES)]
        for spelling in spellings:
            if spelling in self._exact:
                return spelling
        for forms, form in ((self._composed, composed), (self._folded, _fold)):
            for spelling in spellings:
                files = forms.get(form(spelling), [])
                if len(files) == 1:
                    return files[0]
        return name

    def __contains__(self, file: object) -> bool:
        return file in self._exact

    def is_as_written(self, cell: str, file: str) -> bool:
        """Return whether the cell spells the file's name as the folder does, except for its
        ending."""
        name = PurePosixPath(cell.replace("\\", "/")).as_posix()
        return file == name or file in {name + ending for ending in SUFFIXES}


def _fold(name: str) -> str:
    return composed(name).casefold()
