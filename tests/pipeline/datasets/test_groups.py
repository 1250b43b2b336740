"""What belongs together stays together: copies and groups in drawn splits, groups in given ones,
and where the groups come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from exporters.export.resize_graph import resize_graph
from pipeline.datasets.arrays import NO_SPLIT, open_dataset
from pipeline.datasets.info import DatasetInfo
from pipeline.datasets.prepare import prepare
from pipeline.datasets.sources.group_names import is_group_column, suggest_pattern
from pipeline.datasets.sources.image_list import ImageList
from pipeline.datasets.splitting import draw_splits, joined, order_by_content
from pipeline.errors import DataError
from pipeline.recipe import DataOptions, PreprocessOptions

SIZE = PreprocessOptions(kind="resize", height=8, width=8, color="rgb")
GRAPH = resize_graph(8, 8, "rgb").SerializeToString()
PATIENTS = 12  # of four images each, two of each class


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def patient(file: str) -> str:
    return file.rpartition("/")[2].partition("_")[0]


@pytest.fixture
def wards(tmp_path: Path) -> Path:
    """Class folders with the patient in the name of each image."""
    for number in range(PATIENTS):
        for i in range(4):
            kind = ("sick", "well")[i % 2]
            save(tmp_path / "wards" / kind / f"P{number:02}_{i}.png", 10 * number + i)
    return tmp_path / "wards"


def table(root: Path, *extra: str) -> Path:
    """A CSV of labels and patients; ``extra`` are columns of one value."""
    rows = [",".join(["file", "label", "patient_id", *(word.split("=")[0] for word in extra)])]
    for path in sorted(root.rglob("*.png")):
        name = path.relative_to(root).as_posix()
        cells = [name, path.parent.name, patient(name), *(word.split("=")[1] for word in extra)]
        rows.append(",".join(cells))
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def run(root: Path, out: Path, **options: Any) -> DatasetInfo:
    out.mkdir(parents=True, exist_ok=True)
    data = DataOptions(kind="images", root=str(root), **options)
    return prepare(data, SIZE, GRAPH, 0, out, lambda *_: None, lambda _: None, 1)


def patients_by_split(out: Path) -> dict[str, set[str]]:
    data = open_dataset(out)
    return {
        name: {patient(str(file)) for file in getattr(data, name).ids}
        for name in ("train", "val", "test")
    }


# --- drawn splits ---------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["column", "pattern"])
def test_no_patient_is_in_two_splits(wards: Path, tmp_path: Path, by: str) -> None:
    options = {"group_pattern": "/(P[0-9]+)_"}
    if by == "column":
        table(wards)
        options = {
            "label_file": "labels.csv",
            "label_column": "label",
            "group_column": "patient_id",
        }
    info = run(wards, tmp_path / "out", **options)
    assert info.counts == {"train": 32, "val": 8, "test": 8}
    assert info.groups == {"train": 8, "val": 2, "test": 2}
    assert info.grouped_by is not None and by in info.grouped_by
    splits = patients_by_split(tmp_path / "out")
    assert len(set.union(*splits.values())) == sum(map(len, splits.values())) == PATIENTS
    assert open_dataset(tmp_path / "out").info == info
    again = run(wards, tmp_path / "again", **options)
    assert patients_by_split(tmp_path / "again") == splits and again.sha256 == info.sha256


def test_attributes_are_grouped_too(wards: Path, tmp_path: Path) -> None:
    text = table(wards, "left=1", "right=0").joinpath("labels.csv").read_text()
    (wards / "labels.csv").write_text(text.replace("sick,", "1,").replace("well,", "0,"))
    info = run(wards, tmp_path / "out", label_file="labels.csv", group_column="patient_id")
    assert info.task == "multi-label" and info.labels == ("label", "left", "right")
    splits = patients_by_split(tmp_path / "out")
    assert sum(map(len, splits.values())) == PATIENTS and all(splits.values())


def test_a_copy_joins_the_groups_of_two_patients(wards: Path, tmp_path: Path) -> None:
    for number in range(1, 6):  # P00 to P05 become one, by a chain of copies
        save(wards / "sick" / f"P{number:02}_copy.png", 10 * (number - 1) + 1)
    info = run(wards, tmp_path / "out", group_pattern="/(P[0-9]+)_")
    splits = patients_by_split(tmp_path / "out")
    assert sum(map(len, splits.values())) == PATIENTS
    assert any({f"P{n:02}" for n in range(6)} <= members for members in splits.values())
    assert any(note.startswith("5 groups ") and "copy" in note for note in info.notes)


def test_rows_are_joined_by_any_chain() -> None:
    keys = [b"a", b"b", b"a", b"c", b"d", b"e"]
    assert joined(keys, None) == [0, 1, 0, 3, 4, 5]
    assert joined(keys, ["x", "y", "z", "z", "y", "v"]) == [0, 1, 0, 0, 1, 5]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), st.integers(0, 2)), min_size=1),
    seed=st.integers(0, 9),
)
def test_copies_and_groups_are_each_in_one_split(
    rows: list[tuple[int, int, int]], seed: int
) -> None:
    keys, strata = [b"%d" % key for _, key, _ in rows], np.array([label for *_, label in rows])
    groups = [f"g{group}" for group, *_ in rows]
    splits = draw_splits(keys, strata, (0.2, 0.2), seed, True, groups)
    for names in (keys, groups):
        assert len(set(zip(names, splits.tolist(), strict=True))) == len(set(names))
    order = np.random.default_rng(seed).permutation(len(rows))
    shuffled = draw_splits(
        [keys[i] for i in order], strata[order], (0.2, 0.2), seed, True, [groups[i] for i in order]
    )
    assert np.array_equal(shuffled, splits[order])


def test_shares_and_classes_come_as_near_as_groups_let_them() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(1, 30, 60)
    groups = np.repeat(np.arange(60), sizes)
    labels = (groups + random.integers(0, 2, len(groups))) % 4
    keys = [b"%d" % i for i in range(len(groups))]
    splits = draw_splits(keys, labels, (0.15, 0.15), 0, True, [str(g) for g in groups])
    for label in range(4):
        shares = np.bincount(splits[labels == label], minlength=3) / (labels == label).sum()
        assert np.allclose(shares, (0.7, 0.15, 0.15), atol=0.03)


def test_each_split_has_each_class_where_there_are_groups_for_it() -> None:
    # three groups of each of four classes, of very different sizes
    sizes = np.tile([60, 5, 1], 4)
    groups, labels = np.repeat(np.arange(12), sizes), np.repeat(np.repeat(range(4), 3), sizes)
    keys = [b"%d" % i for i in range(len(groups))]
    splits = draw_splits(keys, labels, (0.15, 0.15), 0, True, [str(g) for g in groups])
    for split in range(3):
        assert set(labels[splits == split].tolist()) == {0, 1, 2, 3}
    assert np.bincount(splits)[0] >= 240  # the large ones are for train


def test_a_group_larger_than_a_split_is_named(tmp_path: Path) -> None:
    for i in range(40):
        for kind in ("a", "b"):
            group = "big" if i < 28 else f"s{i}"
            save(tmp_path / "data" / kind / f"{group}_{i}.png", i + 100 * (kind == "b"))
    info = run(tmp_path / "data", tmp_path / "out", group_pattern="/([a-z0-9]+)_", test_share=0.4)
    assert any("largest, big, has 56 of 80 images" in note for note in info.notes)
    assert "big" in patients_by_split(tmp_path / "out")["train"]


def test_copies_are_not_side_by_side() -> None:
    keys = [b"same"] * 50 + [b"%d" % i for i in range(50)]
    first = order_by_content(keys, 0)[:20]
    assert 4 <= sum(row < 50 for row in first) <= 16


# --- given splits ---------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["note", "refuse", "drop"])
def test_patients_in_two_given_splits(wards: Path, tmp_path: Path, policy: str) -> None:
    text = table(wards, "split=train").joinpath("labels.csv").read_text().splitlines()
    rows = [text[0]]
    for line in text[1:]:
        number, i = int(line.split("P")[1][:2]), int(line.split("_")[1][0])
        split = "test" if number > 9 else "val" if number > 7 else "train"
        if number == 11 and i < 2:
            split = "train"  # of P11 two images
        rows.append(line.replace("train", split))
    (wards / "labels.csv").write_text("\n".join(rows))
    options: dict[str, Any] = {
        "label_file": "labels.csv", "label_column": "label", "group_column": "patient_id",
        "groups_across_splits": policy,
    }  # fmt: skip
    if policy == "refuse":
        with pytest.raises(DataError, match=r"1 of 12 groups .*P11\. .*data\.groups_across_splits"):
            run(wards, tmp_path / "out", **options)
        return
    info = run(wards, tmp_path / "out", **options)
    assert any("1 of 12 groups have images in more than one split" in note for note in info.notes)
    assert info.counts == {"train": 34 if policy == "note" else 32, "val": 8, "test": 6}
    assert ("P11" in patients_by_split(tmp_path / "out")["train"]) == (policy == "note")


def test_one_group_is_left_out_to_test_with(wards: Path, tmp_path: Path) -> None:
    options = {"group_pattern": "/(P[0-9]+)_"}
    for number in ("P03", "P07"):
        info = run(wards, tmp_path / number, test_group=number, **options)
        splits = patients_by_split(tmp_path / number)
        assert splits["test"] == {number} and info.counts["test"] == 4
        assert len(splits["val"]) == 2 and not splits["val"] & splits["train"]
    with pytest.raises(DataError, match=r"test_group = 'P99' .*P00, P01"):
        run(wards, tmp_path / "none", test_group="P99", **options)


# --- where groups come from -----------------------------------------------------------------


def test_an_unnamed_column_of_groups_is_not_a_label(wards: Path, tmp_path: Path) -> None:
    info = run(table(wards), tmp_path / "out", label_file="labels.csv")
    assert info.labels == ("sick", "well") and info.groups == {}
    assert any('data.group_column="patient_id"' in note for note in info.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_column": "a", "group_pattern": "(b)"}, "group_column and group_pattern"),
        ({"group_pattern": "P[0-9]+"}, "0 pairs of capturing parentheses; expected one"),
        ({"group_pattern": "(P)(Q)"}, "2 pairs"),
        ({"group_pattern": "(P"}, "not a regular expression"),
        ({"test_group": 7}, "group_column or group_pattern"),
        ({"kind": "idx", "group_pattern": "(P)"}, "belongs to kind = 'images'"),
    ],
)
def test_keys_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataOptions(**{"kind": "images", **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_pattern": "/(P0[0-9])_"}, r"no group in 8 of 48 paths: sick/P10_0.png"),
        ({"group_column": "patient_id"}, "data.group_column .* data.label_file"),
        ({"groups_across_splits": "drop"}, "data.group_column or data.group_pattern"),
        ({"group_pattern": "(i|e)"}, "2 groups"),
    ],
)
def test_groups_that_are_not_there(
    wards: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(wards, tmp_path / "out", **options)


def test_an_empty_cell_of_groups_is_named(wards: Path, tmp_path: Path) -> None:
    text = table(wards).joinpath("labels.csv").read_text()
    (wards / "labels.csv").write_text(text.replace("P03_0.png,sick,P03", "P03_0.png,sick,"))
    options = {"label_file": "labels.csv", "label_column": "label", "group_column": "patient_id"}
    with pytest.raises(DataError, match=r"line 8: no patient_id"):
        run(wards, tmp_path / "out", **options)


@pytest.mark.parametrize(
    "name", ["patient_id", "PatientID", "subject", "Writer No", "person", "session-id", "speakers"]
)
def test_names_of_columns_that_are_groups(name: str) -> None:
    assert is_group_column(name)


@pytest.mark.parametrize("name", ["label", "patience", "identical", "id", "file", "sessions left"])
def test_names_of_columns_that_are_not(name: str) -> None:
    assert not is_group_column(name)


def listed(files: list[str]) -> ImageList:
    classes = sorted({file.split("/")[0] for file in files})
    labels = np.array([classes.index(file.split("/")[0]) for file in files], np.int64)
    none = np.full(len(files), NO_SPLIT, np.int8)
    return ImageList(Path(), tuple(files), labels, tuple(classes), none, (), ())


TWO = ("x", "y")
NAMES = {
    "patients": ([f"{c}/P{p}_{i}.png" for c in TWO for p in range(5) for i in range(3)], 5, True),
    "speakers": (
        [f"{c}/{i}_{who}_{i}.png" for c in TWO for who in ("jo", "li", "ed") for i in range(9)],
        3, False,
    ),
    "folders": ([f"{c}/s{p}/{i}.png" for c in TWO for p in range(4) for i in range(3)], 4, True),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
def test_groups_in_names_are_found(case: str) -> None:
    files, groups, sure = NAMES[case]
    result = suggest_pattern(listed(files))
    assert result is not None and (result.groups, result.sure) == (groups, sure)


@pytest.mark.parametrize(
    "files",
    [
        [f"{c}/{c}_{i}.png" for c in TWO for i in range(9)],  # the class
        [f"{c}/{i}.png" for c in TWO for i in range(9)],  # a number
        [f"{c}/IMG_{i}.png" for c in TWO for i in range(9)],  # the same everywhere
        [f"{c}/0001_{i:02}.png" for c in TWO for i in range(9)],  # numbers
    ],
)
def test_other_names_are_not_groups(files: list[str]) -> None:
    assert suggest_pattern(listed(files)) is None


def test_a_name_that_is_once_in_each_class_is_a_group() -> None:
    pattern = suggest_pattern(listed([f"{c}/a{i}_x.png" for c in TWO for i in range(9)]))
    assert pattern is not None and pattern.groups == 9
