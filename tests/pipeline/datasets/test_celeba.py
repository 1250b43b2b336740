"""CelebA's layout: read strictly, decoded once through preprocess.onnx, drawn when there is none.

The copy that the tests read is made here: a few dozen images of one color each, with labels that
follow from their numbers.
"""

import csv
import errno
import itertools
import json
import os
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporters.export.resize_graph import resize_graph
from pipeline.datasets.arrays import INFO_NAME, open_dataset
from pipeline.datasets.decoding.decode import open_preprocess
from pipeline.datasets.drawn.face_attributes import DRAWN
from pipeline.datasets.info import DatasetInfo
from pipeline.datasets.prepare import prepare
from pipeline.datasets.source_state import source_state
from pipeline.datasets.sources import celeba, locate
from pipeline.errors import DataError, StoreError
from pipeline.recipe import DataOptions, PreprocessOptions
from runtime.images import as_image

IMAGES = 40
NAMES = ("Bald", "Eyeglasses", "Smiling")
SIZE = PreprocessOptions(kind="resize", height=16, width=12, color="rgb")
GRAPH = resize_graph(16, 12, "rgb").SerializeToString()


def name(i: int) -> str:
    return f"{i:06d}.jpg"


def values(i: int) -> list[int]:
    return [1 if (i >> bit) & 1 else -1 for bit in range(3)]


def split(i: int) -> int:
    return 0 if i <= 24 else 1 if i <= 32 else 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    (folder / locate.IMAGES_NAME).mkdir(parents=True)
    every = range(1, IMAGES + 1)
    for i in every:
        image = Image.new("RGB", (18, 22), (6 * i, 255 - 6 * i, 100))
        image.save(folder / locate.IMAGES_NAME / name(i))
    rows = [f"{name(i)}  " + "  ".join(f"{v:2d}" for v in values(i)) for i in every]
    lines = [str(IMAGES), " ".join(NAMES) + " ", *rows]  # the official line 2 ends with a blank
    (folder / locate.ATTRIBUTES_NAME).write_text("\n".join(lines) + "\n")
    pairs = "".join(f"{name(i)} {split(i)}\n" for i in every)
    (folder / locate.PARTITION_NAME).write_text(pairs)
    people = "".join(f"{name(i)} {(i + 1) // 2}\n" for i in every)
    (folder / locate.IDENTITIES_NAME).write_text(people)
    return folder


def run(
    root: Path | None,
    out: Path,
    note: Callable[[str], None] = lambda _: None,
    on_step: Callable[[str, int, int], None] = lambda *_: None,
    workers: int | None = None,
    seed: int = 0,
    **options: Any,
) -> DatasetInfo:
    out.mkdir(parents=True, exist_ok=True)
    data = DataOptions(kind="celeba", root=None if root is None else str(root), **options)
    return prepare(data, SIZE, GRAPH, seed, out, on_step, note, workers)


def edit(path: Path, line: int, old: str, new: str) -> None:
    lines = path.read_text().split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_text("\n".join(lines))


# --- what is read ---------------------------------------------------------------------------


def test_a_whole_copy(root: Path, tmp_path: Path):
    notes: list[str] = []
    steps: list[tuple[str, int, int]] = []
    info = run(root, tmp_path / "out", notes.append, lambda *step: steps.append(step))
    data = open_dataset(tmp_path / "out")
    assert info == data.info and info.name == "celeba" and info.task == "multi-label"
    assert info.counts == {"train": 24, "val": 8, "test": 8} and info.labels == NAMES
    assert not info.synthetic and not info.redistributable and "non-commercial" in info.license
    assert list(info.notes) == notes and len(notes) == 2
    assert "CelebA" in notes[0] and "40 of 40" in notes[0] and "20 people" in notes[1]
    assert steps[0] == ("decode images", 0, 40) and steps[-1] == ("decode images", 40, 40)
    assert isinstance(data.train.images, np.memmap)
    assert list(data.val.ids) == [name(i) for i in range(25, 33)]
    expected = [[max(v, 0) for v in values(i)] for i in range(25, 33)]
    assert data.val.labels.tolist() == expected and data.val.labels.dtype == np.uint8


def test_the_arrays_come_from_the_graph_that_ships(root: Path, tmp_path: Path):
    run(root, tmp_path / "out")
    data, preprocess = open_dataset(tmp_path / "out"), open_preprocess(GRAPH)
    for split_ in (data.train, data.val, data.test):
        for row, file in enumerate(split_.ids):
            image = as_image(str(root / locate.IMAGES_NAME / file))  # as Predictor.predict does
            assert np.array_equal(split_.images[row], preprocess(image))


@pytest.mark.parametrize("crop", [(18, 18), (10, 14)])
def test_the_recipe_chooses_the_crop(root: Path, tmp_path: Path, crop: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (22, 18, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / locate.IMAGES_NAME / name(1), "PNG")
    height, width = crop  # as large as the model's input: the crop is taken pixel for pixel
    options = PreprocessOptions(
        kind="resize", height=height, width=width, color="rgb", crop=crop, reference=(22, 18)
    )
    graph = resize_graph(height, width, "rgb", crop, (22, 18)).SerializeToString()
    data = DataOptions(kind="celeba", root=str(root))
    prepare(data, options, graph, 0, tmp_path, lambda *_: None, lambda _: None)
    top, left = (22 - height) // 2, (18 - width) // 2
    expected = noise[top : top + height, left : left + width]
    assert np.array_equal(open_dataset(tmp_path).train.images[0], expected)


def test_the_number_of_workers_changes_nothing(root: Path, tmp_path: Path):
    one = run(root, tmp_path / "one", workers=1)
    two = run(root, tmp_path / "two", workers=2)
    assert one == two
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def _flat(_: Path) -> None:
    pass


def _torchvision(root: Path) -> None:
    files = list(root.iterdir())
    (root / "celeba").mkdir()
    for path in files:
        path.rename(root / "celeba" / path.name)


def _cloud(root: Path) -> None:
    places = {locate.IMAGES_NAME: "Img", locate.PARTITION_NAME: "Eval"}
    for path in list(root.iterdir()):
        target = root / places.get(path.name, "Anno")
        target.mkdir(exist_ok=True)
        path.rename(target / path.name)


def _nested(root: Path) -> None:
    images = root / locate.IMAGES_NAME
    images.rename(root / "inner")
    images.mkdir()
    (root / "inner").rename(images / locate.IMAGES_NAME)


@pytest.mark.parametrize("arrange", [_flat, _torchvision, _cloud, _nested])
def test_layouts(root: Path, arrange: Callable[[Path], None]):
    arrange(root)
    faces = celeba.read_faces(locate.find_celeba(root))
    assert len(faces.files) == IMAGES and faces.identities is not None


def test_a_partial_copy_is_counted(root: Path, tmp_path: Path):
    for i in (3, 30):
        (root / locate.IMAGES_NAME / name(i)).unlink()
    info = run(root, tmp_path / "out")
    assert info.counts == {"train": 23, "val": 7, "test": 8}
    assert "38 of 40" in info.notes[0]
    ids = open_dataset(tmp_path / "out").train.ids
    assert name(3) not in ids and list(ids) == sorted(ids)


def test_a_subset_of_attributes_and_images(root: Path, tmp_path: Path):
    info = run(root, tmp_path / "out", attributes=("Smiling", "Bald"), train_images=5)
    data = open_dataset(tmp_path / "out")
    assert info.labels == ("Smiling", "Bald") and info.counts["train"] == 5
    assert data.train.labels.tolist() == [[i >> 2 & 1, i & 1] for i in range(1, 6)]


def test_the_hash_follows_content_and_labels(root: Path, tmp_path: Path):
    before = run(root, tmp_path / "a").sha256
    assert run(root, tmp_path / "b").sha256 == before
    Image.new("RGB", (18, 22)).save(root / locate.IMAGES_NAME / name(7))
    image_changed = run(root, tmp_path / "c").sha256
    edit(root / locate.ATTRIBUTES_NAME, 4, " 1", "-1")
    assert len({before, image_changed, run(root, tmp_path / "d").sha256}) == 3


def test_people_and_pictures_in_two_splits_are_reported(root: Path, tmp_path: Path):
    edit(root / locate.IDENTITIES_NAME, 40, " 20", " 1")
    images = root / locate.IMAGES_NAME
    shutil.copy(images / name(1), images / name(33))
    with Image.open(images / name(2)) as image:  # other bytes, same pixels
        image.save(images / name(34), "PNG")
    notes = run(root, tmp_path / "out").notes
    assert any(
        text.startswith("1 of 20 people have images in more than one split (3 of 40 images)")
        for text in notes
    )
    note = next(text for text in notes if "images occur in more than one split" in text)
    assert note.startswith("2 images") and "1 byte for byte and 1 with other bytes" in note
    assert f"{name(1)} (train) = {name(33)} (test)" in note
    assert f"{name(2)} (train) = {name(34)} (test)" in note
    with (tmp_path / "out" / "duplicates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["split"]) for row in rows] == [
        (name(1), "train"), (name(33), "test"), (name(2), "train"), (name(34), "test"),
    ]  # fmt: skip


@pytest.mark.parametrize("policy", ["refuse", "drop"])
@pytest.mark.parametrize("key", ["groups_across_splits", "duplicates_across_splits"])
def test_nothing_crosses_splits_where_the_recipe_says_so(
    root: Path, tmp_path: Path, key: str, policy: str
):
    images = root / locate.IMAGES_NAME
    if key == "groups_across_splits":
        edit(root / locate.IDENTITIES_NAME, 40, " 20", " 1")  # of images 1 and 2; 40 is for test
        gone = [name(1), name(2)]
    else:
        shutil.copy(images / name(1), images / name(40))
        gone = [name(1)]
    if policy == "refuse":
        with pytest.raises(DataError, match=rf"in more than one split.*data\.{key} to \"drop\""):
            run(root, tmp_path / "out", **{key: policy})
        return
    info = run(root, tmp_path / "out", **{key: policy})
    data = open_dataset(tmp_path / "out")
    assert info.counts == {"train": 24 - len(gone), "val": 8, "test": 8}
    assert list(data.train.ids) == [name(i) for i in range(1, 25) if name(i) not in gone]
    every = run(root, tmp_path / "all")
    before = open_dataset(tmp_path / "all").train
    kept = np.isin(before.ids, data.train.ids)
    assert np.array_equal(before.images[kept], data.train.images)
    assert np.array_equal(before.labels[kept], data.train.labels)
    assert info.sha256 != every.sha256
    with (tmp_path / "out" / "left_out.csv").open() as file:
        assert [row["file"] for row in csv.DictReader(file)] == gone


def test_people_can_not_be_kept_apart_without_their_file(root: Path, tmp_path: Path):
    (root / locate.IDENTITIES_NAME).unlink()
    with pytest.raises(DataError, match=r"groups_across_splits = \"drop\" needs identity_CelebA"):
        run(root, tmp_path / "out", groups_across_splits="drop")


def test_people_who_all_cross_leave_nothing_to_train_with(root: Path, tmp_path: Path):
    pairs = "".join(f"{name(i)} {i % 2 + 1}\n" for i in range(1, IMAGES + 1))
    (root / locate.IDENTITIES_NAME).write_text(pairs)
    with pytest.raises(DataError, match="holds 0 train, 0 val, 8 test images"):
        run(root, tmp_path / "out", groups_across_splits="drop")


def test_bad_images_can_be_left_out(root: Path, tmp_path: Path):
    images = root / locate.IMAGES_NAME
    (images / name(5)).write_bytes(b"<html>404</html>")
    (images / name(30)).write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 40 images .*\n(.*\n)*.*bad_images=skip"):
        run(root, tmp_path / "out")
    info = run(root, tmp_path / "out", bad_images="skip")
    assert info.counts == {"train": 23, "val": 7, "test": 8}
    assert any(f"left out (left_out.csv has them all): {name(5)}" in note for note in info.notes)
    data = open_dataset(tmp_path / "out")
    assert name(5) not in data.train.ids and data.train.images.min(axis=(1, 2, 3)).all()


def test_the_official_set_is_known_by_its_lists(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import hashlib

    def first(out: str) -> str:
        return run(root, tmp_path / out).notes[0]

    def publish(file: str) -> None:
        md5 = hashlib.md5((root / file).read_bytes()).hexdigest()
        monkeypatch.setitem(celeba.OFFICIAL_MD5, file, md5)

    publish(ATTR)
    publish(PART)
    note = first("a")
    assert note.startswith("CelebA, a partial copy: 40 of 202,599 images; published by md5: list_a")
    assert note.endswith("not as published: identity_CelebA.txt.")
    monkeypatch.setattr(celeba, "IMAGES", 40)
    assert first("b").startswith("CelebA with all 40 images, but other lists")
    publish(IDEN)
    assert first("c").startswith("CelebA, official and complete: all 40 images; published by md5:")


def test_without_identities(root: Path, tmp_path: Path):
    (root / locate.IDENTITIES_NAME).unlink()
    assert any("unknown" in text for text in run(root, tmp_path / "out").notes)


def test_a_constant_attribute_is_reported(root: Path, tmp_path: Path):
    notes = run(root, tmp_path / "out", train_images=3).notes
    assert any("nothing can be learned: Smiling." in text for text in notes)


# --- what is refused ------------------------------------------------------------------------

ATTR, PART, IDEN = locate.ATTRIBUTES_NAME, locate.PARTITION_NAME, locate.IDENTITIES_NAME
Damage = Callable[[Path], object]


def _edit(file: str, line: int, old: str, new: str) -> Damage:
    return lambda root: edit(root / file, line, old, new)


def _add(file: str, text: str) -> Damage:
    def damage(root: Path) -> None:
        with (root / file).open("a") as stream:
            stream.write(text)

    return damage


def _write(file: str, data: bytes) -> Damage:
    return lambda root: (root / file).write_bytes(data)


def _keep(first: int, last: int) -> Damage:
    def damage(root: Path) -> None:
        for i in [*range(1, first), *range(last + 1, IMAGES + 1)]:
            (root / locate.IMAGES_NAME / name(i)).unlink()

    return damage


def _stray(root: Path) -> None:
    for i in range(900, 907):
        shutil.copy(root / locate.IMAGES_NAME / name(1), root / locate.IMAGES_NAME / name(i))


def _zip_only(root: Path) -> None:
    shutil.rmtree(root / locate.IMAGES_NAME)
    (root / f"{locate.IMAGES_NAME}.zip").touch()


BAD: dict[str, tuple[Damage, str]] = {
    "no count": (_edit(ATTR, 1, "40", "forty"), f"{ATTR}, line 1: found 'forty'; expected the num"),
    "wrong count": (_edit(ATTR, 1, "40", "41"), "has 40 rows, but its first line says 41"),
    "double name": (_edit(ATTR, 2, "Bald", "Smiling"), f"{ATTR}, line 2: found 'Smiling Eyegl"),
    "short row": (_edit(ATTR, 9, " 1", ""), f"{ATTR}, line 9: found 2 values for 000007.jpg; exp"),
    "value 0": (_edit(ATTR, 9, " 1", " 0"), f"{ATTR}, line 9: found the value '0' for 000007.jpg"),
    "second row": (_edit(ATTR, 9, "000007", "000006"), f"{ATTR}, line 9: found a second row for 0"),
    "not text": (_write(ATTR, b"\xff\xfe\x00"), f"{ATTR} cannot be read as text"),
    "empty list": (_write(ATTR, b""), f"{ATTR}, line 1: found ''"),
    "split 3": (_edit(PART, 5, " 0", " 3"), f"{PART}, line 5: found '3' for 000005.jpg; expected"),
    "split 0 0": (_edit(PART, 5, " 0", " 0 0"), f"{PART}, line 5: found '0 0' for 000005.jpg"),
    "split word": (_edit(PART, 5, " 0", " train"), f"{PART}, line 5: found 'train' for 000005.jpg"),
    "no split": (_edit(PART, 5, " 0", ""), f"{PART}, line 5: found '' for 000005.jpg; expected 0,"),
    "split twice": (_edit(PART, 5, "000005", "000004"), f"{PART}, line 5: found a second row"),
    "more splits": (_add(PART, "000041.jpg 2\n"), f"{ATTR} has no row for 000041.jpg"),
    "fewer splits": (_write(PART, b"000001.jpg 0\n"), "has no row for 000002.jpg, 000003.jpg, 00"),
    "no person": (_edit(IDEN, 5, " 3", " Bob"), f"{IDEN}, line 5: found 'Bob' for 000005.jpg"),
    "fewer people": (_write(IDEN, b"000001.jpg 1\n"), f"{IDEN} has no row for 000002.jpg"),
    "no test": (_keep(1, 32), "24 train, 8 val, 0 test images"),
    "no images": (_keep(1, 0), "holds 0 train, 0 val, 0 test"),
    "images without row": (_stray, "000900.jpg, 000901.jpg, 000902.jpg, 000903.jpg, 000904.jpg and "
                                   "2 more without a row"),
    "not unpacked": (_zip_only, "img_align_celeba.zip"),
    "csv": (lambda root: (root / ATTR).rename(root / ATTR.replace(".txt", ".csv")),
            ".csv files"),
    "no lists": (lambda root: (root / PART).unlink(), f"has no {PART}; expected a CelebA copy"),
    "bad marker": (_write(locate.MARKER_NAME, b'{"drawn": 3}'), "does not list what is drawn"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_copy_is_refused_with_file_and_line(root: Path, tmp_path: Path, case: str):
    damage, message = BAD[case]
    damage(root)
    with pytest.raises(DataError) as caught:
        run(root, tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out" / INFO_NAME).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attributes": ("Smilling",)}, "did you mean 'Smiling'?"),
        ({"attributes": ("xyz",)}, "Bald, Eyeglasses, Smiling"),
        ({"attributes": ("Bald", "Bald")}, "expected distinct names"),
        ({"attributes": ()}, "expected distinct names, at least one"),
        ({"train_images": 25}, "data.train_images = 25, but the train split has 24"),
    ],
)
def test_options_that_cannot_be(root: Path, tmp_path: Path, options: dict[str, Any], message: str):
    with pytest.raises(DataError) as caught:
        run(root, tmp_path / "out", **options)
    assert message in str(caught.value)


def test_the_official_list_is_never_redistributable(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert run(root, tmp_path / "own", redistributable=True).redistributable  # one's own faces
    import hashlib

    md5 = hashlib.md5((root / PART).read_bytes()).hexdigest()
    monkeypatch.setitem(celeba.OFFICIAL_MD5, PART, md5)
    assert not run(root, tmp_path / "a").redistributable
    with pytest.raises(DataError, match="may not be redistributed"):
        run(root, tmp_path / "b", redistributable=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_images_are_all_named(root: Path, tmp_path: Path, workers: int):
    images = root / locate.IMAGES_NAME
    noise = np.random.default_rng(0).integers(0, 256, (22, 18, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / name(5))
    whole = (images / name(5)).read_bytes()
    (images / name(5)).write_bytes(whole[:-100])
    (images / name(30)).write_bytes(b"<html>404</html>")
    (images / name(31)).write_bytes(b"")
    (images / name(40)).unlink()
    (images / name(40)).mkdir()  # listed by the folder, but no file
    with pytest.raises(DataError) as caught:
        run(root, tmp_path / "out", workers=workers)
    text = str(caught.value)
    assert "4 of 40 images" in text
    assert [i for i in range(1, 41) if name(i) in text] == [5, 30, 31, 40]
    assert "truncated" in text and "cannot identify image file" in text
    assert not (tmp_path / "out" / INFO_NAME).exists()


def test_of_many_damaged_images_ten_are_named(root: Path, tmp_path: Path):
    for i in range(1, 21):
        (root / locate.IMAGES_NAME / name(i)).write_bytes(b"x")
    with pytest.raises(DataError, match=r"20 of 40 images(.|\n)*000010.jpg(.|\n)*and 10 more"):
        run(root, tmp_path / "out")


def test_a_graph_of_another_size_is_refused(root: Path, tmp_path: Path):
    wrong = PreprocessOptions(kind="resize", height=8, width=8, color="rgb")
    with pytest.raises(DataError, match=r"made uint8 \(16, 12, 3\).*says uint8 \(8, 8, 3\)"):
        prepare(
            DataOptions(kind="celeba", root=str(root)), wrong, GRAPH, 0, tmp_path, lambda *_: None,
            lambda _: None,
        )  # fmt: skip


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("workers", [1, 2])
def test_stopped_in_the_middle_nothing_counts_as_finished(
    root: Path, tmp_path: Path, interruption: type[BaseException], workers: int
):
    run(root, tmp_path / "out")  # an older result must not survive half overwritten

    def stop(_task: str, done: int, _total: int) -> None:
        if done:
            raise interruption

    with pytest.raises(interruption):
        run(root, tmp_path / "out", on_step=stop, workers=workers)
    with pytest.raises(DataError, match="holds no finished data set"):
        open_dataset(tmp_path / "out")
    run(root, tmp_path / "out")
    assert len(open_dataset(tmp_path / "out").train) == 24


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_a_full_disk(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError, match="no room for the decoded images"):
        run(root, tmp_path / "out")


# --- without a copy -------------------------------------------------------------------------


def test_faces_are_drawn_when_there_is_no_copy(tmp_path: Path):
    notes: list[str] = []
    steps: set[str] = set()
    options = {"synthetic_images": 40, "on_step": lambda task, *_: steps.add(task)}
    info = run(None, tmp_path / "a", notes.append, **options)
    assert info.synthetic and info.redistributable and "SYNTHETIC faces: 40" in notes[0]
    assert info.name == "celeba-synthetic" and info.labels == DRAWN
    assert notes[0].startswith("SYNTHETIC faces: 40 drawn images")
    assert sum(info.counts.values()) == 40 and info.counts["train"] > 20
    assert steps == {"draw synthetic faces", "decode images"}
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 10  # three splits of three arrays and dataset.json; the JPEGs are gone
    again = run(None, tmp_path / "b", **options)
    assert again == info
    first, second = open_dataset(tmp_path / "a"), open_dataset(tmp_path / "b")
    assert np.array_equal(first.train.images, second.train.images)
    assert run(None, tmp_path / "c", seed=1, **options).sha256 != info.sha256


def test_only_drawn_attributes_can_be_asked_of_drawn_faces(tmp_path: Path):
    info = run(None, tmp_path / "a", synthetic_images=40, attributes=("Smiling",))
    assert info.labels == ("Smiling",)
    more = run(None, tmp_path / "c", synthetic_images=40, train_images=16_000)
    assert more.counts["train"] == info.counts["train"]
    assert any("train_images = 16,000, but the train split has" in text for text in more.notes)
    with pytest.raises(DataError, match="'Young' is not drawn in the synthetic faces"):
        run(None, tmp_path / "b", attributes=("Smiling", "Young"))
    with pytest.raises(DataError, match="did you mean 'Eyeglasses'"):
        run(None, tmp_path / "b", attributes=("Eyeglases",))


def test_a_generated_copy_in_a_folder_stays_synthetic(root: Path, tmp_path: Path):
    marker = {"synthetic": True, "drawn": ["Smiling", "Bald"]}
    (root / locate.MARKER_NAME).write_text(json.dumps(marker))
    info = run(root, tmp_path / "out")
    assert info.synthetic and info.labels == ("Bald", "Smiling")


# --- downloads and states -------------------------------------------------------------------


def test_download_is_asked_of_torchvision_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = []

    def fake(folder: str, download: bool) -> None:
        calls.append(folder)
        shutil.copytree(root, Path(folder) / "celeba")

    _torchvision_with(monkeypatch, fake)
    for out in ("a", "b"):
        run(tmp_path / "new", tmp_path / out, download=True)
    assert calls == [str(tmp_path / "new")]


def test_a_failed_download_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Too many users have viewed or downloaded this file recently")

    _torchvision_with(monkeypatch, fail)
    with pytest.raises(DataError, match=r"Too many users.*gdown.*daily quota.*data\.root=FOLDER"):
        run(tmp_path / "new", tmp_path / "out", download=True)


def _torchvision_with(monkeypatch: pytest.MonkeyPatch, celeba_class: object) -> None:
    """A replacement for torchvision, which takes seconds to import and would use the network."""
    module = types.ModuleType("torchvision.datasets")
    vars(module)["CelebA"] = celeba_class
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)


def test_source_state_sees_lists_and_images(root: Path):
    options = DataOptions(kind="celeba", root=str(root))
    states = [source_state(options)]
    assert "40 entries" in states[0][locate.IMAGES_NAME] and source_state(options) == states[0]
    edit(root / ATTR, 9, " 1", "-1")
    (root / ATTR).write_text((root / ATTR).read_text() + "\n")
    states.append(source_state(options))
    (root / locate.IMAGES_NAME / name(1)).unlink()
    states.append(source_state(options))
    assert all(a != b for a, b in itertools.pairwise(states))
    assert source_state(DataOptions(kind="celeba"))["source"].startswith("generated, version")
    missing = DataOptions(kind="celeba", root=str(root / "none"))
    assert source_state(missing) == {"source": "missing"}
