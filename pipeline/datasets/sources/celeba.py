"""The label files of CelebA: which images there are, in which split, with which attributes. Reads
no image, and does not know whether the faces are photographed or drawn, beyond the marker file.

Format (Z. Liu, P. Luo, X. Wang, X. Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015,
as the authors publish it; columns are separated by runs of blanks):

    list_attr_celeba.txt       line 1 the number of images; line 2 the names of the attributes;
                               then for each image its file name and 1 or -1 for each attribute
    list_eval_partition.txt    file name and 0 (train), 1 (val) or 2 (test)
    identity_CelebA.txt        file name and the number of the person
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import SPLITS
from pipeline.datasets.examples import some
from pipeline.datasets.sources.locate import CelebaFiles
from pipeline.errors import DataError

LICENSE = (
    "CelebA agreement: non-commercial research only, images not to be redistributed "
    "(https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html)"
)
# of the authors' files, as torchvision.datasets.CelebA publishes them
OFFICIAL_MD5 = {
    "list_attr_celeba.txt": "75e246fa4810816ffd6ee81facbd244c",
    "list_eval_partition.txt": "d32c9cbf5e040fd4025c592c306e6668",
    "identity_CelebA.txt": "32bd1bd63d3c78cd57e08160ec5ed1e2",
}
IMAGES = 202_599  # in the complete set
_PICTURES = (".jpg", ".jpeg", ".png")  # other files in the image folder are none of our business
_VALUES = {"1": 1, "-1": 0}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Faces:
    """The images that are there, in the order of the attribute list."""

    attributes: tuple[str, ...]
    files: tuple[str, ...]  # [N] names in the image folder
    values: NDArray[np.uint8]  # [N, attributes] of 0 and 1
    splits: NDArray[np.uint8]  # [N]: 0 train, 1 val, 2 test
    identities: NDArray[np.int64] | None  # [N] the person; None without that file
    rows: int  # of the attribute list, with or without an image

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """The rows of "train", "val" or "test", in order."""
        return np.flatnonzero(self.splits == SPLITS.index(split))


def read_faces(files: CelebaFiles) -> Faces:
    """Read and cross-check the label files.

    Rows without an image are left out. Raises DataError, naming file and line, for anything else
    that is not as the format says; for images without a row; and for an empty split.
    """
    attributes, values = _read_attributes(files.attributes)
    splits = _read_numbers(
        files.partition, "0, 1 or 2 (train, val, test)", lambda n: n in (0, 1, 2)
    )
    _check_same_names(files.attributes, values, files.partition, splits)
    present = _present(files, values)
    faces = Faces(
        attributes,
        tuple(present),
        np.frombuffer(b"".join(values[name] for name in present), np.uint8).reshape(
            len(present), len(attributes)
        ),
        np.array([splits[name] for name in present], np.uint8),
        _read_identities(files, present),
        rows=len(values),
    )
    check_no_empty_split(faces, files)
    return faces


def with_attributes(faces: Faces, names: Sequence[str]) -> Faces:
    """The same images with the named attributes only, in the order of ``names``."""
    columns = [faces.attributes.index(name) for name in names]
    values = np.ascontiguousarray(faces.values[:, columns])
    return replace(faces, attributes=tuple(names), values=values)


def select(faces: Faces, rows: NDArray[np.int64]) -> Faces:
    """The images in the given rows, in that order."""
    return replace(
        faces,
        files=tuple(faces.files[row] for row in rows),
        values=faces.values[rows],
        splits=faces.splits[rows],
        identities=None if faces.identities is None else faces.identities[rows],
    )


def choose_attributes(
    wanted: Sequence[str] | None, known: Sequence[str], drawn: Sequence[str] | None
) -> tuple[str, ...]:
    """The attributes to use: those ``wanted``, or else all that there are.

    ``drawn`` is None for photographs; of a generated set only these attributes mean anything.
    Raises DataError for a name that is unknown, not drawn, or given twice.
    """
    possible = tuple(known) if drawn is None else tuple(name for name in known if name in drawn)
    if wanted is None:
        return possible
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"There are {', '.join(possible)}."
            raise DataError(f"data.attributes: there is no attribute {name!r}; {hint}")
        if name not in possible:
            raise DataError(
                f"data.attributes: {name!r} is not drawn in the synthetic faces, so its labels "
                f"mean nothing there; drawn are {', '.join(possible)}. Choose among these, or "
                "give a copy of CelebA with data.root."
            )
    if not wanted or len(set(wanted)) != len(wanted):
        raise DataError(f"data.attributes = {list(wanted)}; expected distinct names, at least one.")
    return tuple(wanted)


def drawn_attributes(files: CelebaFiles) -> tuple[str, ...] | None:
    """What the marker file of a generated set lists as drawn; None for a set without marker.

    Raises DataError when the marker cannot be read.
    """
    if files.marker is None:
        return None
    try:
        drawn = json.loads(files.marker.read_text(encoding="utf-8"))["drawn"]
        if not isinstance(drawn, list) or not all(isinstance(name, str) for name in drawn):
            raise TypeError(f"its 'drawn' is {drawn!r}")
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise DataError(
            f"{files.marker} does not list what is drawn ({exc!r}); expected the JSON file that "
            "the generator writes. Generate the set again."
        ) from exc
    return tuple(drawn)


def official_lists(files: CelebaFiles) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the lists that are the authors', byte for byte, and of those that are not.

    There are no published sums of single images, only one of the archive that they come in.
    """
    names: tuple[list[str], list[str]] = ([], [])
    for path in files.lists:
        if path.name in OFFICIAL_MD5:
            md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            names[md5 != OFFICIAL_MD5[path.name]].append(path.name)
    return tuple(names[0]), tuple(names[1])


def is_official(files: CelebaFiles) -> bool:
    """True when the attribute list or the partition is the authors' file, byte for byte."""
    return bool({files.attributes.name, files.partition.name} & set(official_lists(files)[0]))


# --- the files ------------------------------------------------------------------------------


def _read_attributes(path: Path) -> tuple[tuple[str, ...], dict[str, bytes]]:
    """The names in line 2, and for each image its values as bytes of 0 and 1."""
    lines = _lines(path)
    count = _count(path, next(lines, (1, ""))[1])
    attributes = _names(path, next(lines, (2, ""))[1])
    rows: dict[str, bytes] = {}
    for number, line in lines:
        name, *tokens = line.split()
        if len(tokens) != len(attributes):
            _refuse(path, number, f"{len(tokens)} values for {name}", f"{len(attributes)}")
        try:
            values = bytes(map(_VALUES.__getitem__, tokens))
        except KeyError as exc:
            _refuse(path, number, f"the value {exc.args[0]!r} for {name}", "1 or -1")
        _add(path, number, rows, name, values)
    if len(rows) != count:
        raise DataError(
            f"{path} has {len(rows):,} rows, but its first line says {count:,}; the file is "
            "truncated or was edited. Fetch it again, or correct the first line."
        )
    return attributes, rows


def _count(path: Path, line: str) -> int:
    if not line.strip().isascii() or not line.strip().isdigit() or int(line) < 1:
        _refuse(path, 1, repr(line.strip()[:40]), "the number of images")
    return int(line)


def _names(path: Path, line: str) -> tuple[str, ...]:
    names = tuple(line.split())
    if not names or len(set(names)) != len(names):
        _refuse(path, 2, repr(line.strip()[:40]), "the distinct names of the attributes")
    return names


def _read_numbers(path: Path, expected: str, valid: Callable[[int], bool]) -> dict[str, int]:
    """The number in each line of "name number"."""
    rows: dict[str, int] = {}
    for number, line in _lines(path):
        name, *tokens = line.split()
        text = " ".join(tokens)
        if not (text.isascii() and text.isdigit() and valid(int(text))):
            _refuse(path, number, f"{text!r} for {name}", expected)
        _add(path, number, rows, name, int(text))
    return rows


def _read_identities(files: CelebaFiles, present: Sequence[str]) -> NDArray[np.int64] | None:
    if files.identities is None:
        return None
    people = _read_numbers(files.identities, "the number of a person", lambda n: n < 2**63)
    missing = [name for name in present if name not in people]
    if missing:
        raise DataError(
            f"{files.identities} has no row for {some(missing)}; expected every image. Fetch it "
            "again, or take it away: it is not required."
        )
    return np.array([people[name] for name in present], np.int64)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, numbered from 1."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"{path} cannot be read as text: {exc}. Fetch it again.") from exc


def _add(path: Path, number: int, rows: dict[str, _T], name: str, value: _T) -> None:
    if name in rows:
        _refuse(path, number, f"a second row for {name}", "one row for each image")
    rows[name] = value


def _refuse(path: Path, line: int, found: str, expected: str) -> NoReturn:
    raise DataError(f"{path}, line {line}: found {found}; expected {expected}. Fetch it again.")


# --- how they fit together ------------------------------------------------------------------


def _check_same_names(
    a_path: Path, a: Mapping[str, object], b_path: Path, b: Mapping[str, object]
) -> None:
    for path, missing in ((b_path, a.keys() - b.keys()), (a_path, b.keys() - a.keys())):
        if missing:
            raise DataError(
                f"{path} has no row for {some(sorted(missing))}; expected the same images in "
                f"{a_path.name} and {b_path.name}. Fetch both from one source."
            )


def _present(files: CelebaFiles, rows: Mapping[str, object]) -> list[str]:
    """The images that are there, in the order of the rows."""
    try:
        there = {path.name for path in files.images.iterdir() if path.suffix.lower() in _PICTURES}
    except OSError as exc:
        raise DataError(f"{files.images} cannot be read: {exc.strerror or exc}.") from exc
    if unknown := sorted(there - rows.keys()):
        raise DataError(
            f"{files.images} holds {some(unknown)} without a row in {files.attributes.name}; "
            "expected a row for every image. Take these images away, or complete the lists."
        )
    return [name for name in rows if name in there]


def check_no_empty_split(faces: Faces, files: CelebaFiles) -> None:
    """Raise DataError unless there are images in all three."""
    counts = {name: len(faces.rows_of(name)) for name in SPLITS}
    if min(counts.values()) == 0:
        found = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        raise DataError(
            f"{files.images} holds {found} images by {files.partition.name}; expected some in "
            "all three splits. Copy some of the missing split, or give another partition."
        )
