"""Reports have the names of folders, without their paths and without the user's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.recipe import Recipe, load
from pipeline.report.places import without_places


@pytest.fixture
def recipe() -> Recipe:
    return load("mnist", ["data.kind=idx", "data.root=/home/ana/my data/pets"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ana/my data/pets", "pets"),
        ("of /home/ana/my data/pets/cat/1.png, 2 are gone", "of pets/cat/1.png, 2 are gone"),
        ("/home/bob", "~"),
        (r"C:\Users\ana", "~"),
        (r"cannot read C:\Users\ana\x.png (2)", "cannot read x.png (2)"),
        ("'/srv/ana/x.toml'", "'x.toml'"),
        ("~/nets/x.toml", "x.toml"),
        ("https://www.apache.org/licenses/x", "https://www.apache.org/licenses/x"),
        ("12 images/s, 1/2, 1 / 2 / 3, and/or", "12 images/s, 1/2, 1 / 2 / 3, and/or"),
        ("2026-11-30T12:00:00+00:00", "2026-11-30T12:00:00+00:00"),
        ("a\x1b[2J\nb\u202e", r"a\x1b[2J\nb\u202e"),
    ],
)
def test_paths_are_shortened_to_their_last_part(text: str, expected: str, recipe: Recipe) -> None:
    assert without_places(text, recipe) == expected


def test_this_user_and_this_folder_are_known_by_name(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/u1/ana maria")
    monkeypatch.chdir(tmp_path)
    assert without_places("/u1/ana maria", recipe) == "~"
    assert without_places("in /u1/ana maria/x: 3", recipe) == "in x: 3"
    assert without_places(f"in {tmp_path}/x", recipe) == "in ./x"


@dataclass(frozen=True)
class Row:
    names: tuple[str, ...]
    more: dict[str, list[object]]
    picture: str | None = None


def test_values_of_any_form_are_gone_through(recipe: Recipe) -> None:
    row = Row(("/a/b/c", "x"), {"/a/k": [Row(("/a/b/d",), {}), 3, None]}, "iVBOR/w0K/Ggo/a+/b/c==")
    found = without_places(row, recipe)
    assert found == Row(("c", "x"), {"k": [Row(("d",), {}), 3, None]}, row.picture)


def test_paths_of_a_recipe_are_shortened_wherever_they_point() -> None:
    recipe = load(
        "mnist", ["data.kind=idx", "data.root=../ana/pets", "distill.teacher=nets/t.toml"]
    )
    cleaned = without_places(recipe.model_dump(mode="json"), recipe)
    assert (cleaned["data"]["root"], cleaned["distill"]["teacher"]) == ("pets", "t.toml")
    assert {**cleaned, "data": 0, "distill": 0} == {
        **recipe.model_dump(mode="json"), "data": 0, "distill": 0
    }  # fmt: skip
