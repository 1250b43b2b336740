"""Labels that no bundle may hold are refused: in a folder's name, in a row."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.sources.class_folders import read_class_folders
from pipeline.datasets.sources.label_file import read_label_file
from pipeline.errors import DataError
from pipeline.recipe import DataOptions

HIDDEN = {
    "an escape": ("ca\x1b[2Jt", "U+001B"),
    "eight bits": ("ca\x9b2Jt", "U+009B"),
    "turned around": ("\u202etac", "U+202E"),
    "isolated": ("ca\u2066t", "U+2066"),
    "zero width": ("ca\u200bt", "U+200B"),
    "a separator": ("ca\u2028t", "U+2028"),
    "a tag": ("cat\U000e0041", "U+E0041"),
    "a null width mark": ("\ufeffcat", "U+FEFF"),
}


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("name", [*HIDDEN, "two lines"])
def test_a_folder_whose_name_hides_something_is_named(name: str, tmp_path: Path) -> None:
    label, shown = {**HIDDEN, "two lines": ("ca\nt", "U+000A")}[name]
    picture(tmp_path / "dog" / "1.png", 1)
    try:
        picture(tmp_path / label / "2.png", 2)
    except (OSError, UnicodeEncodeError) as exc:
        pytest.skip(f"not run: this file system takes no such name: {exc}")
    with pytest.raises(DataError, match=f"the folder .*{re.escape(shown)}.*Rename it") as caught:
        read_class_folders(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", HIDDEN)
def test_a_row_or_column_whose_name_hides_something_is_named(name: str, tmp_path: Path) -> None:
    label, shown = HIDDEN[name]
    picture(tmp_path / "1.png", 1)
    picture(tmp_path / "2.png", 2)
    table = tmp_path / "labels.csv"
    table.write_text(f"file,label\n1.png,dog\n2.png,x{label}\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"labels\.csv, line 3: the label .*{re.escape(shown)}"):
        read_label_file(tmp_path, table, DataOptions(kind="images"))
    table.write_text(f"file,x{label},y\n1.png,1,0\n2.png,0,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"labels\.csv: the column .*{re.escape(shown)}"):
        read_label_file(tmp_path, table, DataOptions(kind="images"))


@pytest.mark.parametrize(
    "label", ["größe", "目", "a b", "C#", "it's", "ไทย", "50 %", "\u00a0x\u3000y"]
)
def test_names_that_show_are_labels(label: str, tmp_path: Path) -> None:
    picture(tmp_path / "dog" / "1.png", 1)
    picture(tmp_path / label / "2.png", 2)
    assert set(read_class_folders(tmp_path).names) == {"dog", label}
