"""Labels, splits and attributes from CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folders import every, left_out, note_with, picture, run

from pipeline.datasets.arrays import INFO_NAME, open_dataset
from pipeline.errors import DataError

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
    info = run(birds, tmp_path / "out", label_file="birds.csv")  # a missing row is not an error
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
