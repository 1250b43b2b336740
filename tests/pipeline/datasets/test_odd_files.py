"""Files and names as people really have them: pipes, huge files, several frames, 16 bits, pictures
that are all the same, spellings that only look the same, tables of other layouts."""

from __future__ import annotations

import os
import socket
import struct
import sys
import unicodedata
from pathlib import Path
from typing import Any
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import Image

from exporters.export.resize_graph import resize_graph
from pipeline.datasets.arrays import open_dataset
from pipeline.datasets.decoding import picture as picture_file
from pipeline.datasets.decoding.depth import Depth
from pipeline.datasets.info import DatasetInfo
from pipeline.datasets.prepare import prepare
from pipeline.datasets.sources.image_files import walk
from pipeline.datasets.sources.names import ImageNames, note_alike
from pipeline.datasets.sources.read_list import read_list
from pipeline.errors import DataError
from pipeline.recipe import DataOptions, PreprocessOptions

NFC, NFD = (unicodedata.normalize(form, "müsli") for form in ("NFC", "NFD"))


def noise(seed: int, size: int = 12) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def fill(root: Path, *classes: str, count: int = 10) -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            noise(100 * number + i).save(root / name / f"{i}.png")
    return root


def run(root: Path, out: Path, white_level: int | None = None, **options: Any) -> DatasetInfo:
    out.mkdir(parents=True, exist_ok=True)
    size = PreprocessOptions(
        kind="resize", height=8, width=8, color="gray", white_level=white_level
    )
    graph = resize_graph(8, 8, "gray").SerializeToString()
    data = DataOptions(kind="images", root=str(root), **options)
    return prepare(data, size, graph, 0, out, lambda *_: None, lambda _: None, 1)


def listed_notes(root: Path, **options: Any) -> str:
    return "\n".join(read_list(DataOptions(kind="images", root=str(root), **options)).notes)


# --- what is not a file, and what is too large -------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="not run: there are no pipes in folders")
def test_pipes_sockets_and_devices_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "pets", "cat", "dog")
    os.mkfifo(root / "cat" / "pipe.png")
    (root / "cat" / "link.jpg").symlink_to("pipe.png")
    (root / "dog" / "zero.png").symlink_to("/dev/zero")
    (root / "dog" / "folder.png").mkdir()
    monkeypatch.chdir(root / "dog")  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        files = walk(root)
    assert len(files.images) == 20
    assert set(files.special) == {
        "cat/pipe.png", "cat/link.jpg", "dog/zero.png", "dog/socket.png",
    }  # fmt: skip
    info = run(root, tmp_path / "out")
    assert sum(info.counts.values()) == 20
    assert any(note.startswith("4 ") and "pipes, sockets, devices" in note for note in info.notes)
    for name in ("cat/pipe.png", "dog/zero.png"):  # put there after the folder was listed
        with pytest.raises(DataError, match="not a regular file"):
            picture_file.read_file(root / name)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", "cat", "dog")
    with (root / "cat" / "huge.png").open("wb") as file:
        file.truncate(picture_file.MOST_BYTES + 1)  # without a block on the disk
    with pytest.raises(DataError, match=r"huge\.png: has 1\.0 GiB; expected .* at most 1 GiB"):
        run(root, tmp_path / "out")


def test_advice_for_too_many_pixels_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "pets", "cat", "dog")
    noise(1, 20).save(root / "cat" / "large.png")
    noise(2, 40).save(root / "dog" / "larger.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    for name, result in (("cat/large", "20x20"), ("dog/larger", "more than 600")):
        with pytest.raises(
            DataError, match=rf"{name}.png: has {result} pixels; .* 300 .*smaller"
        ) as e:
            run(root, tmp_path / "out")
        assert "MAX_IMAGE_PIXELS" not in str(e.value) and "data.bad_images=skip" in str(e.value)
    assert sum(run(root, tmp_path / "out", bad_images="skip").counts.values()) == 20


@pytest.mark.parametrize("name", ["a.jfif", "A.JPE", "a.JPG", "a.dib", "a.pnm", "a.jp2"])
def test_usual_endings_are_images(tmp_path: Path, name: str) -> None:
    kind = {"jfif": "JPEG", "jpe": "JPEG", "jpg": "JPEG", "dib": "BMP", "pnm": "PPM"}
    root = fill(tmp_path / "pets", "cat", "dog")
    noise(7).save(root / "cat" / name, kind.get(name.lower().split(".")[1], "JPEG2000"))
    assert f"cat/{name}" in walk(root).images
    assert sum(run(root, tmp_path / "out").counts.values()) == 21


def test_pictures_that_are_not_read_are_counted_by_their_ending(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", "cat", "dog")
    for name in ("a.heic", "b.HEIC", "c.avif", "d.txt", "e"):
        (root / "cat" / name).write_bytes(b"x")
    notes = listed_notes(root)
    assert "3 files look like pictures" in notes and "(.heic 2, .avif 1)" in notes
    assert "2 files " in notes and "(.txt 1, none 1)" in notes


@pytest.mark.parametrize("ending", ["gif", "webp", "tif", "png"])
def test_files_of_several_frames_are_named(tmp_path: Path, ending: str) -> None:
    root = fill(tmp_path / "pets", "cat", "dog")
    frames = [noise(900 + i) for i in range(3)]
    frames[0].save(root / "cat" / f"moving.{ending}", save_all=True, append_images=frames[1:])
    info = run(root, tmp_path / "out")
    (note,) = (note for note in info.notes if "more than one frame" in note)
    assert note.startswith("1 files") and f"cat/moving.{ending}" in note


def test_damage_behind_the_first_frame_does_not_matter(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", "cat", "dog")
    for ending in ("gif", "tif"):
        frames = [noise(800 + i) for i in range(2)]
        path = root / "cat" / f"cut.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        if ending == "gif":
            path.write_bytes(path.read_bytes()[:-40])
    assert sum(run(root, tmp_path / "out").counts.values()) == 22


# --- 16 bits ----------------------------------------------------------------------------------


def deep(root: Path, top: int, count: int = 12, prefix: str = "") -> Path:
    """Two classes of 16-bit pictures whose values lie between half of ``top`` and ``top``."""
    for number, name in enumerate(("bars", "discs")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            random = np.random.default_rng(1000 * number + i)
            values = random.integers(top // 2, top + 1, (12, 12)).astype(np.uint16)
            values[0, 0] = top
            Image.fromarray(values).save(root / name / f"{prefix}{i}.png")
    return root


@pytest.mark.parametrize(("top", "level"), [(4095, 4095), (2377, 4095), (16383, 16383), (200, 255)])
def test_a_small_part_of_16_bits_is_refused_without_a_level(
    tmp_path: Path, top: int, level: int
) -> None:
    root = deep(tmp_path / "xray", top)
    with pytest.raises(
        DataError, match=rf"24 images have 16 bits .* {top:,}\..*white_level={level} "
    ):
        run(root, tmp_path / "out")
    run(root, tmp_path / "out", white_level=level)
    seen = np.concatenate([part.images for part in (open_dataset(tmp_path / "out").train,)])
    assert seen.max() > 0.6 * 255 * top / level and len(np.unique(seen)) > 30
    assert sum(run(root, tmp_path / "dark", white_level=65535).counts.values()) == 24


def test_a_level_makes_the_same_pixels_as_full_range(tmp_path: Path) -> None:
    for top in (4095, 65535):
        for number, name in enumerate(("bars", "discs")):
            (tmp_path / str(top) / name).mkdir(parents=True)
            for i in range(10):
                share = np.random.default_rng(1000 * number + i).random((8, 8))
                values = np.round(share * top).astype(np.uint16)
                Image.fromarray(values).save(tmp_path / str(top) / name / f"{i}.png")
    run(tmp_path / "4095", tmp_path / "a", white_level=4095)
    run(tmp_path / "65535", tmp_path / "b")
    pixels = {}
    for out in ("a", "b"):
        data = open_dataset(tmp_path / out)
        pixels[out] = {
            str(name): image
            for part in (data.train, data.val, data.test)
            for name, image in zip(part.ids, part.images, strict=True)
        }
    for name, image in pixels["a"].items():
        assert np.abs(image.astype(int) - pixels["b"][name]).max() <= 1


def test_values_above_the_level_are_bad_images(tmp_path: Path) -> None:
    root = deep(tmp_path / "xray", 4095)
    deep(root, 5000, count=1, prefix="over")
    with pytest.raises(
        DataError, match=r"2 of 26 .*\n.*over0\.png: .* to 5000; expected 0 to 4095"
    ):
        run(root, tmp_path / "out", white_level=4095)


def deep_color_png(path: Path, values: np.ndarray[Any, Any]) -> None:
    """A PNG of 16 bits in each of three channels, uint16 [H, W, 3], which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize("top", [4095, 65535])
def test_colors_of_16_bits_are_noticed(tmp_path: Path, top: int) -> None:
    for number, name in enumerate(("bars", "discs")):
        (tmp_path / "deep" / name).mkdir(parents=True)
        for i in range(10):
            values = np.random.default_rng(100 * number + i).integers(0, top + 1, (12, 12, 3))
            deep_color_png(tmp_path / "deep" / name / f"{i}.png", values)
    if top == 4095:  # 16 of 256 levels would be left
        with pytest.raises(DataError, match=r"20 images have 16 bits .*16 of 256 levels.*upper 8"):
            run(tmp_path / "deep", tmp_path / "out")
    else:
        notes = run(tmp_path / "deep", tmp_path / "out").notes
        assert any(note.startswith("20 images have 16-bit colors") for note in notes)


def test_pictures_of_two_cameras_are_named(tmp_path: Path) -> None:
    root = deep(tmp_path / "xray", 65535)
    deep(root, 4095, count=3, prefix="old")
    notes = run(root, tmp_path / "out").notes
    assert any(note.startswith("6 of them have no value above a quarter") for note in notes)


@pytest.mark.parametrize(
    ("gray", "color", "proposal"),
    [({"a": 4095}, {}, 4095), ({"a": 900, "b": 1023}, {}, 1023), ({"a": 12}, {}, 255),
     ({"a": 40_000}, {}, None), ({"a": 0}, {}, None), ({"a": 32_767}, {}, 32_767),
     ({}, {"c": 4112}, None), ({"a": 4095}, {"c": 65535}, None), ({}, {}, None)],
)  # fmt: skip
def test_the_level_that_is_proposed(
    gray: dict[str, int], color: dict[str, int], proposal: int | None
) -> None:
    depth = Depth(gray, color)
    assert depth.proposal == proposal
    assert (depth.refusal(None) is not None) == (0 < depth.top < 16_384)
    assert depth.refusal(65535) is None


# --- pictures that are the same ---------------------------------------------------------------


def logos(root: Path, name: str, level: int = 255, alpha: bool = True) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    for i in range(10):
        shape = np.random.default_rng(i).integers(0, 2, (12, 12, 1), dtype=np.uint8) * 255
        color = np.full((12, 12, 3), level, np.uint8)
        pixels = np.dstack([color, shape]) if alpha else color
        Image.fromarray(pixels).save(root / name / f"{i}.png")


def test_white_on_transparent_is_explained(tmp_path: Path) -> None:
    logos(fill(tmp_path / "mixed", "cat", "dog"), "logos")
    message = r"class logos; .*\n10 of 30 images .*white.*transparent"
    with pytest.raises(DataError, match=message):
        run(tmp_path / "mixed", tmp_path / "out")
    for name in ("bars", "discs"):
        logos(tmp_path / "white", name)
    with pytest.raises(DataError, match=r"\n20 of 20 images .*transparent") as e:
        run(tmp_path / "white", tmp_path / "out")
    assert "val_share" not in str(e.value)


def test_empty_pictures_are_noted(tmp_path: Path) -> None:
    logos(fill(tmp_path / "pets", "cat", "dog", count=12), "cat", level=0, alpha=False)
    notes = run(tmp_path / "pets", tmp_path / "out").notes
    assert any("10 of 24 images" in note and "black" in note for note in notes)
    assert not any("transparent" in note for note in notes)


# --- names that look the same -----------------------------------------------------------------


def table(root: Path, rows: list[tuple[str, ...]]) -> dict[str, str]:
    (root / "labels.csv").write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    return {"label_file": "labels.csv"}


@pytest.mark.skipif(sys.platform == "darwin", reason="not run: names are one form there")
@pytest.mark.parametrize(("disk", "written"), [(NFD, NFC), (NFC, NFD), (NFC.upper(), NFC)])
def test_a_table_finds_files_whose_names_are_spelled_in_another_way(
    tmp_path: Path, disk: str, written: str
) -> None:
    rows = [("file", "label")]
    for i in range(20):
        name = f"apfel{i}.png" if i % 2 else f"{disk}{i}.png"
        noise(i).save(tmp_path / name)
        rows.append((f"apfel{i}.png", "apfel") if i % 2 else (f"{written}{i}.png", written))
    options = table(tmp_path, rows)
    listed = read_list(DataOptions(kind="images", root=str(tmp_path), **options))
    assert listed.names == ("apfel", NFC) and listed.counts.tolist() == [10, 10]
    assert not listed.unusable and not listed.unlisted
    assert sum(note.startswith("10 rows of labels.csv ") for note in listed.notes) == 1


@pytest.mark.skipif(sys.platform == "darwin", reason="not run: names are one form there")
def test_files_that_differ_by_their_form_alone_keep_their_rows(tmp_path: Path) -> None:
    names = ImageNames([f"{NFC}.png", f"{NFD}.png", "a.PNG", "B.png", "b.png"])
    assert names.find(f"{NFD}.png") == f"{NFD}.png" and names.find(NFC) == f"{NFC}.png"
    assert names.find("A") == "a.PNG" and names.find("./b.png") == "b.png"
    assert names.find("B.PNG") == "B.PNG"  # one of two, so none


@pytest.mark.skipif(sys.platform == "darwin", reason="not run: names are one form there")
def test_folders_of_two_forms_are_one_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "fruit", "apfel", NFC, NFD)
    listed = read_list(DataOptions(kind="images", root=str(root)))
    assert listed.names == ("apfel", NFC) and listed.counts.tolist() == [10, 20]
    assert any("two Unicode forms" in note and repr(NFC) in note for note in listed.notes)
    asked = read_list(DataOptions(kind="images", root=str(root), labels=(NFD, "apfel")))
    assert asked.names == (NFC, "apfel")


@pytest.mark.parametrize(
    ("names", "noted"),
    [(("cat", "Cat", "dog"), "'Cat'"), (("dog", "dog "), "'dog '"), (("a b", "a_b"), "'a_b'"),
     (("bird", "bird\u200b"), r"'bird\u200b'"), (("a\u00a0b", "a b"), r"'a\xa0b'"),
     (("ﬁn", "fin"), "'fin'"), (("cat", "cats"), ""), (("-", "_"), ""), (("1", "2"), "")],
)  # fmt: skip
def test_classes_that_look_alike_are_noted(names: tuple[str, ...], noted: str) -> None:
    notes = note_alike(names)
    assert bool(notes) == bool(noted)
    assert all(noted in note for note in notes)


def test_classes_that_a_table_loses_are_named(tmp_path: Path) -> None:
    rows = [("file", "label")]
    for i in range(30):
        if i % 3:
            noise(i).save(tmp_path / f"{i}.png")
        rows.append((f"{i}.png", "abc"[i % 3]))
    assert "NOT learned: 'a' (10 rows)" in listed_notes(tmp_path, **table(tmp_path, rows))


def test_folders_inside_a_class_are_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "signs", "Dataset/0", "Dataset/1", "Examples")
    assert "'Dataset' has 2 (0, 1)" in listed_notes(root)
    assert listed_notes(fill(tmp_path / "flat", "a/one", "b")) == ""


# --- tables of other layouts ------------------------------------------------------------------


def columns(tmp_path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> dict[str, str]:
    for i in range(len(rows)):
        noise(i).save(tmp_path / f"{i}.png")
    numbered = [(f"{i}.png", *row) for i, row in enumerate(rows)]
    return table(tmp_path, [("file", *header), *numbered])


def test_one_column_for_each_class(tmp_path: Path) -> None:
    rows = [tuple("10"[i % 3 != j] for j in range(3)) for i in range(12)]
    options = columns(tmp_path, ("MEL", "NV", "BCC"), rows)
    listed = read_list(DataOptions(kind="images", root=str(tmp_path), one_hot=True, **options))
    order = [int(Path(file).stem) % 3 for file in listed.files]
    assert listed.names == ("MEL", "NV", "BCC") and listed.labels.tolist() == order
    options = columns(tmp_path, ("MEL", "NV", "BCC"), [*rows[:7], ("1", "1", "0"), *rows[8:]])
    with pytest.raises(DataError, match=r"line 9: 2 of the columns .* \(1 rows "):
        read_list(DataOptions(kind="images", root=str(tmp_path), one_hot=True, **options))


def test_several_tags_in_one_cell(tmp_path: Path) -> None:
    options = columns(tmp_path, ("tags",), [("bar; clear",), ("disc;haze",), ("",), ("haze",)])
    result = {"kind": "images", "root": str(tmp_path), **options}
    listed = read_list(DataOptions(**result, tags_separator=";"))
    assert listed.names == ("bar", "clear", "disc", "haze")
    assert listed.labels.tolist() == [[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    with pytest.raises(DataError, match=r"no cell of tags holds the '\|'"):
        read_list(DataOptions(**result, tags_separator="|"))


def test_yes_and_no_are_attributes_and_the_first_bad_line_is_named(tmp_path: Path) -> None:
    rows = [("yes", "F"), ("No", "t"), ("y", "false")]
    options = columns(tmp_path, ("wings", "beak"), rows)
    listed = read_list(DataOptions(kind="images", root=str(tmp_path), **options))
    assert listed.labels.tolist() == [[1, 0], [0, 1], [1, 0]]
    options = columns(tmp_path, ("wings", "beak"), [("1", "0")] * 2 + [("maybe", "0")] * 9)
    with pytest.raises(DataError, match=r"line 4: wings is 'maybe'.*--column"):
        read_list(DataOptions(kind="images", root=str(tmp_path), **options))
