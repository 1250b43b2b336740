"""Where do the images come from? Finds, checks and decodes the data set that a recipe names and
leaves it as the arrays of ``arrays.py``. Knows nothing of stages, and prints nothing."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets import celeba, idx, locate, mnist
from pipeline.datasets.arrays import (
    INFO_NAME,
    SPLITS,
    DatasetInfo,
    Split,
    write_info,
    write_split,
)
from pipeline.datasets.decode import Target, decode_files, preprocess_arrays
from pipeline.datasets.locate import source_state
from pipeline.errors import DataError, StoreError
from pipeline.recipe import DataOptions, PreprocessOptions

__all__ = ["prepare", "source_state"]

_SYNTHETIC_LICENCE = "Apache-2.0 (faces drawn by edgeproof, nobody's photograph)"
_UNKNOWN = "unknown"  # the default of data.licence


def prepare(
    options: DataOptions,
    preprocess: PreprocessOptions,
    preprocess_onnx: bytes,
    seed: int,
    folder: Path,
    on_step: Callable[[str, int, int], None],
    note: Callable[[str], None],
    workers: int | None = None,
) -> DatasetInfo:
    """Write {train,val,test}.{images,labels,ids}.npy and, last, dataset.json into ``folder``.

    ``preprocess_onnx`` is the graph that ``preprocess`` asks for; every decoded image goes through
    it. ``seed`` decides which faces are generated, nothing else. ``on_step(task, done, total)`` and
    ``note(text)`` are called in this process; notes are kept in the result too. The arrays do not
    depend on ``workers`` (None: every usable core).
    Raises DataError when the source is missing, damaged or contradicts itself, StoreError when the
    disk is full; then, and when the process is killed, there is no dataset.json.
    """
    (folder / INFO_NAME).unlink(missing_ok=True)
    job = _Job(options, preprocess, preprocess_onnx, seed, folder, on_step, note, workers)
    try:
        info = _prepare_faces(job) if options.kind == "celeba" else _prepare_idx(job)
        write_info(folder, info)
    except OSError as exc:
        # None: numpy's own "17154048 requested and 3968 written", a short write
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT, None):
            raise
        raise StoreError(
            f"{folder} has no room for the decoded images. Free some space, or give another "
            "folder with --artifacts DIR."
        ) from exc
    return info


@dataclass(frozen=True)
class _Job:
    """The arguments of ``prepare``, and the notes so far."""

    options: DataOptions
    preprocess: PreprocessOptions
    preprocess_onnx: bytes
    seed: int
    folder: Path
    on_step: Callable[[str, int, int], None]
    on_note: Callable[[str], None]
    workers: int | None
    notes: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the model's pixels."""
        return (self.preprocess.height, self.preprocess.width, self.preprocess.channels)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.on_note(text)

    def progress(self, task: str) -> Callable[[int, int], None]:
        return lambda done, total: self.on_step(task, done, total)

    def licence(self, known: str) -> str:
        """The recipe's word, or else what is known of the source."""
        return known if self.options.licence == _UNKNOWN else self.options.licence

    def redistributable(self, known: bool) -> bool:
        """The recipe's word, or else what is known of the source."""
        return known if self.options.redistributable is None else self.options.redistributable


# --- MNIST and other IDX files --------------------------------------------------------------


def _prepare_idx(job: _Job) -> DatasetInfo:
    is_mnist = job.options.kind == "mnist"
    if is_mnist:
        paths = mnist.find_mnist(job.options)
        files = mnist.read_mnist(paths)
    else:
        paths = locate.find_idx(_idx_folder(job.options))
        files = idx.read_set(paths)
    labels = mnist.LABELS if is_mnist else _idx_labels(job.options, files)
    idx.check_labels(paths[1], files.train_labels, len(labels))
    idx.check_labels(paths[3], files.test_labels, len(labels))
    splits = _split_idx(job, files)
    for name, split in splits.items():
        write_split(job.folder, name, split)
    return DatasetInfo(
        name="mnist" if is_mnist else Path(job.options.root or "idx").name,
        task="multi-class",
        labels=labels,
        counts={name: len(split) for name, split in splits.items()},
        sha256=_hash(f"{n} {h}" for n, h in zip(locate.IDX_NAMES, files.sha256, strict=True)),
        synthetic=False,
        redistributable=job.redistributable(known=is_mnist),
        licence=job.licence(mnist.LICENCE if is_mnist else _UNKNOWN),
        notes=tuple(job.notes),
    )


def _idx_folder(options: DataOptions) -> Path:
    if options.download:
        raise DataError(
            'data.kind = "idx" has no download: these files may be any data set. Set '
            "data.download=false and point data.root at a folder of the four IDX files."
        )
    if options.root is None:
        raise DataError(
            'data.kind = "idx" needs data.root, a folder of the four IDX files: --set '
            "data.root=FOLDER. (Debian's package dataset-fashion-mnist puts Fashion-MNIST into "
            "/usr/share/datasets/fashion-mnist.)"
        )
    return locate.folder_of(options.root)


def _idx_labels(options: DataOptions, files: idx.IdxSet) -> tuple[str, ...]:
    if options.labels is None:
        classes = 1 + max(int(files.train_labels.max()), int(files.test_labels.max()))
        return tuple(str(i) for i in range(classes))
    if not options.labels or len(set(options.labels)) != len(options.labels):
        raise DataError(
            f"data.labels = {list(options.labels)}; expected a distinct name for each class."
        )
    return options.labels


def _split_idx(job: _Job, files: idx.IdxSet) -> dict[str, Split]:
    """The last images of the train files are for validation; the test files stay as they are."""
    held_out = job.options.validation_images
    available = len(files.train_images) - held_out
    if available < 1:
        raise DataError(
            f"data.validation_images = {held_out:,} leaves no image to train with; the train files "
            f"hold {len(files.train_images):,}. Ask for fewer."
        )
    used = _limit(job, available)
    train, test = _in_model_form(job, files)
    train_ids, test_ids = _ids("train", len(train)), _ids("test", len(test))
    labels = files.train_labels.astype(np.int64)
    return {
        "train": Split(train[:used], labels[:used], train_ids[:used]),
        "val": Split(train[available:], labels[available:], train_ids[available:]),
        "test": Split(test, files.test_labels.astype(np.int64), test_ids),
    }


def _in_model_form(job: _Job, files: idx.IdxSet) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Train and test images as the model's pixels, uint8 [N, h, w, c].

    With ``preprocess.kind = "digit"`` images of the model's size are taken as they are: the graph
    makes strangers' digits look like MNIST's, and MNIST's do already.
    """
    train, test = files.train_images[..., None], files.test_images[..., None]
    if job.preprocess.kind == "digit" and train.shape[1:] == job.shape:
        size = "x".join(map(str, job.shape))
        job.note(
            f"The images are in the model's form already ({size}), so preprocess.onnx is not "
            "applied to them."
        )
        return train, test
    both = np.concatenate([train, test])
    pixels = preprocess_arrays(
        both, job.shape, job.preprocess_onnx, job.progress("preprocess images")
    )
    return pixels[: len(train)], pixels[len(train) :]


def _ids(split: str, count: int) -> NDArray[np.str_]:
    return np.array([f"{split}/{i:05d}" for i in range(count)])


# --- CelebA and its drawn stand-in ----------------------------------------------------------


def _prepare_faces(job: _Job) -> DatasetInfo:
    files, generated = _find_faces(job)
    drawn = celeba.drawn_attributes(files)
    faces = celeba.read_faces(files)
    if drawn is None and job.options.redistributable and celeba.is_official(files):
        raise DataError(
            f"{files.attributes.name} is the official CelebA list, whose images may not be "
            "redistributed, but the recipe says data.redistributable = true. Set it to false."
        )
    names = celeba.choose_attributes(job.options.attributes, faces.attributes, drawn)
    faces = celeba.with_attributes(faces, names)
    rows = {name: faces.rows_of(name) for name in SPLITS}
    rows["train"] = rows["train"][: _limit(job, len(rows["train"]), generated)]
    _note_faces(job, faces, rows, drawn)
    digests = _write_faces(job, files, faces, rows)
    if generated:
        sha256 = _generator_hash(job)
        shutil.rmtree(job.folder / _GENERATED)  # the arrays hold all that is needed of it
    else:
        sha256 = _faces_hash(files, faces, rows, digests)
    return DatasetInfo(
        name="celeba" if drawn is None else "celeba-synthetic",
        task="multi-label",
        labels=names,
        counts={name: len(rows[name]) for name in SPLITS},
        sha256=sha256,
        synthetic=drawn is not None,
        redistributable=drawn is not None or job.redistributable(known=False),
        licence=_SYNTHETIC_LICENCE if drawn is not None else job.licence(celeba.LICENCE),
        notes=tuple(job.notes),
    )


_GENERATED = "synthetic"  # in the folder of the arrays, while these are made


def _find_faces(job: _Job) -> tuple[locate.CelebaFiles, bool]:
    """A local copy, a downloaded one, or one that is generated now (then True)."""
    options = job.options
    if options.download:
        folder = Path(options.root).expanduser() if options.root else locate.cache_folder()
        return _downloaded(folder), False
    if options.root is not None:
        return locate.find_celeba(locate.folder_of(options.root)), False
    return locate.find_celeba(_generate(job)), True


def _downloaded(folder: Path) -> locate.CelebaFiles:
    try:
        return locate.find_celeba(folder)
    except DataError:
        from pipeline.datasets.download import download_celeba

        download_celeba(folder)
        return locate.find_celeba(folder)


def _generate(job: _Job) -> Path:
    from pipeline.datasets.face_attributes import ATTRIBUTES, DRAWN
    from pipeline.datasets.synthetic_faces import generate

    celeba.choose_attributes(job.options.attributes, ATTRIBUTES, DRAWN)  # refuse before the work
    for left in (job.folder / _GENERATED, *job.folder.glob(f".{_GENERATED}.*.partial")):
        shutil.rmtree(left, ignore_errors=True)  # of a killed run
    images = job.options.synthetic_images
    generate(
        job.folder / _GENERATED, images, job.seed, job.workers, job.progress("draw synthetic faces")
    )
    return job.folder / _GENERATED


def _write_faces(
    job: _Job, files: locate.CelebaFiles, faces: celeba.Faces, rows: dict[str, NDArray[np.int64]]
) -> dict[str, list[bytes]]:
    """Decode the images and write the splits; returns the SHA-256 of each image file."""
    targets = [
        Target(
            tuple(files.images / faces.files[row] for row in rows[name]),
            job.folder / f"{name}.images.npy",
        )
        for name in SPLITS
    ]
    digests = decode_files(
        targets, job.shape, job.preprocess_onnx, job.progress("decode images"), job.workers
    )
    ids = np.array(faces.files)
    for name, target in zip(SPLITS, targets, strict=True):
        images = np.load(target.array, mmap_mode="r")
        write_split(job.folder, name, Split(images, faces.values[rows[name]], ids[rows[name]]))
    by_split = dict(zip(SPLITS, digests, strict=True))
    _note_duplicates(job, by_split)
    return by_split


def _note_faces(
    job: _Job,
    faces: celeba.Faces,
    rows: dict[str, NDArray[np.int64]],
    drawn: Sequence[str] | None,
) -> None:
    """What a reader must know before believing a number."""
    if drawn is not None:
        job.note(
            f"SYNTHETIC faces: {len(faces.files):,} drawn images in CelebA's layout, no "
            "photographs; numbers measured on them show that the pipeline works and say nothing "
            f"about people. Only the {len(drawn)} drawn attributes have a meaning."
        )
    if len(faces.files) < faces.rows:
        job.note(f"{len(faces.files):,} of {faces.rows:,} images are here; the rest is left out.")
    if faces.identities is None:
        job.note(f"No {locate.IDENTITIES_NAME}: whether people cross splits is unknown.")
    elif people := celeba.people_across_splits(faces):
        job.note(
            f"{people:,} people have images in more than one split, so val and test flatter the "
            "model."
        )
    train = faces.values[rows["train"]]
    constant = np.flatnonzero(train.min(axis=0) == train.max(axis=0))
    if len(constant):
        named = ", ".join(faces.attributes[i] for i in constant)
        job.note(f"Never or always true in the train split, so nothing can be learned: {named}.")


def _note_duplicates(job: _Job, digests: dict[str, list[bytes]]) -> None:
    train, val, test = (set(digests[name]) for name in SPLITS)
    if shared := len((train & val) | (train & test) | (val & test)):
        job.note(f"{shared:,} images occur byte for byte in more than one split.")


def _faces_hash(
    files: locate.CelebaFiles,
    faces: celeba.Faces,
    rows: dict[str, NDArray[np.int64]],
    digests: dict[str, list[bytes]],
) -> str:
    """Over the label files and the images that are used, name and content."""
    lines = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files.lists]
    for name in SPLITS:
        for row, digest in zip(rows[name], digests[name], strict=True):
            lines.append(f"{name} {faces.files[row]} {digest.hex()}")
    return _hash(lines)


def _generator_hash(job: _Job) -> str:
    """Over what decides the drawn images; not over their bytes, which differ a little between
    versions of Pillow."""
    from pipeline.datasets.synthetic_faces import GENERATOR_VERSION

    options = job.options
    return _hash(
        (f"synthetic_faces {GENERATOR_VERSION}", f"{options.synthetic_images}", f"{job.seed}")
    )


# --- both -----------------------------------------------------------------------------------


def _limit(job: _Job, available: int, generated: bool = False) -> int:
    """How many train images to use.

    When more are asked for than there are: all of a generated set, which is a stand-in anyway, with
    a note; else DataError.
    """
    wanted = job.options.train_images
    if wanted is None or wanted <= available:
        return available if wanted is None else wanted
    found = f"data.train_images = {wanted:,}, but the train split has {available:,}"
    if not generated:
        raise DataError(f"{found}. Ask for fewer, or leave data.train_images out to use all.")
    job.note(f"{found} drawn faces: all are used.")
    return available


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
