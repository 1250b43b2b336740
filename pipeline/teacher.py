"""The recipe of the teacher that another recipe learns from. Independent of stages and folders."""

from __future__ import annotations

from typing import Any

from pipeline.errors import RecipeError
from pipeline.recipe import Recipe, load


def teacher_of(recipe: Recipe) -> Recipe | None:
    """The recipe behind ``distill.teacher``, on the images of ``recipe`` and trained where that is;
    None without one.

    It keeps its own size of images, network, training and, unless images are drawn, seed. Raises
    RecipeError when that recipe does not exist, or a recipe learns from itself.
    """
    if recipe.distill is None:
        return None
    teacher = load(recipe.distill.teacher)
    if teacher.name == recipe.name:
        raise RecipeError(
            f"distill.teacher = {recipe.distill.teacher!r} is recipe {recipe.name!r} itself; "
            "expected another one, with a larger network."
        )
    here = {"device": recipe.train.device, "threads": recipe.train.threads}
    changes: dict[str, Any] = {"data": recipe.data, "train": teacher.train.model_copy(update=here)}
    if recipe.data.kind == "celeba" and recipe.data.root is None:
        changes["seed"] = recipe.seed  # which faces are drawn follows from it
    return teacher.model_copy(update=changes)


def teachers_of(recipe: Recipe) -> list[Recipe]:
    """The teacher, its teacher and so on, the first to train first."""
    chain: list[Recipe] = []
    names = [recipe.name]
    teacher = teacher_of(recipe)
    while teacher is not None:
        if teacher.name in names:
            raise RecipeError(
                f"{' learns from '.join([*names, teacher.name])}, so none can be trained first. "
                "Take distill out of one of them."
            )
        names.append(teacher.name)
        chain.insert(0, teacher)
        teacher = teacher_of(teacher)
    return chain
