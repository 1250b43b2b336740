"""Class folders and CSV files of images, good ones next to refused ones; splits that follow
from content; what is damaged, small or odd; what occurs twice. All images are drawn here."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folders import EACH, GRAPH, every, in_split_folders, left_out, note_with, picture, run
from PIL import Image
from pydantic import ValidationError

from pipeline.datasets.arrays import INFO_NAME, open_dataset, take_rows
from pipeline.datasets.decoding.decode import open_preprocess
from pipeline.datasets.source_state import source_state
from pipeline.datasets.sources.locate import folder_of
from pipeline.errors import DataError
from pipeline.recipe import DataOptions
from runtime.images import as_image

# --- class folders --------------------------------------------------------------------------


def test_sub_folders_are_classes(pets: Path, tmp_path: Path) -> None:
    info = run(pets, tmp_path / "out")
    data = open_dataset(tmp_path / "out")
    assert info == data.info and info.name == "pets" and info.task == "multi-class"
    assert info.labels == ("cat", "dog", "owl") and not info.redistributable
    assert info.counts == {"train": 18, "val": 6, "test": 6}  # 0.15 of 10 is 2, for each class
    preprocess = open_preprocess(GRAPH)
    for name, (_, image, label) in every(data).items():
        assert info.labels[label] == name.split("/")[0]
        assert np.array_equal(image, preprocess(as_image(str(pets / name))))  # as on a device
    for split in (data.val, data.test):
        assert np.bincount(split.labels).tolist() == [2, 2, 2]
    assert not (tmp_path / "out" / "decoded.npy").exists()
    assert not (tmp_path / "out" / "left_out.csv").exists()


def test_names_order_and_workers_change_no_split(pets: Path, tmp_path: Path) -> None:
    run(pets, tmp_path / "a", workers=1)
    for i, path in enumerate(sorted((pets / "cat").glob("*.png"))):
        path.rename(path.with_name(f"x{99 - i}.png"))
    run(pets, tmp_path / "b", workers=2)
    a, b = open_dataset(tmp_path / "a"), open_dataset(tmp_path / "b")
    for split in ("train", "val", "test"):
        assert np.array_equal(getattr(a, split).images, getattr(b, split).images)
    other = run(pets, tmp_path / "c", split_seed=1)
    assert other.sha256 != b.info.sha256
    assert set(open_dataset(tmp_path / "c").test.ids) != set(b.test.ids)


def test_splits_of_the_source_are_kept(pets: Path, tmp_path: Path) -> None:
    for i in range(EACH):
        for label in ("cat", "dog", "owl"):
            split = "Train" if i < 6 else "valid" if i < 8 else "test"
            (pets / split / label).mkdir(parents=True, exist_ok=True)
            path = pets / label / ("more" if i == 0 else ".") / f"{i}.png"
            path.rename(pets / split / label / f"{i}.png")
    for label in ("cat", "dog", "owl"):
        shutil.rmtree(pets / label)
    info = run(pets, tmp_path / "out")
    assert info.counts == {"train": 18, "val": 6, "test": 6} and info.labels == (
        "cat",
        "dog",
        "owl",
    )
    assert "The splits are the source's own." in info.notes
    for name, (split, _, _) in every(open_dataset(tmp_path / "out")).items():
        assert {"Train": "train", "valid": "val", "test": "test"}[name.split("/")[0]] == split
    shutil.rmtree(pets / "valid")
    info = run(pets, tmp_path / "drawn")
    assert info.counts == {"train": 15, "val": 3, "test": 6}  # validation is taken from train
    assert "The source has no val split" in note_with(info, "drawn by content")
    shutil.rmtree(pets / "Train")
    with pytest.raises(DataError, match=r"test and no train"):
        run(pets, tmp_path / "none")


def test_files_and_folders_next_to_split_folders(pets: Path, tmp_path: Path) -> None:
    root = in_split_folders(pets, tmp_path / "split")
    before = run(root, tmp_path / "before")
    picture(900).save(root / "stray.png")
    with pytest.raises(DataError, match=r"1 of 31 images.*\n.*stray.png: .*sub-folder"):
        run(root, tmp_path / "stray")
    info = run(root, tmp_path / "stray", bad_images="skip")
    assert info.sha256 == before.sha256 and info.labels == ("cat", "dog", "owl")
    (root / "stray.png").unlink()
    (root / "Pred").mkdir()
    (root / "Pred" / "list.txt").touch()  # without an image it could be no class either
    assert run(root, tmp_path / "list").sha256 == before.sha256
    picture(900).save(root / "Pred" / "1.png")
    with pytest.raises(DataError, match=r"Pred .* test and train and val"):
        run(root, tmp_path / "pred")
    shutil.rmtree(root / "Pred")
    shutil.rmtree(root / "train")
    with pytest.raises(DataError, match=r"test and val and no train"):
        run(root, tmp_path / "none")


def test_a_class_may_be_called_like_a_split(pets: Path, tmp_path: Path) -> None:
    (pets / "cat").rename(pets / "training")
    info = run(pets, tmp_path / "out")
    assert info.labels == ("dog", "owl", "training")
    note = note_with(info, "not as splits")
    assert "training" in note and "dog, owl" in note


def test_train_images_are_a_sample_of_all_classes(pets: Path, tmp_path: Path) -> None:
    run(pets, tmp_path / "all")
    info = run(pets, tmp_path / "few", train_images=9)
    whole, few = open_dataset(tmp_path / "all"), open_dataset(tmp_path / "few")
    assert info.counts == {"train": 9, "val": 6, "test": 6}
    assert np.array_equal(few.train.images, whole.train.images[:9])
    assert len(set(few.train.labels)) == 3


def test_classes_in_an_order_of_ones_own(pets: Path, tmp_path: Path) -> None:
    info = run(pets, tmp_path / "out", labels=("owl", "cat", "dog"))
    assert info.labels == ("owl", "cat", "dog")
    for name, (_, _, label) in every(open_dataset(tmp_path / "out")).items():
        assert info.labels[label] == name.split("/")[0]


def test_files_of_the_system_are_not_images(pets: Path, tmp_path: Path) -> None:
    before = run(pets, tmp_path / "a")
    (pets / "cat" / "._1.png").write_bytes(b"\x00\x05\x16\x07")
    (pets / "cat" / ".DS_Store").touch()
    (pets / "__MACOSX" / "cat").mkdir(parents=True)
    (pets / "__MACOSX" / "cat" / "1.png").touch()
    assert run(pets, tmp_path / "b") == before
    (pets / "license.txt").touch()
    assert "1 files " in note_with(run(pets, tmp_path / "c"), "(.txt 1): license.txt")


def test_folders_that_are_not_a_class_are_noted(pets: Path, tmp_path: Path) -> None:
    before = run(pets, tmp_path / "a")
    (pets / "cat" / "round").symlink_to(pets, target_is_directory=True)  # leads back to itself
    (pets / "hound").symlink_to(pets / "dog", target_is_directory=True)
    for name in ("emu/raw", "gnu", "dog/masks"):
        (pets / name).mkdir(parents=True)
    (pets / "emu" / "raw" / "1.heic").touch()
    info = run(pets, tmp_path / "b")
    assert info.labels == before.labels and info.sha256 == before.sha256
    assert "2 folders " in note_with(info, "links").split(":")[0]
    assert note_with(info, "cat/round = ., hound = dog")
    assert "3 folders " in note_with(info, "dog/masks, emu, gnu")


@pytest.mark.skipif(sys.platform != "linux", reason="not run: other file systems refuse such names")
def test_names_that_are_not_utf_8(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    licence = Path(os.fsdecode(os.fsencode(pets) + b"/licen\xe7a.txt"))
    licence.touch()
    assert note_with(run(pets, tmp_path / "out"), "licen\\xe7a.txt")
    picture(0).save(pets / "cat" / "größe\U0001f426.png")  # UTF-8 is welcome
    run(pets, tmp_path / "out")
    options = DataOptions(kind="images", root=str(pets), bad_images="skip")
    for name in (b"cat/caf\xe9.png", b"caf\xe9/1.png"):
        path = Path(os.fsdecode(os.fsencode(pets) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        picture(1).save(path)
        shown = re.escape(name.decode("ascii", "backslashreplace"))
        with pytest.raises(DataError, match=rf"1 images whose names.*: {shown}\. Rename them"):
            run(pets, tmp_path / "out", bad_images="skip")
        assert source_state(options) == {"source": "missing"}  # and no run makes it fresh
        path.unlink()
    moved = pets.rename(os.fsdecode(os.fsencode(pets) + b"\xe9"))
    with pytest.raises(
        DataError, match=r"data\.root = '.*pets\\xe9' is not UTF-8\. Rename the fil"
    ):
        run(moved, tmp_path / "out")
    monkeypatch.chdir(moved)  # the recipe doesn't name it
    assert run(Path(), tmp_path / "out").name == "pets\\xe9"


# --- folders that are refused ---------------------------------------------------------------


def _only(count: int) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for path in (root / "owl").glob("*.png"):
            if int(path.stem) > count:
                path.unlink()

    return damage


def _one_class(root: Path) -> None:
    shutil.rmtree(root / "cat")
    shutil.rmtree(root / "dog")


def _empty(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()
    (root / "notes.txt").touch()


@pytest.mark.parametrize(
    ("damage", "options", "message"),
    [
        (_empty, {}, "holds no image but 1 other files .*; expected files ending in .png"),
        (_one_class, {}, "has one class, 'owl'; expected a sub-folder of images for each of two"),
        (_only(1), {}, "no image to train with of the class owl; expected at least three"),
        (None, {"labels": ("cat", "dog", "own")}, "names 'own', .* did you mean 'owl'"),
        (None, {"labels": ("cat", "dog")}, "data.labels lacks owl"),
        (None, {"labels": ("cat", "cat", "owl")}, "a distinct name for each class"),
        (None, {"train_images": 19}, "train_images = 19, but the train split has 18"),
        (None, {"download": True}, "has no download"),
        (None, {"root": None}, "needs data.root.*pipeline init NAME --data"),
        (None, {"root": "/no/such/place"}, "does not exist; expected a folder"),
        (None, {"label_file": "no.csv"}, "data.label_file = 'no.csv'"),
        (None, {"label_column": "x"}, "data.label_column .* data.label_file"),
    ],
)  # fmt: skip
def test_folders_that_are_refused(
    pets: Path,
    tmp_path: Path,
    damage: Callable[[Path], None] | None,
    options: dict[str, Any],
    message: str,
) -> None:
    if damage is not None:
        damage(pets)
    root = options.pop("root", str(pets))
    with pytest.raises(DataError, match=message):
        run(None if root is None else Path(root), tmp_path / "out", **options)
    assert not (tmp_path / "out" / INFO_NAME).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "images", "val_share": 0.5, "test_share": 0.5}, "leave nothing to train with"),
        ({"kind": "idx", "label_file": "x.csv"}, "label_file belongs to kind = 'images'"),
        ({"kind": "images", "bad_images": "drop"}, "bad_images"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataOptions(**options)


# --- odd and damaged images -----------------------------------------------------------------


def test_odd_images_are_read_as_the_predictor_reads_them(pets: Path, tmp_path: Path) -> None:
    cat = pets / "cat"
    picture(900).convert("CMYK").save(cat / "cmyk.jpg")
    wide = np.linspace(0, 65535, 16 * 20).reshape(16, 20).astype(np.uint16)
    Image.fromarray(wide).save(cat / "deep.png")
    picture(901).quantize(8).save(cat / "palette.png")
    glass = picture(902).convert("RGBA")
    glass.putalpha(128)
    glass.save(cat / "alpha.png")
    picture(903).convert("L").save(cat / "gray.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    picture(904).save(cat / "turned.jpg", exif=exif)
    info = run(pets, tmp_path / "out")
    assert sum(info.counts.values()) == 36 and not (tmp_path / "out" / "left_out.csv").exists()
    found = every(open_dataset(tmp_path / "out"))
    preprocess = open_preprocess(GRAPH)
    for name in ("cmyk.jpg", "deep.png", "palette.png", "alpha.png", "gray.png", "turned.jpg"):
        image = as_image(str(cat / name))
        assert np.array_equal(found[f"cat/{name}"][1], preprocess(image)), name
    assert as_image(str(cat / "turned.jpg")).shape == (20, 16, 3)  # upright
    assert as_image(str(cat / "deep.png")).max() == 255  # not cut to white
    assert len(np.unique(found["cat/deep.png"][1])) > 50


def _damaged(pets: Path) -> dict[str, str]:
    """Files that can't be used, with a word of the reason."""
    whole = io.BytesIO()
    picture(5).save(whole, "PNG")
    cat = pets / "cat"
    (cat / "cut.png").write_bytes(whole.getvalue()[:-200])
    (cat / "page.jpg").write_bytes(b"<html>404</html>")
    (cat / "empty.png").write_bytes(b"")
    picture(6, (7, 30)).save(cat / "tiny.png")
    Image.fromarray(np.ones((20, 20), np.float32)).save(cat / "float.tiff")
    picture(7).save(pets / "stray.png")
    return {
        "cat/cut.png": "truncated",
        "cat/page.jpg": "cannot identify image file",
        "cat/empty.png": "cannot identify image file",
        "cat/tiny.png": "has 30x7 pixels",
        "cat/float.tiff": "floating-point",
        "stray.png": "in no sub-folder of a class",
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_images_are_refused_or_left_out_by_name(
    pets: Path, tmp_path: Path, workers: int
) -> None:
    before = run(pets, tmp_path / "before")
    reasons = _damaged(pets)
    with pytest.raises(DataError) as caught:
        run(pets, tmp_path / "out", workers=workers)
    assert "6 of 36 images" in str(caught.value)
    assert "--set data.bad_images=skip" in str(caught.value)
    for file, word in reasons.items():
        assert any(file in line and word in line for line in str(caught.value).splitlines())
    info = run(pets, tmp_path / "out", workers=workers, bad_images="skip")
    note = left_out(tmp_path / "out")
    assert note.keys() == reasons.keys()
    assert all(word in note[file] for file, word in reasons.items())
    assert " at 0x" not in "".join(note.values())  # of a buffer, another one in each run
    assert "6 of 36 images" in note_with(info, "left_out.csv has them all")
    assert info.sha256 == before.sha256  # the others are used as they were
    run(pets, tmp_path / "out", bad_images="skip", smallest_side=1)
    assert "cat/tiny.png" in every(open_dataset(tmp_path / "out"))


def test_a_folder_of_nothing_but_damage(pets: Path, tmp_path: Path) -> None:
    for path in pets.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"30 of 30 images(.|\n)*and 20 more"):
        run(pets, tmp_path / "out")
    with pytest.raises(DataError, match=r"no image of .*pets"):
        run(pets, tmp_path / "out", bad_images="skip")


def test_images_below_the_models_size_are_noted(pets: Path, tmp_path: Path) -> None:
    picture(8, (9, 40)).save(pets / "cat" / "thin.png")
    note = note_with(run(pets, tmp_path / "out"), "are enlarged")
    assert note.startswith("1 images are smaller than the model's 12x10")
    assert "cat/thin.png (40x9)" in note


# --- files ----------------------------------------------------------------------------------


def test_rows_are_taken_in_place(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (2_500, 2, 3, 1), dtype=np.uint8)
    np.save(tmp_path / "a.npy", array)
    rows = np.random.default_rng(1).permutation(2_500)[:2_100]
    take_rows(tmp_path / "a.npy", rows, tmp_path / "a.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), array[rows])
    take_rows(tmp_path / "a.npy", np.array([], np.int64), tmp_path / "b.npy")
    assert np.load(tmp_path / "b.npy").shape == (0, 2, 3, 1)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.npy", "b.npy"]


def test_source_state_sees_images_and_labels(birds: Path) -> None:
    options = DataOptions(kind="images", root=str(birds), label_file="birds.csv")
    states = [source_state(options)]
    assert source_state(options) == states[0]
    picture(50).save(birds / "03.png")  # in place
    states.append(source_state(options))
    (birds / "04.png").unlink()
    states.append(source_state(options))
    with (birds / "birds.csv").open("a") as file:
        file.write("\n")
    states.append(source_state(options))
    assert len({str(state) for state in states}) == 4
    assert source_state(DataOptions(kind="images")) == {"source": "missing"}


def test_source_state_sees_images_next_to_an_unreadable_one(pets: Path, tmp_path: Path) -> None:
    (pets / "cat" / "away.png").symlink_to(tmp_path / "nowhere.png")
    options = DataOptions(kind="images", root=str(pets), bad_images="skip")
    states = [source_state(options)]
    run(pets, tmp_path / "out", bad_images="skip")
    assert left_out(tmp_path / "out").keys() == {"cat/away.png"}
    (pets / "dog" / "4.png").unlink()
    states.append(source_state(options))
    picture(50).save(pets / "dog" / "5.png")
    states.append(source_state(options))
    picture(51).save(tmp_path / "nowhere.png")
    states.append(source_state(options))
    assert len({str(state) for state in states}) == 4


def test_a_missing_debian_data_set_names_its_package() -> None:
    with pytest.raises(DataError, match=r"apt-get install dataset-nobody .*data.root=FOLDER"):
        folder_of("/usr/share/datasets/nobody")
