"""Class folders and CSV files of images, good ones next to refused ones; splits that follow
from content; what is damaged, small or odd; what occurs twice. All images are drawn here."""

from __future__ import annotations

import csv
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
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from exporters.export.resize_graph import resize_graph
from pipeline.datasets.arrays import INFO_NAME, Dataset, open_dataset, take_rows
from pipeline.datasets.decoding.decode import open_preprocess
from pipeline.datasets.info import DatasetInfo
from pipeline.datasets.prepare import prepare
from pipeline.datasets.source_state import source_state
from pipeline.datasets.sources.locate import folder_of
from pipeline.datasets.splitting import draw_splits
from pipeline.errors import DataError
from pipeline.recipe import DataOptions, PreprocessOptions
from pipeline.tasks import training_task
from runtime.images import as_image

SIZE = PreprocessOptions(kind="resize", height=12, width=10, color="rgb")
GRAPH = resize_graph(12, 10, "rgb").SerializeToString()
EACH = 10  # images of a class


def picture(seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """Noise of (width, height), another one for each seed."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Three classes of ten images."""
    root = tmp_path / "pets"
    for number, label in enumerate(("cat", "dog", "owl")):
        (root / label / "more").mkdir(parents=True)
        for i in range(EACH):
            place = root / label / ("more" if i == 0 else ".") / f"{i}.png"
            picture(100 * number + i).save(place)
    return root


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Twelve images with a CSV file of attributes."""
    root = tmp_path / "birds"
    root.mkdir()
    rows = ["image_id,wings,beak"]
    for i in range(12):
        picture(i).save(root / f"{i:02d}.png")
        rows.append(f"{i:02d}.png,{1 if i % 2 else -1},{1 if i % 3 else -1}")
    (root / "birds.csv").write_text("\n".join(rows) + "\n")
    return root


def run(root: Path | None, out: Path, workers: int | None = None, **options: Any) -> DatasetInfo:
    out.mkdir(parents=True, exist_ok=True)
    data = DataOptions(kind="images", root=None if root is None else str(root), **options)
    return prepare(data, SIZE, GRAPH, 0, out, lambda *_: None, lambda _: None, workers)


def every(data: Dataset) -> dict[str, tuple[str, np.ndarray, Any]]:
    """id -> (split, pixels, label)."""
    return {
        str(name): (split, image, label)
        for split in ("train", "val", "test")
        for part in [getattr(data, split)]
        for name, image, label in zip(part.ids, part.images, part.labels, strict=True)
    }


def left_out(out: Path) -> dict[str, str]:
    with (out / "left_out.csv").open() as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def note_with(info: DatasetInfo, words: str) -> str:
    notes = [note for note in info.notes if words in note]
    assert len(notes) == 1, info.notes
    return notes[0]


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
            place = pets / label / ("more" if i == 0 else ".") / f"{i}.png"
            place.rename(pets / split / label / f"{i}.png")
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
    root = _in_split_folders(pets, tmp_path / "split")
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


# --- CSV files ------------------------------------------------------------------------------


def test_columns_of_0_and_1_are_attributes(birds: Path, tmp_path: Path) -> None:
    info = run(birds, tmp_path / "out", label_file="birds.csv", val_share=0.25, test_share=0.25)
    assert info.task == "multi-label" and info.labels == ("wings", "beak")
    assert sum(info.counts.values()) == 12 and min(info.counts.values()) >= 2
    for name, (_, _, label) in every(open_dataset(tmp_path / "out")).items():
        i = int(name.split(".")[0])
        assert label.tolist() == [i % 2, int(i % 3 != 0)] and label.dtype == np.uint8
    one = run(birds, tmp_path / "one", label_file="birds.csv", attributes=("beak",))
    assert one.labels == ("beak",) and one.task == "multi-label"


CSV: dict[str, tuple[str, tuple[str, ...]]] = {
    "one column": ("file,kind\n{}", ("crow", "wren")),
    "semicolons": ("file;kind\n{;}", ("crow", "wren")),
    "tabs": ("file\tkind\n{\t}", ("crow", "wren")),
    "byte order mark": ("\ufefffile,kind\n{}", ("crow", "wren")),
    "label first": ("kind,path\n{<}", ("crow", "wren")),
    "pandas": (",file,kind\n{#}", ("crow", "wren")),
    "kind called name": ("photo,name\n{}", ("crow", "wren")),
    "without endings": ("id,kind\n{-}", ("crow", "wren")),
    "windows": ("file,kind\r\n{}", ("crow", "wren")),
    "blank lines": ("file,kind\n\n{}\n\n", ("crow", "wren")),
    "quoted": ('file,kind\n"00.png","crow, black"\n{+}', ("crow", "crow, black", "wren")),
}


@pytest.mark.parametrize("case", CSV)
def test_a_column_of_classes(birds: Path, tmp_path: Path, case: str) -> None:
    text, labels = CSV[case]
    pairs = [(f"{i:02d}.png", "wren" if i % 2 else "crow") for i in range(12)]
    if "+" in text:
        for i in (12, 13):  # three of each
            picture(i).save(birds / f"{i}.png")
        pairs = pairs[1:]
        text += '12.png,"crow, black"\n13.png,"crow, black"\n'
    for mark, row in {
        "{}": "{0},{1}", "{;}": "{0};{1}", "{\t}": "{0}\t{1}", "{<}": "{1},./{0}", "{-}": "{2},{1}",
        "{+}": "{0},{1}", "{#}": "7,{0},{1}",
    }.items():  # fmt: skip
        rows = "".join(row.format(a, b, a.split(".")[0]) + "\n" for a, b in pairs)
        text = text.replace(mark, rows)
    (birds / "kinds.csv").write_text(text, encoding="utf-8")
    (birds / "birds.csv").unlink()
    info = run(birds, tmp_path / "out", label_file=str(birds / "kinds.csv"))
    assert info.task == "multi-class" and info.labels == labels
    for name, (_, _, label) in every(open_dataset(tmp_path / "out")).items():
        kind = "wren" if int(name[:2]) % 2 else "crow"
        if "+" not in CSV[case][0] or 0 < int(name[:2]) < 12:
            assert info.labels[label] == kind


def test_attributes_may_look_like_names_of_images(birds: Path, tmp_path: Path) -> None:
    for i in (0, 1):
        (birds / f"{i:02d}.png").rename(birds / f"{i}.png")
    rows = [f"{i % 2},{0 if i < 2 else 1},{i if i < 2 else f'{i:02d}'}.png" for i in range(12)]
    (birds / "birds.csv").write_text("\n".join(["wings,beak,photo", *rows]))
    info = run(birds, tmp_path / "out", label_file="birds.csv", val_share=0.25, test_share=0.25)
    assert info.labels == ("wings", "beak") and sum(info.counts.values()) == 12


def test_a_split_column_is_obeyed_and_a_column_can_be_chosen(birds: Path, tmp_path: Path) -> None:
    words = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    rows = [f"{i:02d}.png,{i % 2},{words[i]},note {i}" for i in range(12)]
    (birds / "kinds.csv").write_text("\n".join(["file,kind,split,remark", *rows]))
    options = {"label_file": "kinds.csv", "label_column": "kind"}
    info = run(birds, tmp_path / "out", **options)
    assert info.labels == ("0", "1") and info.counts == {"train": 6, "val": 3, "test": 3}
    for name, (split, _, _) in every(open_dataset(tmp_path / "out")).items():
        assert split == words[int(name[:2])]
    with pytest.raises(DataError, match=r"line 2: remark is 'note 0'.*data\.label_column"):
        run(birds, tmp_path / "b", label_file="kinds.csv")


def test_rows_without_image_and_images_without_row(birds: Path, tmp_path: Path) -> None:
    (birds / "03.png").unlink()
    picture(77).save(birds / "new.png")
    with pytest.raises(DataError, match=r"1 of 12 images.*\n.*03.png: .* \(birds.csv, li"):
        run(birds, tmp_path / "out", label_file="birds.csv")
    info = run(birds, tmp_path / "out", label_file="birds.csv", bad_images="skip")
    assert sum(info.counts.values()) == 11
    assert left_out(tmp_path / "out") == {
        "03.png": "does not exist (birds.csv, line 5)",
        "new.png": "has no row in birds.csv",
    }
    assert "new.png" in note_with(info, "1 images have no row in birds.csv and are left out")
    picture(3).save(birds / "03.png")
    (birds / "more").symlink_to(birds, target_is_directory=True)
    info = run(birds, tmp_path / "out", label_file="birds.csv")  # no row is no reason to refuse
    assert left_out(tmp_path / "out") == {"new.png": "has no row in birds.csv"}
    assert note_with(info, "more = .")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "is empty; expected a header"),
        ("00.png,1\n01.png,0\n", {}, "begins with '00.png, 1', which names an image; exp"),
        ("file\n00.png\n", {}, "has one column, 'file'; expected at least two"),
        ("file,a,a\n", {}, "expected distinct names"),
        ("file,split\n00.png,train\n", {}, "no column of labels, only file, split. Add one"),
        (",a\n00.png,1\n", {}, "has the columns '', 'a'; expected distinct names"),
        (",a,b\n00.png,1,1\n", {}, "has the columns '', 'a', 'b'; expected distinct names"),
        ("file,a\nx.png,1\n", {}, "of 1 rows .*'x.png' in .*'00.png' in t"),
        ("file,a\n", {}, "there is no row"),
        ("file,a\n00.png,1,2\n", {}, "line 2: 3 cells; expected 2"),
        ("file,a\n00.png,1\n00.png,0\n", {}, "line 3: a second row for 00.png"),
        ("file,a\n00.png,\n", {}, "line 2: no a; expected a class"),
        ("file,a\n00.png,x\n01.png,x\n", {}, "gives every image the a 'x'; expected two or more"),
        ("file,a,b\n00.png,1,2\n", {}, r"line 2: b is '2'; expected 1 or 0 \(or 1 or -1"),
        ("file,a,split\n00.png,1,later\n01.png,2,train\n", {}, "split is 'later'; expected train"),
        ('file,a\n"00.png,1\n', {}, "cannot be read as CSV"),
        ("file,a\n00.png,\xff\n", {}, "cannot be read as CSV in UTF-8"),
        ("file,a\n00.png,1\n01.png,2\n", {"labels": ("1", "3")}, "data.labels names '3'"),
        ("file,abc\n00.png,1\n", {"attributes": ("abd",)}, "column 'abd'; did you mean 'abc'"),
        ("file,ab\n00.png,1\n", {"label_column": "x"}, "no column 'x'; .* file, ab"),
        ("file,ab\n", {"label_column": "ab", "attributes": ("ab",)}, "label_column .* data"),
        ("file,a,b\n00.png,1,1\n", {"labels": ("x", "y")}, "data.labels names classes, but"),
        ("file,a\n00.png,1\n", {"attributes": ()}, "expected distinct names, at least one"),
    ],
)  # fmt: skip
def test_csv_files_that_are_refused(
    birds: Path, tmp_path: Path, text: str, options: dict[str, Any], message: str
) -> None:
    (birds / "kinds.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        run(birds, tmp_path / "out", label_file="kinds.csv", **options)
    assert not (tmp_path / "out" / INFO_NAME).exists()


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


# --- twice ----------------------------------------------------------------------------------


def _in_split_folders(pets: Path, root: Path) -> Path:
    for number, path in enumerate(sorted(pets.rglob("*.png"))):
        split = ("train", "train", "train", "val", "test")[number % 5]
        target = root / split / path.relative_to(pets).parts[0] / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return root


@pytest.mark.parametrize("policy", ["note", "refuse", "drop"])
def test_copies_in_two_splits(pets: Path, tmp_path: Path, policy: str) -> None:
    root = _in_split_folders(pets, tmp_path / "split")
    train, val, test = (sorted((root / s / "cat").glob("*.png")) for s in ("train", "val", "test"))
    shutil.copy(train[0], root / "test" / "cat" / "same.png")
    with Image.open(val[0]) as image:
        image.save(root / "train" / "cat" / "pixels.bmp")  # other bytes
    shutil.copy(test[0], root / "test" / "cat" / "within.png")  # twice in one split: no leak
    if policy == "refuse":
        with pytest.raises(DataError, match=r"2 images occur in more than one split, 1 byte for b"):
            run(root, tmp_path / "out", duplicates_across_splits=policy)
        return
    info = run(root, tmp_path / "out", duplicates_across_splits=policy)
    note = note_with(info, "in more than one split")
    one, two = f"train/cat/{train[0].name}", f"val/cat/{val[0].name}"
    assert f"{one} (train)" in note and "test/cat/same.png (test)" in note
    assert f"{two} (val)" in note and "train/cat/pixels.bmp (train)" in note
    ids = {split: set(getattr(open_dataset(tmp_path / "out"), split).ids) for split in info.counts}
    assert ("flatter the model" in note) == (policy == "note") == (one in ids["train"])
    assert two in ids["val"] and "test/cat/same.png" in ids["test"]
    if policy == "drop":
        assert left_out(tmp_path / "out").keys() == {one, "train/cat/pixels.bmp"}
        assert "train/cat/pixels.bmp" not in ids["train"]


def test_copies_stay_together_when_splits_are_drawn(pets: Path, tmp_path: Path) -> None:
    for label in ("cat", "dog", "owl"):
        for path in sorted((pets / label).glob("*.png")):
            with Image.open(path) as image:
                image.save(path.with_suffix(".bmp"))
    run(pets, tmp_path / "out")
    splits: dict[bytes, set[str]] = {}
    for split, image, _ in every(open_dataset(tmp_path / "out")).values():
        splits.setdefault(image.tobytes(), set()).add(split)
    assert len(splits) == 30 and all(len(found) == 1 for found in splits.values())


def test_one_image_with_two_labels(pets: Path, tmp_path: Path) -> None:
    shutil.copy(pets / "cat" / "3.png", pets / "dog" / "strange.png")
    note = note_with(run(pets, tmp_path / "out"), "another label, of which one is wrong")
    assert "cat/3.png = dog/strange.png" in note


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.binary(max_size=2), min_size=1, max_size=80),
    classes=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_drawn_splits(keys: list[bytes], classes: int, seed: int) -> None:
    strata = np.array([sum(key) % classes for key in keys])
    splits = draw_splits(keys, strata, (0.2, 0.2), seed, at_least_one=False)
    assert len({(key, split) for key, split in zip(keys, splits, strict=True)}) == len(set(keys))
    order = np.random.default_rng(seed).permutation(len(keys))
    shuffled = draw_splits([keys[i] for i in order], strata[order], (0.2, 0.2), seed, False)
    assert np.array_equal(shuffled, splits[order])
    if len(set(keys)) == len(keys):
        each = draw_splits(keys, strata, (0.2, 0.2), seed, at_least_one=True)
        for stratum in set(strata.tolist()):
            count = int((strata == stratum).sum())
            assert abs((splits[strata == stratum] == 2).sum() - 0.2 * count) < 1.5
            assert (each[strata == stratum] == 2).sum() == max(1, round(0.2 * count))
        for split in (1, 2):
            assert -1 < (splits == split).sum() - 0.2 * len(keys) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("images", "attributes", "share", "expected"),
    [(60, 40, 0.03, 9), (120, 80, 0.025, 18), (500, 300, 0.01, 75)],
)
def test_rare_attributes_do_not_shrink_the_splits(
    images: int, attributes: int, share: float, expected: int
) -> None:
    labels = (np.random.default_rng(0).random((images, attributes)) < share).astype(np.uint8)
    keys = [b"%d" % i for i in range(images)]
    strata = training_task("multi-label").strata(labels)
    splits = draw_splits(keys, strata, (0.15, 0.15), 0, at_least_one=False)
    assert np.bincount(splits).tolist() == [images - 2 * expected, expected, expected]


def test_tags_of_few_images_are_in_every_split_and_first_of_all_in_train() -> None:
    for images, expected in ((3, 14), (2, 9)):
        tags = np.repeat(np.arange(30), images)
        keys = [b"%d" % i for i in range(len(tags))]
        splits = draw_splits(keys, tags, (0.15, 0.15), 0, at_least_one=False)
        assert np.bincount(splits).tolist() == [len(tags) - 2 * expected, expected, expected]
        assert set(tags[splits == 0].tolist()) == set(range(30))


def test_copies_with_different_labels_count_alike_in_any_order() -> None:
    keys = [b"%d" % (i // 2) for i in range(40)]
    strata = np.random.default_rng(0).integers(0, 7, 40)
    splits = draw_splits(keys, strata, (0.2, 0.2), 0, at_least_one=False)
    backwards = draw_splits(keys[::-1], strata[::-1], (0.2, 0.2), 0, at_least_one=False)
    assert np.array_equal(backwards[::-1], splits)


def test_copies_of_one_image_count_once_and_stay_out_of_val_and_test() -> None:
    keys = [b"same"] * 50 + [b"%d" % i for i in range(50)]
    for seed in range(10):  # shares of 51 different images
        splits = draw_splits(keys, np.zeros(100, np.int64), (0.1, 0.1), seed, at_least_one=True)
        assert np.bincount(splits).tolist() == [90, 5, 5]
        assert set(splits[:50].tolist()) == {0}


def test_one_image_many_times_leaves_the_others_to_train_with(tmp_path: Path) -> None:
    for i in range(20):
        for kind in ("cat", "dog"):
            path = tmp_path / "pets" / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(i + 100 * (kind == "dog")).save(path)
    for i in range(60):
        picture(7_000).save(tmp_path / "pets" / "cat" / f"placeholder{i}.png")
    info = run(tmp_path / "pets", tmp_path / "out")
    cats = [
        image.tobytes()
        for split, image, label in every(open_dataset(tmp_path / "out")).values()
        if split == "train" and label == 0
    ]
    assert len(cats) == 60 + 14 and len(set(cats)) == 15
    assert info.counts == {"train": 74 + 14, "val": 6, "test": 6}
    assert note_with(info, "60 of 100 images")
    assert "88 images, of which only 29 are" in note_with(info, "train split has")


def test_the_rarest_label_is_what_is_spread() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 1, 0]], np.uint8)
    assert training_task("multi-label").strata(labels).tolist() == [1, 0, 2, 3, 1]


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
