"""``pipeline init``: what it proposes for images of many kinds, what it refuses, and that what it
writes runs to a bundle."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import children
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pipeline.cli.main import cli
from pipeline.datasets.arrays import NO_SPLIT, open_dataset
from pipeline.datasets.decoding.picture import Facts
from pipeline.datasets.sources.image_list import ImageList
from pipeline.datasets.sources.locate import ATTRIBUTES_NAME, IDX_NAMES, IMAGES_NAME, PARTITION_NAME
from pipeline.datasets.sources.read_list import read_list
from pipeline.errors import DataError
from pipeline.new_recipe.options import NewRecipeOptions
from pipeline.new_recipe.proposal import propose
from pipeline.new_recipe.render import comment, toml_string
from pipeline.new_recipe.survey import Look, Survey
from pipeline.new_recipe.write import write_recipe
from pipeline.recipe import DataOptions, Recipe, load

SHAPES = ("circle", "cross", "square")


def draw(shape: str, seed: int, size: tuple[int, int] = (28, 28)) -> Image.Image:
    """A light shape on a dark ground; (width, height)."""
    rng = np.random.default_rng(seed)
    dark, light = (tuple(map(int, rng.integers(low, low + 90, 3))) for low in (0, 160))
    image = Image.new("RGB", size, dark)
    pen = ImageDraw.Draw(image)
    (width, height), inset = size, int(rng.integers(3, 7))
    box = (inset, inset, width - inset, height - inset)
    if shape == "circle":
        pen.ellipse(box, fill=light)
    elif shape == "square":
        pen.rectangle(box, fill=light)
    else:
        pen.line((*box[:2], *box[2:]), fill=light, width=4)
        pen.line((box[0], box[3], box[2], box[1]), fill=light, width=4)
    return image


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """66 images in class folders below the current folder."""
    monkeypatch.chdir(tmp_path)
    for number, shape in enumerate(SHAPES):
        (tmp_path / "shapes" / shape).mkdir(parents=True)
        for i in range(22):
            draw(shape, 100 * number + i).save(tmp_path / "shapes" / shape / f"{i}.png")
    return Path("shapes")


def written(name: str, data: Path, labels: Path | None = None, *columns: str) -> Recipe:
    result = write_recipe(NewRecipeOptions(name, data, labels, columns), lambda *_: None)
    assert result.file == Path(f"{name}.toml")
    return load(str(result.file))


# --- the file -------------------------------------------------------------------------------


def test_what_is_written_is_a_recipe(shapes: Path) -> None:
    steps: list[tuple[int, int]] = []
    result = write_recipe(NewRecipeOptions("shapes", shapes), lambda *step: steps.append(step))
    assert steps[-1] == (66, 66)
    recipe, text = load("shapes.toml"), Path("shapes.toml").read_text()
    assert recipe.name == "shapes" and recipe.description == "Classes of shapes, 24x24 rgb"
    assert recipe.data.kind == "images" and recipe.data.root == str(shapes.absolute())
    assert recipe.data.bad_images == "refuse" and recipe.data.redistributable is False
    assert (recipe.preprocess.height, recipe.preprocess.width) == (24, 24)
    assert recipe.train.epochs == 100 and recipe.train.batch_size == 8
    assert recipe.quantize.calibration_images < result.proposal.train_images == 48
    assert all(f'#     "{shape}"  22\n' in text for shape in SHAPES)
    assert "#     pipeline run all --recipe shapes.toml\n" in text
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("root = "))
    assert "can't show less than 23.1 points" in text.replace("\n# ", " ")  # 9 test images
    assert recipe.gate.margin_points == 34.7


def test_oddities_are_printed_and_written(shapes: Path) -> None:
    (shapes / "circle" / "bad.png").write_bytes(b"x")
    (shapes / "circle" / "again.png").write_bytes((shapes / "circle" / "1.png").read_bytes())
    draw("cross", 5).convert("CMYK").save(shapes / "cross" / "print.jpg")
    exif = Image.Exif()
    exif[0x0112] = 8
    draw("cross", 6).save(shapes / "cross" / "turned.jpg", exif=exif)
    draw("cross", 7, (20, 80)).save(shapes / "cross" / "tall.png")
    result = CliRunner().invoke(cli, ["init", "odd", "--data", "shapes"])
    assert result.exit_code == 0, result.output
    assert load("odd.toml").data.bad_images == "skip"
    text = Path("odd.toml").read_text()
    for remarks in (result.output, text.replace("\n#   ", " ")):
        assert "1 images can't be used and will be left out: circle/bad.png: " in remarks
        assert "1 images repeat another one, pixel for pixel" in remarks
        assert "ratios (width to height) from 0.25 to 1.00" in remarks
        assert "few images of 'circle' (23), 'cross' (25), 'square' (22)" in remarks
    assert "1 JPEG, CMYK" in text and "1 are turned upright by their EXIF orientation" in text
    assert "→ odd.toml" in result.output


def test_names_can_not_break_the_file(shapes: Path) -> None:
    evil = 'a"] name = "x'
    (shapes / "circle").rename(shapes / evil)
    (shapes / evil / "bad\nname = 1.png").write_bytes(b"x")
    (shapes / "cross").rename(shapes / "größe\U0001f426")
    recipe = written("evil", shapes)
    assert recipe.name == "evil"
    moved = shapes.rename(shapes.with_name('my "best"\\shapes'))
    assert written("moved", moved).data.root == str(moved.absolute())
    assert written("up", moved / ".." / moved.name).data.root == str(moved.absolute())


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_one_toml_string_and_any_comment_stays_one(text: str) -> None:
    document = f"before = 1\n{comment('- ' + text)}\nvalue = {toml_string(text)}\n"
    assert tomllib.loads(document) == {"before": 1, "value": text}


def test_a_class_whose_name_hides_something_is_refused(shapes: Path) -> None:
    (shapes / "circle").rename(shapes / 'a\n"]\nname = "x')
    with pytest.raises(DataError, match=r"U\+000A"):
        written("evil", shapes)


def test_a_recipe_runs_from_anywhere(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{s}/{i}.png,{s}" for s in SHAPES for i in range(22)]
    for folder in (Path(), shapes):  # a label file is named from here or from the images' folder
        file = folder / f"labels{len(folder.parts)}.csv"
        file.write_text("\n".join(["file,shape", *rows]))
        written(file.stem, shapes, Path(file.name))
    written("folders", shapes)
    elsewhere = shapes.absolute().parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for name in ("labels0", "labels1", "folders"):
        assert len(read_list(load(f"../{name}.toml").data).files) == 66


def test_a_csv_file_of_classes_and_one_of_attributes(shapes: Path) -> None:
    rows = [f"{s}/{i}.png,{s},{i % 2},{int(s == 'cross')}" for s in SHAPES for i in range(22)]
    file = Path("labels.csv")
    file.write_text("\n".join(["file,shape,odd,crossed", *rows]))
    recipe = written("classes", shapes, file, "shape")
    assert recipe.data.label_file == str(file.absolute()) and recipe.data.label_column == "shape"
    assert recipe.train.label_smoothing > 0
    recipe = written("attributes", shapes, file, "odd", "crossed")
    assert recipe.data.attributes == ("odd", "crossed") and recipe.data.label_column is None
    assert recipe.description.startswith("Attributes of") and recipe.train.label_smoothing == 0
    with pytest.raises(DataError, match="line 2: shape is 'circle'; expected 1 or 0"):
        written("all", shapes, file)


# --- decisions ------------------------------------------------------------------------------


def survey(
    looks: list[Look], counts: tuple[int, ...] | None = None, splits: list[int] | None = None
) -> Survey:
    counts = counts or (len(looks) // 2, len(looks) - len(looks) // 2)
    labels = np.repeat(np.arange(len(counts)), counts)
    files = tuple(f"{i}.png" for i in range(len(looks)))
    given = np.array(splits or [NO_SPLIT] * len(looks), np.int8)
    names = tuple("abcdefgh"[: len(counts)])
    return Survey(ImageList(Path(), files, labels, names, given, (), ()), tuple(looks))


OPTIONS = DataOptions(kind="images", root="x")


def looks(count: int, height: int, width: int, gray: bool = False) -> list[Look]:
    return [Look(height, width, Facts("PNG, RGB"), gray, pixels=b"%d" % i) for i in range(count)]


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ((28, 28), (24, 24)), ((32, 32), (32, 32)), ((9, 9), (16, 16)), ((3000, 4000), (64, 88)),
        ((4000, 3000), (88, 64)), ((100, 110), (64, 64)), ((64, 300), (64, 304)),
    ],
)  # fmt: skip
def test_sizes(sides: tuple[int, int], expected: tuple[int, int]) -> None:
    proposal = propose(survey(looks(100, *sides)), OPTIONS)
    assert (proposal.height, proposal.width) == expected


def test_mixed_shapes_are_made_square() -> None:
    mixed = survey(looks(50, 100, 200) + looks(50, 200, 100))
    proposal = propose(mixed, OPTIONS)
    assert (proposal.height, proposal.width) == (64, 64)
    assert any("stretched to one shape" in remark for remark in proposal.remarks)


def test_color() -> None:
    assert propose(survey(looks(40, 32, 32, gray=True)), OPTIONS).color == "gray"
    mixed = looks(39, 32, 32, gray=True) + looks(1, 32, 32)
    assert propose(survey(mixed), OPTIONS).color == "rgb"


@pytest.mark.parametrize(
    ("images", "epochs", "batch_size", "width", "margin"),
    [(60, 100, 8, 6, 37.9), (1_000, 100, 16, 10, 2.7), (4_000, 71, 64, 10, 0.7),
     (30_000, 12, 128, 16, 0.5)],
)  # fmt: skip
def test_training_follows_from_the_number_of_images(
    images: int, epochs: int, batch_size: int, width: int, margin: float
) -> None:
    proposal = propose(survey(looks(images, 32, 32)), OPTIONS)
    assert (proposal.epochs, proposal.batch_size) == (epochs, batch_size)
    assert (proposal.edge_width, proposal.margin_points) == (width, margin)


def test_given_splits_are_counted() -> None:
    proposal = propose(survey(looks(100, 32, 32), splits=[0, 2] * 50), OPTIONS)
    assert (proposal.train_images, proposal.test_images) == (42, 50)  # 8 of 50 become validation


@pytest.mark.parametrize(
    ("classes", "images", "train"), [(30, 4, 60), (2, 3, 2), (5, 11, 35), (3, 250, 522)]
)
def test_sizes_are_those_of_the_data_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int, images: int, train: int
) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(classes * images):
        folder = tmp_path / "many" / f"k{i % classes}"
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    proposal = write_recipe(NewRecipeOptions("many", Path("many")), lambda *_: None).proposal
    assert proposal.train_images == train
    assert load("many.toml").quantize.calibration_images <= train
    done = CliRunner().invoke(cli, ["run", "data", "--recipe", "many.toml"])
    assert done.exit_code == 0, done.output
    counts = open_dataset(Path("artifacts/many/1_data")).info.counts
    assert (counts["train"], counts["test"]) == (proposal.train_images, proposal.test_images)


def test_unequal_classes_get_a_remark() -> None:
    unequal = survey(looks(1_000, 32, 32), counts=(900, 100))
    remarks = propose(unequal, OPTIONS).remarks
    assert any("unequal classes: 'a' has 900 images, 'b' 100" in remark for remark in remarks)
    assert any("few images of 'b' (100): " in remark for remark in remarks)
    failed = replace(unequal.looks[0], failure="broken")
    assert Survey(unequal.listed, (failed, *unequal.looks[1:])).counts == (899, 100)
    assert not propose(survey(looks(1_000, 32, 32)), OPTIONS).remarks


# --- what the images suggest ----------------------------------------------------------------


def noise_in(root: Path, names: Sequence[str]) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        draw(SHAPES[number % 3], number).save(root / name)
    return root


def init(*words: str) -> tuple[Recipe, str]:
    """The recipe, and all that was printed, in one line."""
    done = CliRunner().invoke(cli, ["init", "new", "--data", "data", *words])
    assert done.exit_code == 0, done.output
    recipe = load("new.toml")
    Path("new.toml").unlink()
    return recipe, " ".join(done.output.split())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_table(head: str, rows: Sequence[str]) -> str:
    noise_in(Path("data"), [f"{i}.png" for i in range(len(rows))])
    lines = [f"{i}.png,{row}" for i, row in enumerate(rows)]
    Path("data/labels.csv").write_text("\n".join([f"file,{head}", *lines]))
    return "data/labels.csv"


def test_pictures_of_12_bits_get_a_white_level(here: Path) -> None:
    for i in range(40):
        values = np.random.default_rng(i).integers(100, 3000, (20, 20)).astype(np.uint16)
        path = here / "data" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    recipe, output = init()
    assert recipe.preprocess.white_level == 4095 and recipe.preprocess.color == "gray"
    assert "40 images have 16 bits" in output and "4,095" in output and "12 bits" in output
    assert "repeat another" not in output  # which they would, scaled from 65535


@pytest.mark.parametrize("named", [False, True])
def test_a_column_of_patients_becomes_the_groups(here: Path, named: bool) -> None:
    labels = write_table("kind,patient_id", [f"{'ab'[i // 6 % 2]},P{i // 6}" for i in range(120)])
    recipe, output = init("--labels", labels, *(["--column", "kind"] * named))
    assert recipe.data.group_column == "patient_id" and "20 groups" in output
    assert recipe.data.label_column == ("kind" if named else None)
    assert read_list(recipe.data).names == ("a", "b")


def test_copies_with_another_label_are_named(here: Path) -> None:
    noise_in(here / "data", [f"{c}/{c}{i}.png" for c in "ab" for i in range(20)])
    assert "another label" not in init()[1]
    (here / "data/b/copy.png").write_bytes((here / "data/a/a3.png").read_bytes())
    assert "1 image has copies with another label" in init()[1]


def test_given_splits_that_part_groups_are_named(here: Path) -> None:
    rows = [f"{'ab'[i % 2]},{('train', 'val', 'test')[i % 3]},P{i // 6}" for i in range(60)]
    _, output = init("--labels", write_table("kind,split,patient_id", rows))
    assert "10 groups" in output and "10 have images in more than one" in output
    rows = [f"{'ab'[i % 2]},{('train', 'val', 'test')[i // 20]},P{i // 5}" for i in range(60)]
    _, output = init("--labels", write_table("kind,split,patient_id", rows))
    assert "12 groups" in output and "have images in more than one" not in output


def test_patients_in_the_names_of_files_become_the_groups(here: Path) -> None:
    names = [f"{c}/P{p:02}_{i}.png" for c in "ab" for p in range(8) for i in range(3)]
    noise_in(here / "data", names)
    recipe, _ = init()
    listed = read_list(recipe.data)
    assert listed.groups == tuple(file[2:5] for file in listed.files)


def test_words_that_may_be_groups_are_only_named(here: Path) -> None:
    names = [f"{c}/{i}_{w}.png" for c in "ab" for w in ("jo", "li", "ed") for i in range(8)]
    noise_in(here / "data", names)
    recipe, output = init()
    assert recipe.data.group_pattern is None
    assert "data.group_pattern = '" in output and "3 groups (ed, jo, li" in output
    pattern = output.split("data.group_pattern = '")[1].split("'")[0]
    listed = read_list(recipe.data.model_copy(update={"group_pattern": pattern}))
    assert set(listed.groups or ()) == {"jo", "li", "ed"}


def test_groups_that_are_too_few_are_not_set(here: Path) -> None:
    labels = write_table("kind,patient_id", [f"{'aab'[i % 3]},P{i % 3}" for i in range(60)])
    recipe, output = init("--labels", labels)
    assert recipe.data.group_column is None and "data.group_column is NOT set" in output


def test_columns_with_one_1_in_each_row_are_classes(here: Path) -> None:
    rows = [",".join("10"[i % 3 != j] for j in range(3)) for i in range(60)]
    recipe, output = init("--labels", write_table("MEL,NV,BCC", rows))
    assert recipe.data.one_hot and recipe.description.startswith("Classes")
    assert "exactly one 1 in the columns MEL, NV, BCC" in output
    rows[3] = "1,1,0"
    recipe, output = init("--labels", write_table("MEL,NV,BCC", rows))
    assert not recipe.data.one_hot and "exactly one 1" not in output


def test_tags_in_one_cell_are_named_and_can_be_read(here: Path) -> None:
    words = ("bar clear", "disc haze", "bar haze")
    labels = write_table("tags", [words[i % 3] for i in range(60)])
    recipe, output = init("--labels", labels)
    assert "'bar clear', 'bar haze', 'disc haze' look like several tags" in output
    assert "--tags ' '" in output and recipe.data.tags_separator is None
    recipe, _ = init("--labels", labels, "--tags", " ")
    assert read_list(recipe.data).names == ("bar", "clear", "disc", "haze")
    retrievers = ("golden retriever", "labrador retriever", "poodle")
    labels = write_table("breed", [retrievers[i % 3] for i in range(60)])
    assert "several tags" not in init("--labels", labels)[1]


def test_a_tag_that_does_not_show_is_refused_before_a_recipe_is_written(here: Path) -> None:
    tags = ("bar;cl\x1b[1mear", "disc;haze")
    labels = write_table("tags", [tags[i % 2] for i in range(60)])
    done = CliRunner().invoke(
        cli, ["init", "new", "--data", "data", "--labels", labels, "--tags", ";"]
    )
    assert done.exit_code == 1 and "U+001B" in done.output
    assert not Path("new.toml").exists()


def test_the_splits_that_are_given_are_counted_in_the_output(here: Path) -> None:
    names = [f"{s}/{c}/{i}.png" for s in ("train", "test") for c in "ab" for i in range(9)]
    noise_in(here / "data", names)
    assert "Splits given: 18 train, 18 test. Drawn: val." in init()[1]


# --- refusals -------------------------------------------------------------------------------


def _empty(root: Path) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def _all_bad(root: Path) -> None:
    for path in root.rglob("*.png"):
        path.write_bytes(b"x")


def _celeba(root: Path) -> None:
    (root / IMAGES_NAME).mkdir()
    (root / ATTRIBUTES_NAME).touch()
    (root / PARTITION_NAME).touch()


def _idx(root: Path) -> None:
    for name in IDX_NAMES:
        (root / name).touch()


def _one_of_a_class(root: Path) -> None:
    for path in list((root / "cross").iterdir())[1:]:
        path.unlink()


@pytest.mark.parametrize(
    ("words", "damage", "exit_code", "message"),
    [
        ("Shapes --data shapes", None, 2, "'Shapes' .*'shapes'"),
        ("3 --data shapes", None, 2, "'3' .*'my-images'"),
        ("mnist --data shapes", None, 2, "'mnist' .*artifacts/mnist.* 'my-mnist'"),
        ("sweeps --data shapes", None, 2, "'sweeps' .*artifacts/sweeps.* 'my-sweeps'"),
        ("old --data shapes", None, 2, "old.toml already exists"),
        ("new --data none", None, 1, "--data = 'none' .*expected a folder"),
        ("new --data old.toml", None, 1, "--data = 'old.toml' is a file; expected a folder"),
        ("new --data shapes --labels no.csv", None, 1, "data.label_file = 'no.csv'.*--labels"),
        ("new --data shapes/cross", None, 1, "shapes/cross .*two or more.*data.label_file"),
        ("new --data shapes --column x", None, 1, "data.label_column .*data.label_file"),
        ("new --data shapes", _empty, 1, "/shapes holds .*[.]png, [.]jpg, "),
        ("new --data shapes", _all_bad, 1, "none of 66 images .*circle/0.png"),
        ("new --data shapes", _one_of_a_class, 1, "/shapes .*class cross; .*train, val and test"),
        ("new --data shapes", _celeba, 1, "CelebA.* run all --recipe celeba --set data[.]root"),
        ("new --data shapes", _idx, 1, "IDX.*--recipe fashion-mnist --set data[.]root"),
    ],
)  # fmt: skip
def test_refusals(
    shapes: Path, words: str, damage: Callable[[Path], None] | None, exit_code: int, message: str
) -> None:
    if damage is not None:
        damage(shapes)
    Path("old.toml").write_text("mine")
    result = CliRunner().invoke(cli, ["init", *words.split()])
    assert result.exit_code == exit_code
    assert re.search(message, result.stderr.replace("\n", " "))
    assert Path("old.toml").read_text() == "mine"
    assert not Path("new.toml").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="not run: other file systems refuse such names")
def test_a_folder_whose_name_is_not_utf_8(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = shapes.rename(Path(os.fsdecode(b"caf\xe9")))
    with pytest.raises(DataError, match=r"--data = 'caf\\xe9' is not UTF-8\. Rename the"):
        written("cafe", moved)
    assert not Path("cafe.toml").exists()
    file = moved / "labels.csv"
    file.write_text("file,shape\n")
    with pytest.raises(DataError, match=r"data\.label_file = '.*\\xe9/labels.csv' is not UTF-8"):
        written("cafe", Path(), file)
    monkeypatch.chdir(moved)
    with pytest.raises(DataError, match=r"data\.root = '.*/caf\\xe9' is not UTF-8"):
        written("cafe", Path())


# --- the whole road -------------------------------------------------------------------------


def test_images_become_a_bundle_that_answers(shapes: Path, tmp_path: Path) -> None:
    (shapes / "circle" / "broken.png").write_bytes(b"x")
    assert CliRunner().invoke(cli, ["init", "shapes", "--data", "shapes"]).exit_code == 0
    quick = (
        "train.epochs=12", "train.threads=1", "quantize.search.minutes=0", "quantize.fp16=false",
        "benchmark.seconds=0.02",
    )  # fmt: skip
    words = ["run", "all", "--recipe", "shapes.toml"]
    for change in quick:
        words += ["--set", change]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        timeout=children.PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 67 images cannot be decoded or used and are left out" in done.stdout
    right = 0
    from runtime import Predictor

    predictor = Predictor(tmp_path / "artifacts" / "shapes" / "bundle.zip")
    for number, shape in enumerate(SHAPES):
        for seed in range(4):
            image = np.asarray(draw(shape, 1_000 + 10 * number + seed))
            right += predictor.predict(image).label == shape
    assert right >= 9  # of 12 that it has not seen; by chance 4
