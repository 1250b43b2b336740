"""Cartoon faces in the layout of the official CelebA folder, for users without a copy of it.

CelebA may not be redistributed. Without a local copy the `celeba` recipe runs on this set, which
has the same files, image size and attribute names, so that later stages need no special case.

Each picture shows one head and shoulders in front of a soft background: a person (skin, face shape,
hair) photographed once to six times with another pose, light, mouth, hat, glasses, make-up and
clothes. The attributes named in `DRAWN` are really drawn and their labels are exact; the other
official attributes are written as -1 for everybody and must be left out of model and metrics
(`SYNTHETIC.json` lists `drawn`; the file is written last and its presence marks the set as
complete and as synthetic).

Nothing here is modeled on real faces. A number measured on this set shows that a pipeline works and
says nothing about people. It draws no gender, age, beauty or body shape, writes no
landmarks and no boxes, and its label frequencies are not CelebA's. The same seed gives the same
bytes with the same numpy and Pillow, whatever the number of workers; other versions of the two
may round or encode a pixel differently.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL import __version__ as pillow_version

from pipeline.datasets.decoding.workers import Progress, run_in_processes, workers_for
from pipeline.datasets.drawn.canvas import HEIGHT, WIDTH
from pipeline.datasets.drawn.face_attributes import ATTRIBUTES, DRAWN, check, dress, sample_traits
from pipeline.datasets.drawn.face_drawing import draw_person
from pipeline.datasets.drawn.person import sample_person

# Part of SYNTHETIC.json: raise it whenever the same seed would give other pictures or labels.
GENERATOR_VERSION = 1
MARKER = "SYNTHETIC.json"
# Of images, train, val and test; the set is small, so more than 10 % are for the test.
SPLIT_SHARES = (0.70, 0.12, 0.18)
MAX_IMAGES_PER_PERSON = 6
JPEG_QUALITY = 90  # 12 kB an image on average
CHUNK = 64  # images a worker writes between two reports: about half a second
POOL_PAYS_FROM = 256  # images; below, starting the workers costs more than it saves

Row = tuple[int, tuple[bool, ...]]  # an image's number and its values of DRAWN


@dataclass(frozen=True)
class Plan:
    """The person and the split of each image; row i is image i + 1."""

    seed: int
    identities: npt.NDArray[np.int64]  # (images,), from 1
    splits: npt.NDArray[np.int64]  # (images,): 0 train, 1 val, 2 test


# Third word of a seed, so that the streams of images, people and plan never coincide; an image
# has none: default_rng([seed, index]).
_PERSON_STREAM, _PLAN_STREAM = 1, 2


def draw_plan(images: int, seed: int) -> Plan:
    """Draw the identity and the split of each image; an identity has one split."""
    rng = np.random.default_rng([seed, 0, _PLAN_STREAM])
    counts = rng.integers(1, MAX_IMAGES_PER_PERSON + 1, size=images)
    people = int(np.searchsorted(np.cumsum(counts), images)) + 1
    identities = np.repeat(np.arange(1, people + 1), counts[:people])[:images]
    split_of = _split_people(np.bincount(identities, minlength=people + 1)[1:])
    order = rng.permutation(images)  # a person's images are scattered, as in CelebA
    identities = identities[order]
    return Plan(seed, identities, split_of[identities - 1])


def _split_people(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The split of each person: whole people, by share of images, none empty if people suffice."""
    people = len(counts)
    shares = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(shares, SPLIT_SHARES[0]))
    second = int(np.searchsorted(shares, SPLIT_SHARES[0] + SPLIT_SHARES[1]))
    if people >= 3:
        first = min(max(first, 1), people - 2)
        second = min(max(second, first + 1), people - 1)
    at = np.arange(people)
    return (at >= first).astype(np.int64) + (at >= second)


@dataclass(frozen=True)
class _Chunk:
    """The images that a worker writes at a time."""

    folder: Path
    seed: int
    numbered: Sequence[tuple[int, int]]  # (index, identity) of each image


def _write_images(chunk: _Chunk) -> list[Row]:
    """Write the images of a chunk; return each index with its values of DRAWN."""
    rows = []
    for index, identity in chunk.numbered:
        person_rng = np.random.default_rng([chunk.seed, identity, _PERSON_STREAM])
        traits, person = sample_traits(person_rng), sample_person(person_rng)
        rng = np.random.default_rng([chunk.seed, index])
        attributes = dress(traits, rng)
        pixels = draw_person(rng, person, check(attributes), HEIGHT, WIDTH)
        Image.fromarray(pixels).save(chunk.folder / _file_name(index), quality=JPEG_QUALITY)
        rows.append((index, tuple(attributes[name] for name in DRAWN)))
    return rows


def _file_name(index: int) -> str:
    return f"{index:06d}.jpg"


def _chunks(plan: Plan) -> list[list[tuple[int, int]]]:
    numbered = [(i, int(person)) for i, person in enumerate(plan.identities, start=1)]
    return [numbered[i : i + CHUNK] for i in range(0, len(numbered), CHUNK)]


def _write_all(
    folder: Path, plan: Plan, workers: int, progress: Progress | None
) -> npt.NDArray[np.bool_]:
    """Write every image; return the values of DRAWN, (images, len(DRAWN))."""
    values = np.zeros((len(plan.identities), len(DRAWN)), dtype=np.bool_)
    done = 0
    # closed at once: after an exception no worker may continue to write into a removed folder
    with contextlib.closing(_results(folder, plan, workers)) as results:
        for rows in results:
            for index, row in rows:
                values[index - 1] = row
            done += len(rows)
            if progress is not None:
                progress(done, len(values))
    return values


def _results(folder: Path, plan: Plan, workers: int) -> Generator[list[Row], None, None]:
    chunks = [_Chunk(folder, plan.seed, numbered) for numbered in _chunks(plan)]
    return run_in_processes(_write_images, chunks, workers)


def _write_lists(folder: Path, plan: Plan, values: npt.NDArray[np.bool_]) -> None:
    """The three text files of the official layout."""
    names = [_file_name(i) for i in range(1, len(values) + 1)]
    official = np.full((len(values), len(ATTRIBUTES)), -1, dtype=np.int64)
    official[:, [ATTRIBUTES.index(name) for name in DRAWN]] = np.where(values, 1, -1)
    rows = [
        f"{name} {' '.join(f'{v:2d}' for v in row)}"
        for name, row in zip(names, official.tolist(), strict=True)
    ]
    _write_lines(folder / "list_attr_celeba.txt", [str(len(names)), " ".join(ATTRIBUTES), *rows])
    for file, column in (
        ("list_eval_partition.txt", plan.splits),
        ("identity_CelebA.txt", plan.identities),
    ):
        pairs = zip(names, column.tolist(), strict=True)
        _write_lines(folder / file, [f"{name} {value}" for name, value in pairs])


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")


def _write_marker(folder: Path, plan: Plan) -> None:
    marker = {
        "synthetic": True,
        "generator": "pipeline.datasets.drawn.synthetic_faces",
        "version": GENERATOR_VERSION,
        "seed": plan.seed,
        "images": len(plan.identities),
        "identities": int(plan.identities.max()),
        "drawn": list(DRAWN),
        "made_with": {"numpy": np.__version__, "pillow": pillow_version},
    }
    (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="ascii")


def _refuse(root: Path, images: int, seed: int, workers: int | None) -> None:
    if images < 1 or seed < 0 or (workers is not None and workers < 1):
        raise ValueError(
            f"images={images}, seed={seed}, workers={workers}; "
            "expected at least 1 image, a seed of 0 or more, and at least 1 worker or None"
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(
            f"{root} exists and is not an empty folder; "
            "generating would mix two sets. Remove it or name another folder."
        )


def generate(
    root: Path,
    images: int = 8000,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a complete synthetic set to `root`, or nothing.

    `workers=None` takes every core this process may use; with more than one worker the calling
    script needs the usual `if __name__ == "__main__":` guard. `progress(done, images)` is called
    in the calling process after every `CHUNK` images. All is written to a hidden sibling of
    `root` and renamed at the end; an exception removes it, a killed process leaves it behind
    under its hidden name, from where it may be deleted.
    Raises ValueError for a number out of range, FileExistsError if `root` holds something.
    """
    _refuse(root, images, seed, workers)
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = root.with_name(f".{root.name}.{uuid.uuid4().hex[:8]}.partial")
    pictures = partial / "img_align_celeba"
    try:
        pictures.mkdir(parents=True)
        plan = draw_plan(images, seed)
        values = _write_all(pictures, plan, workers_for(images, POOL_PAYS_FROM, workers), progress)
        _write_lists(partial, plan, values)
        _write_marker(partial, plan)
        if root.exists():
            root.rmdir()  # empty, as checked above; Windows won't rename onto it
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
