"""A folder with a sub-folder for each class -> ``ImageList``. No image is read.

root/cat/1.jpg, root/cat/more/2.jpg, root/dog/3.png      or, as torchvision's data sets have it,
root/train/cat/1.jpg, root/val/dog/3.png, root/test/...
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.datasets.arrays import NO_SPLIT
from pipeline.datasets.examples import some
from pipeline.datasets.sources.image_files import SUFFIXES, by_suffix, note_files, walk
from pipeline.datasets.sources.image_list import SPLIT_WORDS, ImageList, LeftOut
from pipeline.datasets.sources.names import composed, note_alike, note_spellings
from pipeline.errors import DataError
from runtime.plain_text import hidden_character


def read_class_folders(root: Path, labels: Sequence[str] | None = None) -> ImageList:
    """List the images of each class; ``labels`` is the order of the classes, which for None are
    sorted by name, as in torchvision.

    Raises DataError when there are no images, fewer than two classes, or other classes than
    ``labels`` says.
    """
    files = walk(root)
    if not files.images:
        others = f"{len(files.others):,} other files ({by_suffix(files.others)})"
        content = others if files.others else "nothing"
        raise DataError(
            f"{root} holds no image but {content}; expected files ending in {', '.join(SUFFIXES)}, "
            "in a sub-folder for each class."
        )
    by_split, notes = _split_folders(root, files.images)
    rows: list[tuple[str, str, int]] = []  # (file, class, split)
    unusable: list[LeftOut] = []
    spellings: set[str] = set()
    inside: dict[str, set[str]] = defaultdict(set)  # class -> folders within it
    for name in files.images:
        *folders, _ = name.split("/")
        split = SPLIT_WORDS[folders.pop(0).lower()] if by_split and folders else NO_SPLIT
        if folders:
            spellings.add(folders[0])
            label = composed(folders[0])
            rows.append((name, label, split))
            inside[label].update(folders[1:2])
        else:
            unusable.append(LeftOut(name, "is in no sub-folder of a class"))
    if files.without_images:
        notes += (
            f"{len(files.without_images):,} folders have no image: {some(files.without_images)}.",
        )
    names = _class_names(root, rows, labels)
    notes += (*note_spellings(spellings), *note_alike(names), *_note_nested(root, inside))
    index = {name: i for i, name in enumerate(names)}
    return ImageList(
        root,
        tuple(name for name, _, _ in rows),
        np.array([index[label] for _, label, _ in rows], np.int64),
        names,
        np.array([split for _, _, split in rows], np.int8),
        tuple(unusable),
        (*notes, *note_files(files)),
    )


def _note_nested(root: Path, inside: dict[str, set[str]]) -> tuple[str, ...]:
    """Return a remark on classes with several sub-folders of images, which may be the classes."""
    nested = [
        f"{name!r} has {len(folders):,} ({some(sorted(folders))})"
        for name, folders in sorted(inside.items())
        if len(folders) > 1
    ]
    if not nested:
        return ()
    return (
        f"Folders inside a class are read as part of it: {some(nested)}. If these are the classes, "
        f"name the folder above them: {root / min(n for n in inside if len(inside[n]) > 1)}.",
    )


def _split_folders(root: Path, images: Sequence[str]) -> tuple[bool, tuple[str, ...]]:
    """Return whether the top folders are train, val and test rather than classes, and remarks.

    Images outside of folders are ignored. Raises DataError where it is ambiguous: a network that
    learned to separate train from test images would look like a good one.
    """
    tops = sorted({name.split("/")[0] for name in images if "/" in name})
    words = [top for top in tops if top.lower() in SPLIT_WORDS]
    others = [top for top in tops if top not in words]
    splits = {SPLIT_WORDS[top.lower()] for top in words}
    if not words:
        return False, ()
    if not others and 0 in splits:
        return True, ()
    if not others:
        raise DataError(
            f"{root} has {' and '.join(words)} and no train; expected train, too, with a folder "
            "for each class. Add it, or, if these are classes, rename one."
        )
    if 0 in splits and len(splits) > 1:
        raise DataError(
            f"{root} has {some(others)} next to {' and '.join(words)}; expected only train, val "
            f"and test, or only classes. Remove {some(others)}, or, if all are classes, rename "
            f"{' and '.join(words)}."
        )
    text = f"Folders read as classes, not as splits: {', '.join(words)} (next to {some(others)})."
    return False, (text,)


def _class_names(
    root: Path, rows: Sequence[tuple[str, str, int]], labels: Sequence[str] | None
) -> tuple[str, ...]:
    names = tuple(sorted({label for _, label, _ in rows}))
    if len(names) < 2:
        classes = f"one class, {names[0]!r}" if names else "no class"
        raise DataError(
            f"{root} has {classes}; expected a sub-folder of images for each of two or more. "
            "Labels that are in a CSV file are given with data.label_file (pipeline init --labels)."
        )
    for name in names:
        check_shown(f"{root}: the folder", name)
    if labels is None:
        return names
    return check_names("data.labels", [composed(name) for name in labels], names)


def check_shown(what: str, name: str) -> None:
    """Raise DataError for a label with hidden characters, which no bundle may contain."""
    if hidden := hidden_character(name):
        raise DataError(
            f"{what} {name!r} has {hidden}, a control or invisible character; expected a name that "
            "shows what it is. Rename it."
        )


def check_names(key: str, requested: Sequence[str], present: Sequence[str]) -> tuple[str, ...]:
    """Return ``requested`` if it names each of ``present`` once; raise DataError otherwise."""
    if len(set(requested)) != len(requested):
        raise DataError(f"{key} = {list(requested)}; expected a distinct name for each class.")
    for name in requested:
        if name not in present:
            near = difflib.get_close_matches(name, present, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected {some(present)}."
            raise DataError(f"{key} names {name!r}, which no image has; {hint}")
    missing = [name for name in present if name not in requested]
    if missing:
        raise DataError(
            f"{key} lacks {some(missing)}, which some images have; expected every class. Add "
            f"{'them' if len(missing) > 1 else 'it'}, or remove the images."
        )
    return tuple(requested)
