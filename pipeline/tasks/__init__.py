"""How each task is learned: what label files mean, targets, loss, and what a report shows.
Everything that differs between tasks is in one file for each; ``TASKS`` lists them.

Importing this package loads neither numpy nor torch, so that a recipe can be checked without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.errors import RecipeError
from pipeline.tasks.labels import LabelledTask
from pipeline.tasks.multi_class import MULTI_CLASS
from pipeline.tasks.multi_label import MULTI_LABEL
from pipeline.tasks.values import VALUES, UntrainedTask

if TYPE_CHECKING:
    from numpy.typing import NDArray

TASKS: dict[str, LabelledTask | UntrainedTask] = {
    task.name: task for task in (MULTI_CLASS, MULTI_LABEL, VALUES)
}
TRAINED = tuple(task for task in TASKS.values() if isinstance(task, LabelledTask))


def training_task(name: str) -> LabelledTask:
    """Return the task of that name; raises RecipeError for one that cannot be trained, and for an
    unknown name."""
    task = TASKS.get(name)
    if isinstance(task, LabelledTask):
        return task
    names = ", ".join(row.name for row in TRAINED)
    if task is None:
        raise RecipeError(f"the task is {name!r}; expected one of {names}.")
    raise RecipeError(f"task = {name!r}: {task.purpose}. Expected one of {names}.")


def task_of_labels(labels: NDArray[Any]) -> LabelledTask:
    """Return the task that labels of this shape belong to."""
    return next(task for task in TRAINED if task.label_axes == labels.ndim)


__all__ = ["TASKS", "TRAINED", "LabelledTask", "task_of_labels", "training_task"]
