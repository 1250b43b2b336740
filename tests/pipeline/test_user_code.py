"""The user's own modules: the files that count and are found. No change is missed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from new_process import restored

from pipeline.engine.runner import Runner
from pipeline.engine.stage import Context, Stage, StageReport, UserModule
from pipeline.engine.store import Store
from pipeline.errors import RecipeError
from pipeline.recipe import Recipe, load
from pipeline.user_code import ImportFailed, imported, line_of, loaded_files, source_files
from pipeline.user_modules import current_digests, loaded_modules

RECIPE = """
name = "own"
[data]
kind = "mnist"
[preprocess]
kind = "digit"
[network]
callable = "net:make"
[train]
epochs = 1
lr = 0.1
"""


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    with restored():
        yield


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"net.py": "import blocks", "blocks.py": ""}, {"net.py", "blocks.py"}),
        (
            {"net.py": "import a", "a.py": "from b import x", "b.py": "x = 1", "c.py": ""},
            {"net.py", "a.py", "b.py"},
        ),
        (
            {"net.py": "def make():\n    from blocks import x", "blocks.py": "x = 1"},
            {"net.py", "blocks.py"},
        ),
        (
            {
                "net.py": "from parts.deep import block",
                "parts/__init__.py": "from . import other",
                "parts/other.py": "",
                "parts/deep/__init__.py": "",
                "parts/deep/block.py": "from ..far import *",
                "parts/far.py": "",
                "parts/unused.py": "",
            },
            {
                "net.py",
                "parts/__init__.py",
                "parts/other.py",
                "parts/deep/__init__.py",
                "parts/deep/block.py",
                "parts/far.py",
            },
        ),
        (
            {"net.py": "import space.inner.leaf", "space/inner/leaf.py": ""},
            {"net.py", "space/inner/leaf.py"},
        ),
        (
            {
                "net.py": "import importlib\nimportlib.import_module('blocks')",
                "blocks.py": "",
            },
            {"net.py", "blocks.py"},
        ),
        (
            {"net.py": "try:\n    import blocks\nexcept ImportError:\n    pass"},
            {"net.py"},
        ),
        ({"net.py": "import json, torch.nn, numpy as np"}, {"net.py"}),
        ({"net.py": "this is not Python"}, {"net.py"}),
    ],
    ids=[
        "module",
        "chain",
        "in a function",
        "packages",
        "namespace",
        "by name",
        "absent",
        "environment",
        "syntax",
    ],
)
def test_files_are_found_without_running_them(
    tmp_path: Path, files: dict[str, str], expected: set[str]
) -> None:
    before = list(sys.path)
    sources = source_files("net:make", write(tmp_path, files))
    assert set(sources) == expected
    assert all(file.is_relative_to(tmp_path) for file in sources.values())
    assert sys.path == before and "net" not in sys.modules


def test_packages_in_editable_mode_are_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installers use a path file or a finder on ``sys.meta_path``."""
    source = write(tmp_path / "source", {"helper/__init__.py": "", "other.py": ""})
    monkeypatch.syspath_prepend(str(source))
    folder = write(tmp_path / "recipe", {"net.py": "import helper, other"})
    assert set(source_files("net:make", folder)) == {"net.py", "helper/__init__.py", "other.py"}
    installed = write(tmp_path / "site-packages", {"third.py": ""})
    monkeypatch.syspath_prepend(str(installed))
    write(folder, {"net.py": "import third"})
    assert set(source_files("net:make", folder)) == {"net.py"}


def test_a_loaded_module_counts(tmp_path: Path) -> None:
    folder = write(tmp_path, {"net.py": "import blocks\ndef make(): pass", "blocks.py": ""})
    sys.path.append(str(folder))
    __import__("blocks")
    imported("net:make", folder)
    assert set(loaded_files("net:make", folder)) == {"net.py", "blocks.py"}


def test_computed_names_are_found_after_the_import(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {
            "net.py": "import importlib, os, sys\n"
            "sys.path.append(os.path.join(os.path.dirname(__file__), 'lib'))\n"
            "def make():\n    return importlib.import_module('b' + 'locks').WIDTH",
            "lib/blocks.py": "WIDTH = 8",
        },
    )
    assert set(source_files("net:make", folder)) == {"net.py"}
    assert imported("net:make", folder)() == 8
    assert loaded_files("net:make", folder)["blocks.py"] == folder / "lib" / "blocks.py"


def test_a_folder_shadows_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path, {"net.py": "import json\nmake = json.dumps", "sub/x.py": ""})
    assert imported("net:make", folder)(1) == "1"
    assert sys.path[-1] == str(folder)
    write(folder, {"runtime.py": "", "statistics.py": ""})
    import statistics

    assert imported("net:make", folder)(1) == "1"  # it imports neither
    assert statistics.mean([1]) == 1
    write(folder, {"net.py": "import statistics\nmake = 1"})
    with pytest.raises(ImportFailed, match=r"statistics\.py .*'statistics'"):
        imported("net:make", folder)
    write(folder, {"net.py": "import runtime\nmake = 1"})
    with pytest.raises(ImportFailed, match=r"runtime\.py .*__init__\.py"):
        imported("net:make", folder)


def test_two_folders_with_modules_of_the_same_name(tmp_path: Path) -> None:
    for name, width in (("a", 1), ("b", 2)):
        write(
            tmp_path / name, {"net.py": "from blocks import make", "blocks.py": f"make = {width}"}
        )
    for name, width in (("a", 1), ("b", 2), ("a", 1)):
        assert imported("net:make", tmp_path / name) == width


def test_a_changed_file_is_loaded_again(tmp_path: Path) -> None:
    """Twice within a second, with the same size: bytecode files cannot distinguish these."""
    folder = write(tmp_path, {"net.py": "from blocks import make", "blocks.py": "make = 1"})
    for value in (1, 2, 3):
        write(folder, {"blocks.py": f"make = {value}"})
        assert imported("net:make", folder) == value
    assert not list(folder.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("import sys\nsys.exit('usage: ...')", "SystemExit: usage", "net.py:2: sys.exit"),
        ("x = 1\nmake = y", "NameError: name 'y'", "net.py:2: make = y"),
        ("x = (", "SyntaxError", "net.py:1"),
        ("import absent_module", "ModuleNotFoundError: .*absent_module", "net.py:1: import absent"),
    ],
)
def test_errors_name_a_line_of_the_user(tmp_path: Path, text: str, reason: str, line: str) -> None:
    with pytest.raises(ImportFailed, match=reason) as caught:
        imported("net:make", write(tmp_path, {"net.py": text}))
    assert line in str(line_of(caught.value))


def test_a_missing_name(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match=r"AttributeError: .* 'make'"):
        imported("net:make", write(tmp_path, {"net.py": "x = 1"}))


# --- in plans ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loaded(StageReport):
    modules: dict[str, UserModule] = field(default_factory=dict)

    def user_modules(self) -> dict[str, UserModule]:
        return self.modules


def train(context: Context) -> Loaded:
    """A train stage that only imports, and reports the loaded files."""
    network = context.recipe.network
    (context.out / "width").write_text(str(imported(str(network.callable), network.folder)()))
    return Loaded("loaded", loaded_modules(network))


def planned(recipe: Recipe, folder: Path) -> tuple[str, ...]:
    return runner(recipe, folder).plan("train")[0].reasons


def runner(recipe: Recipe, folder: Path) -> Runner:
    stage = Stage(
        "train",
        "",
        Loaded,
        train,
        sections=("network",),
        modules=lambda recipe, seen: current_digests(recipe.network, seen),
    )
    return Runner((stage,), recipe, Store(folder, "own", ("train",)))


class Quiet:
    def note(self, text: str) -> None:
        pass

    def step(self, task: str, done: int, total: int, detail: str = "") -> None:
        pass


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    folder = write(
        tmp_path / "recipe",
        {
            "own.toml": RECIPE,
            "net.py": "from parts import block\nimport importlib\n"
            "def make():\n    return block.WIDTH + importlib.import_module('l' + 'ate').MORE\n",
            "parts/__init__.py": "",
            "parts/block.py": "WIDTH = 8\n",
            "late.py": "MORE = 1\n",
        },
    )
    return load(str(folder / "own.toml"))


def test_a_plan_names_the_changed_file(recipe: Recipe, tmp_path: Path) -> None:
    folder, store = tmp_path / "recipe", tmp_path / "artifacts"
    assert recipe.network.folder == folder
    runner(recipe, store).run("train", Quiet())
    assert planned(recipe, store) == ()
    for name in ("net.py", "parts/__init__.py", "parts/block.py", "late.py"):
        file = folder / name
        before = file.read_text()
        file.write_text(before + "# another\n")
        assert planned(recipe, store) == (f"module: {name} changed",)
        file.write_text(before)
    assert planned(recipe, store) == ()
    (folder / "parts/block.py").write_text("WIDTH = 24\n")
    runner(recipe, store).run("train", Quiet())
    assert (store / "own/1_train/width").read_text() == "25"
    (folder / "late.py").unlink()
    assert planned(recipe, store) == ("module: late.py changed",)


def test_a_file_that_comes_before_another_on_the_path_is_noticed(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, earlier = tmp_path / "artifacts", tmp_path / "earlier"
    earlier.mkdir()
    monkeypatch.syspath_prepend(str(earlier))
    runner(recipe, store).run("train", Quiet())
    write(earlier, {"parts/__init__.py": "", "parts/block.py": "WIDTH = 9\n"})
    assert planned(recipe, store) == ("module: parts/block.py changed",)


def test_moving_the_folder_changes_nothing(recipe: Recipe, tmp_path: Path) -> None:
    runner(recipe, tmp_path / "artifacts").run("train", Quiet())
    (tmp_path / "recipe").rename(tmp_path / "elsewhere")
    moved = load(str(tmp_path / "elsewhere" / "own.toml"))
    assert planned(moved, tmp_path / "artifacts") == ()


def test_finished_stages_are_adopted_with_computed_imports(recipe: Recipe, tmp_path: Path) -> None:
    runner(recipe, tmp_path / "donor").run("train", Quiet())
    donor = runner(recipe, tmp_path / "donor").store
    assert runner(recipe, tmp_path / "a").adopt("train", [donor]) == ("train",)
    (tmp_path / "recipe" / "late.py").write_text("MORE = 2\n")
    assert runner(recipe, tmp_path / "b").adopt("train", [donor]) == ()


def test_a_missing_module_is_refused_when_the_recipe_is_read(tmp_path: Path) -> None:
    file = write(tmp_path, {"own.toml": RECIPE}) / "own.toml"
    with pytest.raises(RecipeError, match=r"module 'net' .*net\.py in .* PYTHONPATH"):
        load(str(file))
    with pytest.raises(RecipeError, match='expected "module:function"'):
        load(str(file), ["network.callable=net"])
    with pytest.raises(RecipeError, match=r"network\.weights = 'w\.pth' is not a file"):
        load("mnist", ['network={torchvision="resnet18", weights="w.pth"}'])
