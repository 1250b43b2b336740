"""A recipe that learns from another one: whose teacher is trained, when, and on what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.cli.main import cli
from pipeline.engine.runner import Runner
from pipeline.engine.stage import Context, Elsewhere, Stage, StageReport
from pipeline.engine.store import Store
from pipeline.errors import RecipeError, StageError
from pipeline.recipe import Recipe, load
from pipeline.teacher import teacher_of, teachers_of


class Silent:
    def note(self, text: str) -> None: ...

    def step(self, task: str, done: int, total: int, detail: str = "") -> None: ...


def recipe_file(folder: Path, name: str, teacher: str | None) -> Path:
    text = f"""
name = "{name}"
data = {{ kind = "mnist", train_images = 100 }}
preprocess = {{ kind = "digit" }}
network = {{ edge = {{ width = 2 }} }}
train = {{ epochs = 1, lr = 0.1, threads = 3 }}
"""
    if teacher is not None:
        text += f'distill = {{ teacher = "{folder / teacher}.toml" }}\n'
    file = folder / f"{name}.toml"
    file.write_text(text)
    return file


def test_teachers_come_first_and_see_the_students_images(tmp_path: Path) -> None:
    recipe_file(tmp_path, "large", None)
    recipe_file(tmp_path, "middle", "large")
    file = recipe_file(tmp_path, "small", "middle")
    student = load(str(file), ["data.train_images=50", "train.threads=1"])
    chain = teachers_of(student)
    assert [recipe.name for recipe in chain] == ["large", "middle"]
    assert [recipe.data.train_images for recipe in chain] == [50, 50]
    assert [recipe.train.threads for recipe in chain] == [1, 1]
    assert teacher_of(chain[0]) is None


def test_faces_are_drawn_alike_for_both() -> None:
    student = load("celeba-best", ["seed=5"])
    assert [teacher.seed for teacher in teachers_of(student)] == [5]
    real = load("celeba-best", ["seed=5", "data.root=somewhere"])
    assert [teacher.seed for teacher in teachers_of(real)] == [0]


def test_a_teacher_of_other_images_is_refused_before_it_is_trained(
    tmp_path: Path,
) -> None:
    """Which images are in which split follows from what the model sees."""
    data, rng = tmp_path / "pictures", np.random.default_rng(0)
    for name in ("dark", "light"):
        (data / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(data / name / f"{number}.png")
    for name, size, distill in (
        ("large", 16, ""),
        ("small", 8, f'distill = {{ teacher = "{tmp_path}/large.toml" }}'),
    ):
        (tmp_path / f"{name}.toml").write_text(f"""
name = "{name}"
data = {{ kind = "images", root = "{data}" }}
preprocess = {{ kind = "resize", height = {size}, width = {size}, color = "rgb" }}
network = {{ edge = {{ width = 2 }} }}
train = {{ epochs = 1, lr = 0.1 }}
{distill}
""")
    words = ["run", "train", "--recipe", str(tmp_path / "small.toml")]
    done = CliRunner().invoke(cli, [*words, "--artifacts", str(tmp_path / "artifacts")])
    assert done.exit_code != 0
    assert "expected the same images" in done.output
    assert (tmp_path / "artifacts/large/1_data").exists()
    assert not (tmp_path / "artifacts/large/2_train").exists()


def test_nobody_learns_from_oneself(tmp_path: Path) -> None:
    file = recipe_file(tmp_path, "alone", "alone")
    with pytest.raises(RecipeError, match="is recipe 'alone' itself"):
        teachers_of(load(str(file)))
    recipe_file(tmp_path, "one", "two")
    recipe_file(tmp_path, "two", "one")
    with pytest.raises(RecipeError, match="one learns from two learns from one"):
        teachers_of(load(str(tmp_path / "one.toml")))


def _stages(borrowing: bool) -> tuple[Stage[StageReport], ...]:
    def run(context: Context) -> StageReport:
        text = "first"
        if borrowing:
            text = (context.inputs["teacher"] / "out.txt").read_text() + " learned"
            assert context.report(StageReport, "teacher").headline in text
        (context.out / "out.txt").write_text(text + str(context.recipe.seed))
        return StageReport(text + str(context.recipe.seed))

    def borrows(recipe: Recipe) -> dict[str, Elsewhere]:
        return {"teacher": Elsewhere("large", "train")} if borrowing else {}

    return (Stage("train", "test", StageReport, run, sections=("seed",), borrows=borrows),)


def _runner(folder: Path, name: str, borrowing: bool, seed: int = 0) -> Runner:
    recipe = load(str(recipe_file(folder, name, None)), [f"seed={seed}"])
    return Runner(_stages(borrowing), recipe, Store(folder / "artifacts", name, ("train",)))


def test_a_borrowed_stage_decides_freshness(tmp_path: Path) -> None:
    student = _runner(tmp_path, "small", True)
    with pytest.raises(StageError, match="pipeline run train --recipe large"):
        student.run("train", Silent())
    (step,) = student.plan("train")
    assert step.reasons == ("depends on teacher, which will run",)
    _runner(tmp_path, "large", False).run("train", Silent())
    student.run("train", Silent())
    assert (student.store.folder("train") / "out.txt").read_text() == "first0 learned0"
    (step,) = student.plan("train")
    assert step.fresh
    _runner(tmp_path, "large", False, seed=4).run("train", Silent())
    (step,) = student.plan("train")
    assert step.reasons == ("input: teacher changed",)
    student.run("train", Silent())
    assert (student.store.folder("train") / "out.txt").read_text() == "first4 learned0"
