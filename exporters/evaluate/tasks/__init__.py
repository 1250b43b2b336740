"""How the answers of each task are measured and compared. Everything that differs between tasks is
in one file for each; ``TASKS`` lists them, in the order in which outputs are tried against them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.evaluate.tasks.labels import LabelTask
from exporters.evaluate.tasks.multi_class import MULTI_CLASS
from exporters.evaluate.tasks.multi_label import MULTI_LABEL
from exporters.evaluate.tasks.protocol import Bounds, Guess, OutputPair, Task
from exporters.evaluate.tasks.values import VALUES

_ROWS: tuple[Task, ...] = (MULTI_CLASS, MULTI_LABEL, VALUES)
TASKS: dict[str, Task] = {task.name: task for task in _ROWS}
LABEL_TASKS = tuple(task for task in _ROWS if isinstance(task, LabelTask))


def task_named(name: str) -> Task:
    """Return the task of that name; raises ExportError, which lists the names."""
    if name not in TASKS:
        raise ExportError(f"the task is {name!r}; expected one of {', '.join(TASKS)}.")
    return TASKS[name]


def label_task(name: str) -> LabelTask:
    """Return the task of that name if its answers are labels; raises ExportError otherwise."""
    task = task_named(name)
    if not isinstance(task, LabelTask):
        names = ", ".join(row.name for row in LABEL_TASKS)
        raise ExportError(f"a {name} model has no labels; expected a task with labels: {names}.")
    return task


def guess(values: Sequence[NDArray[Any]], inputs: int, classes: int | None = None) -> Guess:
    """Guess which task the outputs of FP32 for so many ``inputs`` belong to. ``classes`` is the
    number of the data's own classes, where it has any.

    Points, embeddings and other numbers may have the shape of labels as well, so labels are guessed
    only where inputs get different answers, and stay a guess.
    """
    return next(
        guessed for task in _ROWS if (guessed := task.guess(values, inputs, classes)) is not None
    )


def task_of_answers(values: Sequence[NDArray[Any]]) -> Task:
    """Return the task of outputs that are answers of some kind, by their shape and range."""
    return next(task for task in _ROWS if task.could_return(values))


__all__ = [
    "LABEL_TASKS",
    "TASKS",
    "Bounds",
    "Guess",
    "LabelTask",
    "OutputPair",
    "Task",
    "guess",
    "label_task",
    "task_named",
    "task_of_answers",
]
