"""The table of tasks that recipes can train, and the refusal of those that they cannot."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from exporters.evaluate.tasks import LABEL_TASKS, label_task
from pipeline import recipe as recipes
from pipeline.errors import RecipeError
from pipeline.recipe import load
from pipeline.recipe.shipping import check_what_ships
from pipeline.tasks import TRAINED, LabelledTask, task_of_labels, training_task
from runtime import ModelSpec
from runtime.tasks import TASKS

CLASSES = np.array([0, 2, 1, 2])
ATTRIBUTES = np.array([[1, 0], [1, 1], [0, 0]], np.uint8)


def with_task(folder: Path, task: str) -> str:
    text = Path(recipes.__file__).parents[1].joinpath("recipes", "mnist.toml").read_text("utf-8")
    assert "task" not in tomllib.loads(text)
    file = folder / "mnist.toml"
    file.write_text(f'task = "{task}"\n{text}', encoding="utf-8")
    return str(file)


def test_a_recipe_may_state_its_task(tmp_path: Path) -> None:
    recipe = load(with_task(tmp_path, "multi-class"))
    assert recipe.task == "multi-class"
    size = recipe.preprocess
    other = ModelSpec("mnist", "multi-label", size.height, size.width, size.channels, ("a", "b"))
    with pytest.raises(RecipeError, match=r"'multi-class'.*multi-label"):
        check_what_ships(recipe, spec=other)


@pytest.mark.parametrize(
    ("task", "facts"),
    [
        ("values", r"'values'.*no labels.*nothing to train.*--task values.*multi-class"),
        ("regression", r"'regression'.*multi-class, multi-label"),
    ],
)
def test_a_task_that_no_recipe_can_train_is_refused(tmp_path: Path, task: str, facts: str) -> None:
    with pytest.raises(RecipeError, match=facts):
        load(with_task(tmp_path, task))


def test_the_trained_tasks_are_those_with_labels() -> None:
    assert [task.name for task in TRAINED] == [t.name for t in TASKS.values() if t.has_labels]
    assert [task.name for task in TRAINED] == [task.name for task in LABEL_TASKS]
    for task in LABEL_TASKS:
        assert task.has_thresholds == TASKS[task.name].has_thresholds


def test_the_table_loads_neither_numpy_nor_torch() -> None:
    script = "import sys, pipeline.tasks; print({'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_labels_belong_to_the_task_of_their_shape() -> None:
    assert task_of_labels(CLASSES) is training_task("multi-class")
    assert task_of_labels(ATTRIBUTES) is training_task("multi-label")


def test_labels_are_counted() -> None:
    assert training_task("multi-class").label_counts(CLASSES, 4).tolist() == [1, 1, 2, 0]
    assert training_task("multi-label").label_counts(ATTRIBUTES, 2).tolist() == [2, 1]


def test_labels_that_cannot_be_learned_are_named() -> None:
    assert training_task("multi-class").unlearnable(CLASSES, ("a", "b", "c", "d")) == ("d",)
    constant = np.array([[1, 0, 1], [1, 0, 0]], np.uint8)
    assert training_task("multi-label").unlearnable(constant, ("a", "b", "c")) == ("a", "b")


@pytest.mark.parametrize(
    ("task", "labels", "facts"),
    [
        ("multi-class", CLASSES, None),
        ("multi-class", CLASSES + 1, ("1 to 3", "0 to 2")),
        ("multi-class", CLASSES.astype(float), ("float64",)),
        ("multi-class", CLASSES[:3], ("(3,)", "(4,)")),
        ("multi-label", np.ones((4, 3), np.uint8), None),
        ("multi-label", np.full((4, 3), 2), ("2 to 2", "0 to 1")),
        ("multi-label", CLASSES, ("(4,)", "(4, 3)")),
    ],
)
def test_labels_are_checked(task: str, labels: np.ndarray, facts: tuple[str, ...] | None) -> None:
    problem = training_task(task).check_labels(labels, 4, 3)
    if facts is None:
        assert problem is None
    else:
        assert problem is not None and all(fact in problem for fact in facts)


@pytest.mark.parametrize("task", TRAINED, ids=lambda task: task.name)
def test_network_and_evaluation_make_the_same_probabilities(task: LabelledTask) -> None:
    scores = np.random.default_rng(0).normal(0, 3, (5, 4)).astype(np.float32)
    learned = task.probabilities(torch.from_numpy(scores)).numpy()
    np.testing.assert_allclose(learned, label_task(task.name).probabilities(scores), atol=1e-6)


def test_the_confusion_of_classes() -> None:
    answers = np.eye(3, dtype=np.float32)[[0, 2, 2, 2]]
    found = training_task("multi-class").confusion(answers, CLASSES)
    assert found == ((1, 0, 0), (0, 0, 1), (0, 0, 2))
    assert training_task("multi-label").confusion(answers, CLASSES) is None
