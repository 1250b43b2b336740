"""Images that nobody has written a recipe for -> a commented recipe file: looks at them, proposes
size, colour, split, network and training, and gives a reason with each. Prints nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DataError, RecipeError
from pipeline.new_recipe.options import NewRecipeOptions
from pipeline.new_recipe.proposal import Proposal, propose, split_sizes
from pipeline.new_recipe.render import render_recipe
from pipeline.recipe import SWEEPS, DataOptions, load, shipped_names

if TYPE_CHECKING:
    from pipeline.datasets.decoding.workers import Progress
    from pipeline.new_recipe.survey import Survey


@dataclass(frozen=True)
class NewRecipe:
    """The recipe file, what was found and what was decided."""

    file: Path
    options: DataOptions  # what was asked for, and what the images suggest
    survey: Survey
    proposal: Proposal


def write_recipe(requested: NewRecipeOptions, progress: Progress) -> NewRecipe:
    """Look at all images and write the recipe file, which must not exist.

    Raises RecipeError for a name that is none and for a file that is there, DataError when the
    images or labels can't be learned from.
    """
    from pipeline.new_recipe.suggestions import suggested
    from pipeline.new_recipe.survey import look_at_all

    _check(requested)
    listed, options, remarks = suggested(requested.data_options)
    survey = look_at_all(listed, options.smallest_side, progress)
    if not survey.good:
        raise DataError(
            f"{requested.data}: none of {len(survey.looks):,} images can be used; the first is "
            f"{survey.bad[0].file}: {survey.bad[0].reason.rstrip('.')}. Give other images."
        )
    survey, options, remarks = _groups_that_can_be_split(survey, options, remarks)
    proposal = propose(survey, options)
    proposal = replace(proposal, remarks=(*remarks, *proposal.remarks))
    text = render_recipe(requested.name, requested.data, options, survey, proposal)
    try:
        with requested.file.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _refuse_to_overwrite(requested.file)
    except OSError as exc:
        raise RecipeError(f"{requested.file} cannot be written: {exc.strerror or exc}.") from exc
    load(str(requested.file))
    return NewRecipe(requested.file, options, survey, proposal)


def _groups_that_can_be_split(
    survey: Survey, options: DataOptions, remarks: tuple[str, ...]
) -> tuple[Survey, DataOptions, tuple[str, ...]]:
    """The same, without groups that are so few that a split or a class would be without images."""
    if survey.listed.groups is None:
        return survey, options, remarks
    try:
        split_sizes(survey, options)
    except DataError as exc:
        ungrouped = replace(survey, listed=replace(survey.listed, groups=None))
        key = "group_column" if options.group_column is not None else "group_pattern"
        remark = (
            f"data.{key} is NOT set, since with it no splits could be drawn: {exc} Without it, "
            "test images have relatives in train, and their figures flatter the model."
        )
        split_sizes(ungrouped, options)
        return ungrouped, options.model_copy(update={key: None}), (*remarks, remark)
    return survey, options, remarks


def _check(requested: NewRecipeOptions) -> None:
    """Refuse, before the work, what can't become a recipe."""
    from pipeline.datasets.sources import locate

    if not re.fullmatch(r"[a-z][a-z0-9-]*", requested.name):
        near = (
            re.sub(r"[^a-z0-9]+", "-", requested.name.lower()).strip("-0123456789") or "my-images"
        )
        raise RecipeError(
            f"{requested.name!r} can't be a recipe's name; expected small letters, digits and -, a "
            f"letter first, such as {near!r}."
        )
    taken = None
    if requested.name in shipped_names():
        taken = "a recipe that comes with the package"
    elif requested.name == SWEEPS:
        taken = "the folder of all sweeps"
    if taken:
        raise RecipeError(
            f"{requested.name!r} is the name of {taken}, and both would share "
            f"artifacts/{requested.name}. Give another name, such as 'my-{requested.name}'."
        )
    if requested.file.exists():
        _refuse_to_overwrite(requested.file)
    locate.folder_of(str(requested.data), "--data")  # named as it was given
    folder = locate.folder_of(str(requested.data_options.root))
    for find, recipe in ((locate.find_celeba, "celeba"), (locate.find_idx, "fashion-mnist")):
        try:
            find(folder)
        except DataError:
            continue
        raise DataError(
            f"{requested.data} is a copy of {'CelebA' if recipe == 'celeba' else 'IDX files'}, for "
            f"which there is a recipe: pipeline run all --recipe {recipe} --set "
            f"data.root={requested.data}"
        )


def _refuse_to_overwrite(file: Path) -> None:
    raise RecipeError(f"{file} is there already. Take it away, or give another name.")


def splits_found(written: NewRecipe) -> str:
    """The splits that the source gives, and those that will be drawn."""
    from pipeline.datasets.arrays import SPLITS

    given = written.survey.usable.splits
    counts = {name: int((given == i).sum()) for i, name in enumerate(SPLITS)}
    found = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    missing = [name for name in SPLITS[1:] if not counts[name]]
    if not found:
        return "No splits are given: val and test are drawn."
    return f"Splits given: {found}." + f" Drawn: {' and '.join(missing)}." * bool(missing)
