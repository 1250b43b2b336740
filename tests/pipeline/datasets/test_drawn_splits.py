"""Splits are drawn so that copies stay together and rare labels are in each of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_folders import every, in_split_folders, left_out, note_with, picture, run
from PIL import Image

from pipeline.datasets.arrays import open_dataset
from pipeline.datasets.splitting import draw_splits
from pipeline.errors import DataError
from pipeline.tasks import training_task


@pytest.mark.parametrize("policy", ["note", "refuse", "drop"])
def test_copies_in_two_splits(pets: Path, tmp_path: Path, policy: str) -> None:
    root = in_split_folders(pets, tmp_path / "split")
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
    assert len(splits) == 30 and all(len(result) == 1 for result in splits.values())


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
