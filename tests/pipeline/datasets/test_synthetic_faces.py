"""The synthetic CelebA folder: official layout, exact labels, same bytes for the same seed."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.datasets.drawn import face_attributes, face_drawing, person, synthetic_faces
from pipeline.datasets.drawn.face_attributes import (
    ATTRIBUTES,
    DRAWN,
    HAIR_COLORS,
    HAIR_SHAPES,
    sample_attributes,
)
from pipeline.datasets.drawn.face_drawing import draw_face
from pipeline.datasets.drawn.synthetic_faces import MARKER, generate

IMAGES = 70  # more than one chunk, and enough people for three splits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces") / "celeba"
    generate(root, images=IMAGES, seed=3, workers=1)
    return root


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several reports of progress from few images."""
    monkeypatch.setattr(synthetic_faces, "CHUNK", 4)


def pairs(path: Path) -> dict[str, int]:
    return {
        name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())
    }


def content(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


# --- names --------------------------------------------------------------------------------------


def test_the_40_official_names_are_in_the_official_order() -> None:
    assert len(ATTRIBUTES) == len(set(ATTRIBUTES)) == 40
    assert (ATTRIBUTES[0], ATTRIBUTES[20], ATTRIBUTES[39]) == ("5_o_Clock_Shadow", "Male", "Young")
    # CelebA's order is alphabetical.
    assert list(ATTRIBUTES) == sorted(ATTRIBUTES, key=str.lower)


def test_drawn_names_are_official_and_in_the_official_order() -> None:
    assert len(DRAWN) >= 12
    assert [name for name in ATTRIBUTES if name in DRAWN] == list(DRAWN)


# --- the folder ---------------------------------------------------------------------------------


def test_images_have_the_size_of_celeba_and_the_lists_name_each_of_them(folder: Path) -> None:
    names = [f"{i:06d}.jpg" for i in range(1, IMAGES + 1)]
    pictures = folder / "img_align_celeba"
    assert sorted(path.name for path in pictures.iterdir()) == names
    for name in names[:5]:
        with Image.open(pictures / name) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (178, 218))
    assert list(pairs(folder / "identity_CelebA.txt")) == names
    assert list(pairs(folder / "list_eval_partition.txt")) == names
    assert [row.split()[0] for row in attribute_lines(folder)[2:]] == names


def attribute_lines(folder: Path) -> list[str]:
    return (folder / "list_attr_celeba.txt").read_text().splitlines()


def test_the_attribute_list_has_the_official_form(folder: Path) -> None:
    count, header, *rows = attribute_lines(folder)
    assert int(count) == len(rows) == IMAGES
    assert header.split() == list(ATTRIBUTES)
    assert rows[0].startswith("000001.jpg -1 ")  # columns of width 2, as in the official file
    values = np.array([row.split()[1:] for row in rows]).astype(int)
    assert values.shape == (IMAGES, 40)
    assert set(values.ravel()) == {-1, 1}
    undrawn = [i for i, name in enumerate(ATTRIBUTES) if name not in DRAWN]
    assert (values[:, undrawn] == -1).all()


def test_labels_are_those_the_picture_was_drawn_with(folder: Path) -> None:
    """Redraw image 1 from its two seeds; a label in the list must match the drawing."""
    identity = pairs(folder / "identity_CelebA.txt")["000001.jpg"]
    rng = np.random.default_rng([3, identity, 1])
    traits, sampled = face_attributes.sample_traits(rng), person.sample_person(rng)
    rng = np.random.default_rng([3, 1])
    attributes = face_attributes.dress(traits, rng)
    true = frozenset(name for name, value in attributes.items() if value)
    pixels = face_drawing.draw_person(rng, sampled, true, 218, 178)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=synthetic_faces.JPEG_QUALITY)

    assert (folder / "img_align_celeba" / "000001.jpg").read_bytes() == encoded.getvalue()
    row = dict(zip(ATTRIBUTES, attribute_lines(folder)[2].split()[1:], strict=True))
    assert {name for name, value in row.items() if value == "1"} == true


def test_no_identity_crosses_splits_and_each_has_one_to_six_images(folder: Path) -> None:
    splits_of, images_of = defaultdict(set), defaultdict(int)
    partition = pairs(folder / "list_eval_partition.txt")
    for name, identity in pairs(folder / "identity_CelebA.txt").items():
        splits_of[identity].add(partition[name])
        images_of[identity] += 1
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert set(images_of.values()) <= set(range(1, 7))
    assert max(images_of.values()) > 1
    assert set(partition.values()) == {0, 1, 2}


@pytest.mark.parametrize("images", [1, 2, 3, 10, 400, 8000])
def test_every_plan_has_the_asked_size_and_close_shares(images: int) -> None:
    plan = synthetic_faces.draw_plan(images, seed=0)
    assert len(plan.identities) == len(plan.splits) == images
    people = int(plan.identities.max())
    assert set(plan.identities) == set(range(1, people + 1))
    if people >= 3:
        assert set(plan.splits) == {0, 1, 2}
    if images >= 400:
        shares = np.bincount(plan.splits, minlength=3) / images
        assert shares == pytest.approx(synthetic_faces.SPLIT_SHARES, abs=0.02)


def test_the_marker_names_the_synthetic_set_and_its_attributes(folder: Path) -> None:
    marker = json.loads((folder / MARKER).read_text())
    assert marker["synthetic"] is True
    assert (marker["seed"], marker["images"]) == (3, IMAGES)
    assert marker["version"] == synthetic_faces.GENERATOR_VERSION
    assert tuple(marker["drawn"]) == DRAWN


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(
    folder: Path, tmp_path: Path
) -> None:
    generate(tmp_path / "two", images=IMAGES, seed=3, workers=2)
    assert content(tmp_path / "two") == content(folder)


def test_another_seed_gives_other_pictures_and_labels(folder: Path, tmp_path: Path) -> None:
    generate(tmp_path / "other", images=8, seed=4, workers=1)
    other, here = content(tmp_path / "other"), content(folder)
    assert other["img_align_celeba/000001.jpg"] != here["img_align_celeba/000001.jpg"]
    assert attribute_lines(tmp_path / "other")[2:] != attribute_lines(folder)[2:10]


@pytest.mark.usefixtures("small_chunks")
def test_progress_counts_up_to_all_images(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    generate(tmp_path / "set", images=10, workers=1, progress=lambda *at: calls.append(at))
    assert calls == [(4, 10), (8, 10), (10, 10)]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, workers: int) -> None:
    def interrupt(done: int, images: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "set", images=10, workers=workers, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_chunks")
def test_until_the_end_nothing_has_the_final_name(tmp_path: Path) -> None:
    """What a killed process leaves is what is there now: no set, no marker."""
    seen: list[bool] = []

    def look(done: int, images: int) -> None:
        seen.append((tmp_path / "set").exists() or any(tmp_path.rglob(MARKER)))

    generate(tmp_path / "set", images=10, workers=1, progress=look)
    assert seen == [False, False, False]
    assert (tmp_path / "set" / MARKER).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.jpg").write_bytes(b"a real photograph")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        generate(tmp_path, images=2, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.jpg"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    root = tmp_path / "empty"
    root.mkdir()
    generate(root, images=2, workers=1)
    assert (root / MARKER).is_file()


@pytest.mark.parametrize(
    ("images", "seed", "workers"), [(0, 0, 1), (-5, 0, None), (2, -1, 1), (2, 0, 0)]
)
def test_numbers_out_of_range_are_refused(
    tmp_path: Path, images: int, seed: int, workers: int | None
) -> None:
    with pytest.raises(ValueError, match="expected at least 1 image"):
        generate(tmp_path / "set", images=images, seed=seed, workers=workers)
    assert list(tmp_path.iterdir()) == []


# --- attributes ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampled() -> list[dict[str, bool]]:
    rng = np.random.default_rng(0)
    return [sample_attributes(rng) for _ in range(2000)]


def test_each_attribute_is_neither_rare_nor_the_rule(sampled: list[dict[str, bool]]) -> None:
    assert all(tuple(attributes) == DRAWN for attributes in sampled)
    prevalence = {name: np.mean([a[name] for a in sampled]) for name in DRAWN}
    assert {n: p for n, p in prevalence.items() if not 0.08 <= p <= 0.60} == {}


def test_sampled_faces_are_consistent(sampled: list[dict[str, bool]]) -> None:
    for attributes in sampled:
        face_attributes.check(attributes)  # raises on a contradiction
        assert sum(attributes[name] for name in HAIR_COLORS) <= 1
        assert sum(attributes[name] for name in HAIR_SHAPES) <= 1
        if attributes["Bald"]:
            assert not any(attributes[n] for n in (*HAIR_COLORS, *HAIR_SHAPES, "Bangs"))
        if attributes["Wearing_Hat"] and not any(attributes[n] for n in HAIR_SHAPES):
            assert not any(attributes[n] for n in HAIR_COLORS)


def test_beyond_the_exclusions_no_attribute_follows_from_another(
    sampled: list[dict[str, bool]],
) -> None:
    values = np.array([list(a.values()) for a in sampled], dtype=float)
    correlation = np.corrcoef(values.T) - np.eye(len(DRAWN))
    assert np.abs(correlation).max() < 0.55
    hairless = {*HAIR_COLORS, *HAIR_SHAPES, "Bald", "Bangs", "Wearing_Hat"}
    free = [i for i, name in enumerate(DRAWN) if name not in hairless]
    for one in (values, 1 - values):
        for other in (values, 1 - values):
            together = (one.T @ other)[free]
            together[np.arange(len(free)), free] = 1  # an attribute and itself
            assert (together > 0).all()  # all four combinations of any two occur


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"Smilling": True}, r"unknown attributes \['Smilling'\]; expected names listed"),
        ({"Young": True}, r"attributes \['Young'\] can't be drawn; set them to False"),
        ({"Black_Hair": True, "Gray_Hair": True}, "exclude each other; set at most one"),
        ({"Straight_Hair": True, "Wavy_Hair": True}, "exclude each other"),
        ({"Bald": True, "Bangs": True}, "exclude each other"),
        ({"Bald": True, "Wearing_Hat": True}, "exclude each other"),
        ({"Wearing_Hat": True, "Bangs": True}, "exclude each other"),
        ({"Wearing_Hat": True, "Brown_Hair": True}, "exclude each other"),
    ],
)
def test_a_face_that_cannot_be_drawn_is_refused(attributes: dict[str, bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_face(np.random.default_rng(0), attributes)


# --- pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"Young": False, "Male": False},  # undrawn names may be there as long as they are False
        {"Wearing_Hat": True, "Wavy_Hair": True, "Brown_Hair": True},
        dict.fromkeys(DRAWN, False),
    ],
)
def test_faces_are_rgb_bytes_of_the_asked_size(attributes: dict[str, bool]) -> None:
    default = draw_face(np.random.default_rng(1), attributes)
    assert (default.dtype, default.shape) == (np.uint8, (218, 178, 3))
    larger = draw_face(np.random.default_rng(1), attributes, height=300, width=260)
    assert larger.shape == (300, 260, 3)


def test_the_same_generator_state_gives_the_same_face() -> None:
    one, two = (draw_face(np.random.default_rng(5), {"Smiling": True}) for _ in range(2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, draw_face(np.random.default_rng(6), {"Smiling": True}))


# What else a face needs for an attribute to make sense; and the rows (of 64, after the center
# crop) in which it may show, generous because heads move.
NEEDS: dict[str, dict[str, bool]] = {
    "Bangs": {"Straight_Hair": True, "Brown_Hair": True},
    "Wearing_Hat": {"Straight_Hair": True, "Brown_Hair": True},
}
ROWS: dict[str, tuple[int, int]] = {
    "Bangs": (0, 36),
    "Bushy_Eyebrows": (12, 38),
    "Eyeglasses": (14, 46),
    "Goatee": (30, 64),
    "Heavy_Makeup": (14, 40),
    "Mouth_Slightly_Open": (28, 58),
    "Mustache": (28, 54),
    "Narrow_Eyes": (14, 42),
    "Rosy_Cheeks": (20, 50),
    "Smiling": (22, 58),
    "Wearing_Earrings": (18, 52),
    "Wearing_Hat": (0, 36),
    "Wearing_Lipstick": (28, 58),
    "Wearing_Necktie": (38, 64),
}


def small(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    image = Image.fromarray(pixels).crop((0, 20, 178, 198))
    return np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(float)


def change(name: str, seed: int) -> npt.NDArray[np.float64]:
    """By how many gray levels each of the 64x64 pixels moves if one attribute is flipped."""
    faces = [
        small(draw_face(np.random.default_rng(seed), {**NEEDS.get(name, {}), name: value}))
        for value in (False, True)
    ]
    return np.abs(faces[1] - faces[0]).max(axis=2)


@pytest.mark.parametrize("name", DRAWN)
def test_flipping_one_attribute_changes_the_picture_where_it_should(name: str) -> None:
    top, bottom = ROWS.get(name, (0, 64))
    for seed in range(4):
        moved = change(name, seed)
        elsewhere = np.delete(moved, np.s_[top:bottom], axis=0)
        assert (moved[top:bottom] > 15).sum() >= 10, f"seed {seed}: hardly visible at 64x64"
        assert (elsewhere <= 2).all(), f"seed {seed}: changes rows outside {top}..{bottom}"


def brightness_of_hair(color: str) -> float:
    """Mean over faces of the top of the hair, which every pose shows about there."""
    faces = [
        draw_face(np.random.default_rng(seed), {color: True, "Straight_Hair": True})
        for seed in range(8)
    ]
    return float(np.mean([small(face)[11:15, 27:37].mean() for face in faces]))


def test_hair_colors_are_apart() -> None:
    black, brown, gray = (
        brightness_of_hair(name) for name in ("Black_Hair", "Brown_Hair", "Gray_Hair")
    )
    assert black + 25 < brown < gray - 25
