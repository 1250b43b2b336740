"""CelebA, a partial copy of it, or its drawn stand-in -> the arrays of ``arrays.py``."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.arrays import SPLITS, Split, take_rows, write_split
from pipeline.datasets.decoding.decode import Decoded, Target, decode_files
from pipeline.datasets.info import DatasetInfo
from pipeline.datasets.preparation.duplicates import judge_duplicates
from pipeline.datasets.preparation.groups import group_counts, judge_groups
from pipeline.datasets.preparation.preparation import Preparation, hash_lines
from pipeline.datasets.preparation.split_checks import note_constants
from pipeline.datasets.sources import celeba, locate
from pipeline.datasets.sources.download import download_celeba, find_or_download
from pipeline.datasets.sources.image_list import LeftOut
from pipeline.errors import DataError

_SYNTHETIC_LICENSE = "Apache-2.0 (faces drawn by edgeproof, nobody's photograph)"


def arrays_from_celeba(prep: Preparation) -> DatasetInfo:
    """Write the splits of the copy that the options name, or of faces drawn now; raises
    DataError."""
    files, generated = _find_faces(prep)
    drawn = celeba.drawn_attributes(files)
    faces = celeba.read_faces(files)
    if drawn is None and prep.options.redistributable and celeba.is_official(files):
        raise DataError(
            f"{files.attributes.name} is the official CelebA list, whose images may not be "
            "redistributed, but the recipe says data.redistributable = true. Set it to false."
        )
    names = celeba.choose_attributes(prep.options.attributes, faces.attributes, drawn)
    faces = celeba.with_attributes(faces, names)
    _note_origin(prep, files, faces, drawn)
    faces = _judge_people(prep, files, faces)
    rows = {name: faces.rows_of(name) for name in SPLITS}
    rows["train"] = rows["train"][: prep.train_limit(len(rows["train"]), generated)]
    used = celeba.select(faces, np.sort(np.concatenate(list(rows.values()))))
    written = _write_faces(prep, files, used)
    faces = written.faces
    note_constants(prep, names, faces.values[faces.rows_of("train")])
    if generated:
        sha256 = _generator_hash(prep)
        shutil.rmtree(prep.folder / _GENERATED)  # the arrays hold all that is needed of it
    else:
        sha256 = _faces_hash(files, written)
    return DatasetInfo(
        name="celeba" if drawn is None else "celeba-synthetic",
        task="multi-label",
        labels=names,
        counts={name: len(written.faces.rows_of(name)) for name in SPLITS},
        sha256=sha256,
        synthetic=drawn is not None,
        redistributable=drawn is not None or prep.redistributable(known=False),
        license=_SYNTHETIC_LICENSE if drawn is not None else prep.license(celeba.LICENSE),
        notes=tuple(prep.notes),
        **_groups(written.faces),
    )


def _groups(faces: celeba.Faces) -> dict[str, Any]:
    """The fields of DatasetInfo for the people, where these are known."""
    if faces.identities is None:
        return {}
    counts = group_counts(faces.identities.tolist(), faces.splits)
    return {"grouped_by": locate.IDENTITIES_NAME, "groups": counts}


_GENERATED = "synthetic"  # in the folder of the arrays, while these are made


def _find_faces(prep: Preparation) -> tuple[locate.CelebaFiles, bool]:
    """A local copy, a downloaded one, or one that is generated now (then True)."""
    options = prep.options
    if options.download:
        return find_or_download(locate.find_celeba, download_celeba, options.root), False
    if options.root is not None:
        return locate.find_celeba(locate.folder_of(options.root)), False
    return locate.find_celeba(_generate(prep)), True


def _generate(prep: Preparation) -> Path:
    from pipeline.datasets.drawn.face_attributes import ATTRIBUTES, DRAWN
    from pipeline.datasets.drawn.synthetic_faces import generate

    celeba.choose_attributes(prep.options.attributes, ATTRIBUTES, DRAWN)  # refuse before the work
    for left in (prep.folder / _GENERATED, *prep.folder.glob(f".{_GENERATED}.*.partial")):
        shutil.rmtree(left, ignore_errors=True)  # of a killed run
    images = prep.options.synthetic_images
    generate(
        prep.folder / _GENERATED,
        images,
        prep.seed,
        prep.workers,
        prep.progress("draw synthetic faces"),
    )
    return prep.folder / _GENERATED


# --- images ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Written:
    """The faces that are in the arrays, and the SHA-256 of each one's file."""

    faces: celeba.Faces
    digests: tuple[bytes, ...]


def _write_faces(prep: Preparation, files: locate.CelebaFiles, faces: celeba.Faces) -> _Written:
    """Decode the images and write the splits, without what is bad or to be dropped."""
    rows = {name: faces.rows_of(name) for name in SPLITS}
    targets = [
        Target(
            tuple(files.images / faces.files[row] for row in rows[name]),
            prep.folder / f"{name}.images.npy",
        )
        for name in SPLITS
    ]
    parts = decode_files(
        targets,
        prep.shape,
        prep.preprocess_onnx,
        prep.progress("decode images"),
        prep.workers,
        prep.preprocess.white_level,
    )
    kept = _kept(prep, files, faces, rows, parts)
    digests: dict[int, bytes] = {}
    for name, target, part in zip(SPLITS, targets, parts, strict=True):
        places = np.flatnonzero(np.isin(rows[name], kept))  # in the array
        if len(places) < len(rows[name]):
            take_rows(target.array, places, target.array)
        digests |= {int(rows[name][i]): part.digests[i] for i in places}
    result = celeba.select(faces, kept)
    celeba.check_no_empty_split(result, files)
    ids = np.array(result.files)
    for name, target in zip(SPLITS, targets, strict=True):
        of_split = result.rows_of(name)
        images = np.load(target.array, mmap_mode="r")
        write_split(prep.folder, name, Split(images, result.values[of_split], ids[of_split]))
    return _Written(result, tuple(digests[int(row)] for row in kept))


def _kept(
    prep: Preparation,
    files: locate.CelebaFiles,
    faces: celeba.Faces,
    rows: dict[str, NDArray[np.int64]],
    parts: Sequence[Decoded],
) -> NDArray[np.int64]:
    """The rows of faces that stay, ascending."""
    row_of = np.concatenate([rows[name] for name in SPLITS])  # in the order of the parts
    failures = [
        reason for part in parts for reason in map(part.failures.get, range(len(part.files)))
    ]
    bad = [
        LeftOut(faces.files[row], reason)
        for row, reason in zip(row_of, failures, strict=True)
        if reason is not None
    ]
    prep.judge_bad(bad, len(row_of), files.images)
    good = np.array([i for i, reason in enumerate(failures) if reason is None], np.int64)
    digests = [digest for part in parts for digest in part.digests]
    pixels = [digest for part in parts for digest in part.pixels]
    drop = judge_duplicates(
        prep,
        [faces.files[row] for row in row_of[good]],
        faces.splits[row_of[good]],
        [digests[i] for i in good],
        [pixels[i] for i in good],
    )
    return np.sort(np.delete(row_of[good], drop))


# --- what a reader must know before believing a number --------------------------------------


def _note_origin(
    prep: Preparation, files: locate.CelebaFiles, faces: celeba.Faces, drawn: Sequence[str] | None
) -> None:
    """Whose faces these are, and how many of them are here."""
    if drawn is not None:
        prep.note(
            f"SYNTHETIC faces: {len(faces.files):,} drawn images in CelebA's layout, no "
            "photographs; numbers measured on them show that the pipeline works and say nothing "
            f"about people. Only the {len(drawn)} drawn attributes have a meaning."
        )
        if len(faces.files) < faces.rows:
            prep.note(f"{len(faces.files):,} of {faces.rows:,} images are here.")
        return
    official, other = celeba.official_lists(files)
    published = f"published by md5: {', '.join(official) or 'none'}"
    if other:
        published += f"; not as published: {', '.join(other)}"
    if not official:
        what = "Faces in CelebA's layout, no list is CelebA's own by md5"
        prep.note(f"{what}: {len(faces.files):,} of {faces.rows:,} listed images are here.")
    elif len(faces.files) == celeba.IMAGES and not other:
        prep.note(f"CelebA, official and complete: all {celeba.IMAGES:,} images; {published}.")
    elif len(faces.files) == celeba.IMAGES:
        prep.note(f"CelebA with all {celeba.IMAGES:,} images, but other lists; {published}.")
    else:
        prep.note(
            f"CelebA, a partial copy: {len(faces.files):,} of {celeba.IMAGES:,} images; "
            f"{published}."
        )


def _judge_people(
    prep: Preparation, files: locate.CelebaFiles, faces: celeba.Faces
) -> celeba.Faces:
    """The faces to use, so that nobody is in two splits where the options want that."""
    if faces.identities is None:
        if prep.options.groups_across_splits != "note":
            raise DataError(
                f'data.groups_across_splits = "{prep.options.groups_across_splits}" needs '
                f"{locate.IDENTITIES_NAME} beside {files.attributes}, which is not there. Put it "
                'there, or set "note".'
            )
        prep.note(f"No {locate.IDENTITIES_NAME}: whether people cross splits is unknown.")
        return faces
    drop = judge_groups(prep, faces.files, faces.identities.tolist(), faces.splits, "people")
    if not drop:
        return faces
    result = celeba.select(faces, np.delete(np.arange(len(faces.files)), drop))
    celeba.check_no_empty_split(result, files)
    return result


# --- hashes ---------------------------------------------------------------------------------


def _faces_hash(files: locate.CelebaFiles, written: _Written) -> str:
    """Over the label files and the images that are used, name and content."""
    lines = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files.lists]
    for name in SPLITS:
        lines += [
            f"{name} {written.faces.files[row]} {written.digests[row].hex()}"
            for row in written.faces.rows_of(name)
        ]
    return hash_lines(lines)


def _generator_hash(prep: Preparation) -> str:
    """Over what decides the drawn images; not over their bytes, which differ a little between
    versions of Pillow."""
    from pipeline.datasets.drawn.synthetic_faces import GENERATOR_VERSION

    options = prep.options
    return hash_lines(
        (f"synthetic_faces {GENERATOR_VERSION}", f"{options.synthetic_images}", f"{prep.seed}")
    )
