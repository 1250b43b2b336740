"""Recipes: good ones beside refused ones, each refusal with its words."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from pipeline.errors import RecipeError
from pipeline.recipe import RENAMED, RenamedKeyWarning, load, shipped_names
from pipeline.sweep.grid import parse, trials
from pipeline.teacher import teachers_of

GOOD = """
name = "tiny"
[data]
kind = "mnist"
[preprocess]
kind = "digit"
[network]
layers = [{ op = "conv", out = 8 }, { op = "pool" }, { op = "linear" }]
[train]
epochs = 2
lr = 0.1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(GOOD)
    return path


def test_shipped_recipes_are_read_and_named_after_their_file() -> None:
    names = shipped_names()
    assert {"mnist", "celeba", "fashion-mnist", "mnist-textbook", "celeba-smile-textbook"} <= set(
        names
    )
    for name in names:
        recipe = load(name)
        assert recipe.name == name
        assert recipe.description


@pytest.mark.parametrize(
    ("change", "get", "value"),
    [
        ("train.epochs=3", lambda r: r.train.epochs, 3),
        ("seed=7", lambda r: r.seed, 7),
        ("train.device=cpu", lambda r: r.train.device, "cpu"),
        ('train.device="cpu"', lambda r: r.train.device, "cpu"),
        ("quantize.fp16=false", lambda r: r.quantize.fp16, False),
        ("quantize.int8=[]", lambda r: r.quantize.int8, ()),
        ("data.root=some folder", lambda r: r.data.root, "some folder"),
        ("train.augment.shift=2", lambda r: r.train.augment.shift, 2.0),
        ("train.augment={shift=0.5, rotate=5}", lambda r: r.train.augment.shift, 0.5),
    ],
)
def test_keys_can_be_set(file: Path, change: str, get: object, value: object) -> None:
    assert get(load(str(file), [change])) == value  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.epoch=3", r"unknown key 'train.epoch'; did you mean 'epochs'\?"),
        ("quantize.fp61=true", r"unknown key 'quantize.fp61'; did you mean 'fp16'\?"),
        ('quantize.int8=[{id="int8-a", per_chanel=true}]', r"did you mean 'per_channel'\?"),
        ('network.layers=[{op="conv", ot=8}]', r"'network.layers.0.ot'; did you mean 'out'\?"),
        ("network.edge.widht=8", r"'network.edge.widht'; did you mean 'width'\?"),
        ("distill.teachr=x", r"'distill.teachr'; did you mean 'teacher'\?"),
        ("train.augment.zzz=1", r"unknown key 'train.augment.zzz'; known are: "),
        ("train.lr=-1", "train.lr = -1: Input should be greater than 0"),
        ("train.epochs=many", "train.epochs = 'many'"),
        ("train.augment.shift=0.5", "shift = 0.5: without .* give a whole number of them"),
        ("preprocess.width=30", "square gray images"),
        ("network.torchvision=resnet18", "exactly one of layers, edge, torchvision, callable"),
        ("preprocess.crop=[10, 10]", "crop and reference go together"),
        ("name=Bad Name", "name = 'Bad Name'"),
        ("epochs", "expected key=value"),
        ("train.lr.x=1", "'lr' is a value, not a section"),
    ],
)
def test_refusals(file: Path, change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(str(file), [change])


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'mnits'; did you mean 'mnist'\?"):
        load("mnits")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(RecipeError, match="is not TOML"):
        load(str(tmp_path / "bad.toml"))


HOSTILE = {
    "a number of 5,000 digits": (f"seed = {'9' * 5000}", "is not TOML"),
    "20,000 digits in base 16": (f"seed = 0x{'F' * 20000}", "seed is a number of 80000 bits"),
    "a number beyond 64 bits": ("train.batch_size = 9223372036854775808", "of 64 bits"),
    "3,000 brackets": (f"network.layers = {'[' * 3000}{']' * 3000}", "nested too deeply"),
    "3,000 open brackets": (f"seed = {'[' * 3000}", "nested too deeply|is not TOML"),
    "3,000 tables": (f"seed = {'{a = ' * 3000}1{'}' * 3000}", "nested too deeply"),
    "a key of 3,000 parts": (f"{'.'.join(['a'] * 3000)} = 1", "nested too deeply"),
    "100 brackets": (f"seed = {'[' * 100}{']' * 100}", "nested too deeply"),
    "an escape": (r'description = "a\u001b[2J"', r"description has U\+001B"),
    "two lines": (r'package.license = "MIT\r\nX"', r"package\.license has U\+000D"),
    "turned around": (r'data.labels = ["a", "\u202eb"]', r"data\.labels\.1 has U\+202E"),
    "a key that hides": (r'"a\u200b" = 1', r"the key .* has U\+200B"),
    "a null": (r'data.root = "a\u0000b"', r"data\.root has U\+0000"),
    "a long value": (f'train.threads = "{"x" * 5000}"', r"train\.threads = 'x{199}\.\.\.: Input"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_take_the_reader_down_is_a_plain_error(name: str, file: Path) -> None:
    line, message = HOSTILE[name]
    section, _, rest = line.partition(".")
    if section in ("train", "data"):
        file.write_text(GOOD.replace(f"[{section}]", f"[{section}]\n{rest}"))
    else:
        file.write_text(f"{line}\n{GOOD}")
    with pytest.raises(RecipeError, match=message) as caught:
        load(str(file))
    assert len(str(caught.value)) < 1000
    key, _, value = line.partition(" = ")
    file.write_text(GOOD)
    with pytest.raises(RecipeError) as caught:
        load(str(file), [f"{key}={value}"])
    assert len(str(caught.value)) < 1000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="not run: there are no pipes and devices")
def test_only_files_of_some_size_are_read_as_recipes(tmp_path: Path, file: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "large.toml").write_text("#" * (1 << 20) + GOOD)
    (tmp_path / "folder.toml").mkdir()
    for path, message in (
        ("/dev/zero", "it is a device"),
        (tmp_path / "pipe.toml", "it is a pipe"),
        (tmp_path / "folder.toml", "it is a directory"),
        (tmp_path / "large.toml", "more than 1,048,576 bytes"),
        (f"{tmp_path}/a\0b.toml", "cannot be read"),
    ):
        with pytest.raises(RecipeError, match=message):
            load(str(path))
    with pytest.raises(RecipeError, match="it is a device"):
        teachers_of(load(str(file), ["distill.teacher=/dev/zero"]))


def test_a_baseline_is_another_recipe(file: Path) -> None:
    assert load(str(file), ["baseline=mnist-textbook"]).baseline == "mnist-textbook"
    with pytest.raises(RecipeError, match="baseline = 'tiny' is this recipe itself"):
        load(str(file), ["baseline=tiny"])
    with pytest.raises(RecipeError, match=r"baseline = '\.\./elsewhere'"):
        load(str(file), ["baseline=../elsewhere"])


def test_shipped_baselines_are_shipped_and_of_the_same_images() -> None:
    named = [recipe for recipe in map(load, shipped_names()) if recipe.baseline]
    assert named
    for recipe in named:
        other = load(str(recipe.baseline))
        for key in ("kind", "root", "download", "validation_images", "synthetic_images"):
            assert getattr(recipe.data, key) == getattr(other.data, key), (recipe.name, key)


def test_the_textbook_trains_forty_attributes_as_it_trains_one() -> None:
    one, forty = load("celeba-smile-textbook"), load("celeba-textbook")
    assert (one.network, one.train, one.preprocess) == (
        forty.network,
        forty.train,
        forty.preprocess,
    )
    assert one.data.attributes == ("Smiling",) and forty.data.attributes is None


# --- renamed keys -----------------------------------------------------------------------------

VALUES = {"data.license": "CC0-1.0", "package.license": "MIT", "data.groups_across_splits": "drop"}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_former_key_is_read_and_its_new_name_printed(file: Path, old: str, new: str) -> None:
    section, key = new.split(".")
    value = VALUES[new]
    plain = GOOD.replace('[data]\nkind = "mnist"', 'data.kind = "mnist"')
    file.write_text(f'{old} = "{value}"\n{plain}')
    with pytest.warns(RenamedKeyWarning, match=f"tiny.toml: .*{old} .*{new}") as warned:
        recipe = load(str(file))
    assert len(warned) == 1
    assert getattr(getattr(recipe, section), key) == value
    file.write_text(GOOD)
    with pytest.warns(RenamedKeyWarning, match=f"--set {old}.*{new}"):
        assert load(str(file), [f"{old}={value}"]) == recipe


def test_a_section_that_is_set_may_have_former_keys(file: Path) -> None:
    with pytest.warns(RenamedKeyWarning, match="package.license"):
        recipe = load(str(file), ['package={licence="MIT"}'])
    assert recipe.package.license == "MIT"


def test_a_former_and_a_new_key_with_different_values_are_refused(file: Path) -> None:
    file.write_text(GOOD.replace("[data]", '[data]\nlicence = "MIT"\nlicense = "MIT"'))
    with pytest.warns(RenamedKeyWarning):
        assert load(str(file)).data.license == "MIT"
        assert load(str(file), ["data.licence=CC0-1.0"]).data.license == "CC0-1.0"
    file.write_text(GOOD.replace("[data]", '[data]\nlicence = "MIT"\nlicense = "CC0-1.0"'))
    with (
        pytest.warns(RenamedKeyWarning),
        pytest.raises(RecipeError, match=r"data\.licence .* data\.license.* 'MIT' and 'CC0-1\.0'"),
    ):
        load(str(file))


def test_a_grid_may_have_former_keys(file: Path) -> None:
    with pytest.warns(RenamedKeyWarning, match=r"--grid data\.licence"):
        named = trials(str(file), parse(["data.licence=MIT,CC0-1.0"]))
    assert [trial.recipe.data.license for trial in named] == ["MIT", "CC0-1.0"]
    assert [trial.name for trial in named] == ["data.licence=MIT", "data.licence=CC0-1.0"]
    with pytest.raises(RecipeError, match=r"data\.license .*--set .*--grid"):
        trials(str(file), parse(["data.license=MIT,CC0-1.0"]), ["data.licence=X"])


def test_the_command_line_prints_a_former_key_once_and_on_one_line(file: Path) -> None:
    file.write_text(GOOD.replace("[data]", '[data]\nlicence = "MIT"'))
    words = ["plan", "--recipe", str(file), "--artifacts", str(file.parent / "artifacts")]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert str(file) in line and "data.licence" in line and "data.license" in line


def test_shipped_recipes_have_no_former_key() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in shipped_names():
            load(name)


# --- what the last stages would refuse --------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("name=my--model", "wheel name 'my--model'; expected .* single hyphens"),
        ("name=my-", "wheel name 'my-'"),
        ("name=" + "a" * 101, "at most 100"),
        ("name=sweeps", "the folder of all sweeps"),
        ("package.model_version=v2", "model version 'v2'; expected numbers .* package.model_ver"),
        ('package.model_version="1.0.0 "', "model version '1.0.0 '"),
        ("package.model_version=1.02", "package.model_version = 1.02"),
        ('description="two\\nlines"', "description .* expected one line"),
        ('description="bell\\u0007"', r"description has U\+0007"),
        ('package.license="MIT\\nRequires-Dist: evil"', r"license has U\+000[AD]"),
        ('package.license=" "', r"licen[cs]e ' '"),
        ('data.license="MIT\\rand more"', r"license has U\+000[AD]"),
        ('data.labels=["a", "a"]', r"labels \['a', 'a'\]; expected distinct"),
        ("data.labels=[]", "expected distinct names, at least one"),
        ('package.devices=["cuda"]', "devices = .* the cpu among them"),
        ('package.devices=["cpu", "cpu"]', "devices = .* different ones"),
        ("package.golden_raw=-1", "golden_raw = -1; expected 0 to"),
        ("package={golden_raw=0, golden_images=0}", "both 0; expected one image"),
        ("export.batch_sizes=[]", r"batch_sizes = \(\); expected at least one"),
        ("export.batch_sizes=[1, 0]", "each from 1 to"),
        ("gate.margin_points=0", "margin_points = 0.0; expected more than 0"),
        ("gate.margin_points=nan", "gate.margin_points = nan"),
        ("gate.alpha=1", "alpha = 1.0; expected more than 0 and less than 0.5"),
        ("gate.max_size_bytes=0", "max_size_bytes = 0; expected more than 0"),
        ("quantize.calibration_images=0", "calibration_images = 0; expected 1 or more"),
        ("quantize.search.minutes=-1", "minutes = -1.0; expected 0 or more"),
        ("quantize.search.threads=0", "threads = 0; expected 1 or more"),
        ("quantize.search.schemes=[]", "schemes = .* expected at least one"),
        ("quantize.search.validation_images=0", "validation_images = 0; expected 1 or more"),
        ("quantize.search.fine_tune.epochs=-1", "epochs = -1; expected 0 or more"),
        ("quantize.search.fine_tune.lr_factor=0", "lr_factor = 0.0; expected more than 0"),
        ('quantize.int8=[{id="int8-a", percentile=0}]', "percentile = 0.0; expected more than 50"),
        (
            'quantize.int8=[{id="int8-a", weights="uint8", activations="int8"}]',
            "uint8 weights with int8 activations have no kernel",
        ),
        ('quantize.int8=[{id="int8-A"}]', "quantize.int8 has the ids"),
    ],
)
def test_what_would_fail_at_the_end_is_refused_when_the_recipe_is_read(
    file: Path, change: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load(str(file), [change])


@pytest.mark.parametrize(
    ("change", "summary"),
    [
        ("seed=0", "The model tiny"),
        ('description="  "', "The model tiny"),
        ("description='C:\\new \\x {}'", "C:\\new \\x {}"),
        ('description=\'three """ quotes\'', 'three """ quotes'),
    ],
)
def test_any_line_describes_a_model(file: Path, change: str, summary: str) -> None:
    assert load(str(file), [change]).summary == summary
