"""Images that nobody has written a recipe for -> a commented recipe file: looks at them, proposes
size, colour, split, network and training, and gives a reason with each. Prints nothing."""

from __future__ import annotations

import os
import re
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DataError, RecipeError
from pipeline.new_recipe.recipe_text import Proposal, recipe_text
from pipeline.recipe import SWEEPS, DataOptions, load, shipped_names

if TYPE_CHECKING:
    from pipeline.datasets.decoding.workers import Progress
    from pipeline.new_recipe.survey import Survey


_SIZES = (16, 24, 32, 48, 64)  # pixels a side. Beyond 64, time grows with the area and accuracy of
# small networks hardly does; whoever has small things in large images raises it
_STRETCHED = 1.25  # from this ratio of the sides on, an image is not made square
_UNEQUAL = 4  # times the images of the smallest class: worth a remark
_FEW_TO_JUDGE = 20  # test images of a class or attribute: one error is 5 points
_IMAGE_PASSES = 200_000  # image presentations that a small network needs to settle, some minutes
_Z_95 = 1.645  # of the normal distribution, one-sided
_USUAL_MARGIN = 0.5  # points
_SLACK = 1.5  # over what no changed answer gives, so that one or two may change


def _absolute(path: Path) -> Path:
    """The path from the root, without ".." unless a link makes that another place."""
    plain = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
    return plain if plain.exists() and plain.samefile(path) else path.absolute()


@dataclass(frozen=True)
class Request:
    """What ``pipeline init`` was told."""

    name: str
    data: Path  # a folder
    label_file: Path | None = None
    columns: tuple[str, ...] = ()  # of label_file: one of classes, or several of 0 and 1
    folder: Path = Path()  # where NAME.toml goes
    tags_separator: str | None = None  # between several tags in one cell

    @property
    def file(self) -> Path:
        """The recipe."""
        return self.folder / f"{self.name}.toml"

    @property
    def options(self) -> DataOptions:
        """The ``[data]`` section, as far as it was told; paths from here become absolute, so that
        the recipe runs from anywhere."""
        label_file = self.label_file
        if label_file is not None and label_file.expanduser().is_file():  # else it is below data
            label_file = _absolute(label_file.expanduser())
        return DataOptions(
            kind="images",
            root=str(_absolute(self.data.expanduser())),
            label_file=None if label_file is None else str(label_file),
            label_column=self.columns[0] if len(self.columns) == 1 else None,
            attributes=self.columns if len(self.columns) > 1 else None,
            tags_separator=self.tags_separator,
        )


@dataclass(frozen=True)
class Written:
    """The recipe file, what was found and what was decided."""

    file: Path
    options: DataOptions  # what was asked for, and what the images suggest
    survey: Survey
    proposal: Proposal


def write_recipe(request: Request, progress: Progress) -> Written:
    """Look at all images and write the recipe file, which must not exist.

    Raises RecipeError for a name that is none and for a file that is there, DataError when the
    images or labels can't be learned from.
    """
    from pipeline.new_recipe.suggestions import suggested
    from pipeline.new_recipe.survey import look_at_all

    _check(request)
    listed, options, remarks = suggested(request.options)
    survey = look_at_all(listed, options.smallest_side, progress)
    if not survey.good:
        raise DataError(
            f"{request.data}: none of {len(survey.looks):,} images can be used; the first is "
            f"{survey.bad[0].file}: {survey.bad[0].reason.rstrip('.')}. Give other images."
        )
    survey, options, remarks = _groups_that_can_be_split(survey, options, remarks)
    proposal = propose(survey, options)
    proposal = replace(proposal, remarks=(*remarks, *proposal.remarks))
    text = recipe_text(request.name, request.data, options, survey, proposal)
    try:
        with request.file.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _refuse_to_overwrite(request.file)
    except OSError as exc:
        raise RecipeError(f"{request.file} cannot be written: {exc.strerror or exc}.") from exc
    load(str(request.file))
    return Written(request.file, options, survey, proposal)


def _groups_that_can_be_split(
    survey: Survey, options: DataOptions, remarks: tuple[str, ...]
) -> tuple[Survey, DataOptions, tuple[str, ...]]:
    """The same, without groups that are so few that a split or a class would be without images."""
    if survey.listed.groups is None:
        return survey, options, remarks
    try:
        _split_sizes(survey, options)
    except DataError as exc:
        ungrouped = replace(survey, listed=replace(survey.listed, groups=None))
        key = "group_column" if options.group_column is not None else "group_pattern"
        remark = (
            f"data.{key} is NOT set, since with it no splits could be drawn: {exc} Without it, "
            "test images have relatives in train, and their figures flatter the model."
        )
        _split_sizes(ungrouped, options)
        return ungrouped, options.model_copy(update={key: None}), (*remarks, remark)
    return survey, options, remarks


def _check(request: Request) -> None:
    """Refuse, before the work, what can't become a recipe."""
    from pipeline.datasets.sources import locate

    if not re.fullmatch(r"[a-z][a-z0-9-]*", request.name):
        near = re.sub(r"[^a-z0-9]+", "-", request.name.lower()).strip("-0123456789") or "my-images"
        raise RecipeError(
            f"{request.name!r} can't be a recipe's name; expected small letters, digits and -, a "
            f"letter first, such as {near!r}."
        )
    taken = None
    if request.name in shipped_names():
        taken = "a recipe that comes with the package"
    elif request.name == SWEEPS:
        taken = "the folder of all sweeps"
    if taken:
        raise RecipeError(
            f"{request.name!r} is the name of {taken}, and both would share "
            f"artifacts/{request.name}. Give another name, such as 'my-{request.name}'."
        )
    if request.file.exists():
        _refuse_to_overwrite(request.file)
    locate.folder_of(str(request.data), "--data")  # named as it was given
    folder = locate.folder_of(str(request.options.root))
    for find, recipe in ((locate.find_celeba, "celeba"), (locate.find_idx, "fashion-mnist")):
        try:
            find(folder)
        except DataError:
            continue
        raise DataError(
            f"{request.data} is a copy of {'CelebA' if recipe == 'celeba' else 'IDX files'}, for "
            f"which there is a recipe: pipeline run all --recipe {recipe} --set "
            f"data.root={request.data}"
        )


def _refuse_to_overwrite(file: Path) -> None:
    raise RecipeError(f"{file} is there already. Take it away, or give another name.")


# --- decisions ------------------------------------------------------------------------------


def propose(survey: Survey, options: DataOptions) -> Proposal:
    """Size, colour, network and training for what was found."""
    height, width, size_reason = _size(survey)
    gray = sum(look.gray for look in survey.good)
    color = "gray" if gray == len(survey.good) else "rgb"
    white_level = survey.depth.proposal
    if (refusal := survey.depth.refusal(white_level)) is not None:
        raise DataError(refusal)
    train, test = _split_sizes(survey, options)
    margin, margin_reason = _margin(test, survey)
    return Proposal(
        height,
        width,
        size_reason,
        color,
        "no image has a colour" if color == "gray" else f"{_share(gray, survey)} have no colour",
        train,
        test,
        epochs=max(12, min(100, round(_IMAGE_PASSES / max(train, 1)))),
        # some 30 steps an epoch at least, and small enough to generalise
        batch_size=next(size for size in (128, 64, 32, 16, 8) if size == 8 or train >= 32 * size),
        edge_width=6 if train < 500 else 10 if train < 5_000 else 16,
        margin_points=margin,
        margin_reason=margin_reason,
        white_level=white_level,
        remarks=tuple(_remarks(survey, options)),
    )


def _size(survey: Survey) -> tuple[int, int, str]:
    """(height, width) and why: what most images have pixels for, square unless they all agree on
    another shape."""
    sides = [min(look.height, look.width) for look in survey.good]
    typical = int(statistics.median_low(sides))
    side = max((size for size in _SIZES if size <= typical), default=_SIZES[0])
    reason = f"the shorter side of half of the images has at least {typical} pixels"
    ratios = sorted(look.width / look.height for look in survey.good)
    low, high = ratios[len(ratios) // 20], ratios[-1 - len(ratios) // 20]
    middle = ratios[len(ratios) // 2]
    if high / low < _STRETCHED and not 1 / _STRETCHED < middle < _STRETCHED:
        long = round(side * max(middle, 1 / middle) / 8) * 8
        shape = f"; nearly all have sides like {max(middle, 1 / middle):.2f} to 1"
        return (side, long, reason + shape) if middle > 1 else (long, side, reason + shape)
    return side, side, reason


def _split_sizes(survey: Survey, options: DataOptions) -> tuple[int, int]:
    """How many images there will be to train with, and to test with; raises DataError where the
    data stage would refuse the splits.

    Exact, unless images that differ here are the same to the model, which sees them smaller.
    """
    from pipeline.datasets.arrays import TEST, TRAIN
    from pipeline.datasets.preparation.split_checks import check_splits
    from pipeline.datasets.splitting import fill_splits

    usable = survey.usable
    splits = fill_splits(
        [look.pixels for look in survey.good],
        usable.labels,
        usable.splits,
        (options.val_share, options.test_share),
        options.split_seed,
        usable.groups,
    )
    check_splits(usable, splits, _same(survey))
    return int((splits == TRAIN).sum()), int((splits == TEST).sum())


def _same(survey: Survey) -> tuple[str, ...]:
    """A sentence for each picture that many of the images are."""
    from pipeline.datasets.preparation.duplicates import same_pictures

    good = survey.good
    return same_pictures(
        survey.usable.files,
        [look.pixels for look in good],
        lambda row: good[row].level,
        lambda row: good[row].facts.transparent,
    )


def _margin(test: int, survey: Survey) -> tuple[float, str]:
    """The gate's margin in points, and why: half a point, or what so few images can show."""
    answers = survey.listed.task.answers(test, len(survey.listed.names))
    # the score interval's upper bound of a loss when no answer changes, as in evaluate/gates.py
    shown = 100 * _Z_95**2 / (max(answers, 1) + _Z_95**2)
    if shown * _SLACK <= _USUAL_MARGIN:
        return _USUAL_MARGIN, "Half a point is what few will notice."
    return round(shown * _SLACK, 1), (
        f"Some {test:,} test images can't show less than {shown:.1f} points, even if no answer "
        "changes: more images make this finer."
    )


def _remarks(survey: Survey, options: DataOptions) -> list[str]:
    from pipeline.datasets.decoding.depth import note_frames
    from pipeline.datasets.preparation.duplicates import contradictions

    listed, counts = survey.listed, survey.counts
    remarks = []
    largest, smallest = max(counts), min(counts)
    named = {count: name for name, count in zip(listed.names, counts, strict=True)}
    if listed.task.exclusive and largest > _UNEQUAL * max(smallest, 1):
        remarks.append(
            f"unequal classes: {named[largest]!r} has {largest:,} images, {named[smallest]!r} "
            f"{smallest:,}. Accuracy hides what becomes of the small ones; the report's table by "
            "class doesn't."
        )
    few = [
        f"{name!r} ({count:,})"
        for name, count in zip(listed.names, counts, strict=True)
        if listed.task.cases(count, len(survey.good)) * options.test_share < _FEW_TO_JUDGE
    ]
    if few:
        remarks.append(
            f"few images of {', '.join(few[:5])}{' ...' * (len(few) > 5)}: the test split will "
            f"have fewer than {_FEW_TO_JUDGE} of them, where one error is more than "
            f"{100 / _FEW_TO_JUDGE:.0f} points."
        )
    ratios = [look.width / look.height for look in survey.good]
    if max(ratios) / min(ratios) > _STRETCHED**2:
        remarks.append(
            f"the sides of the images have ratios (width to height) from {min(ratios):.2f} to "
            f"{max(ratios):.2f}, and all are stretched to one shape. Cut them to the thing that is "
            "to be seen, or set preprocess.crop and preprocess.reference."
        )
    remarks += _same(survey)
    remarks += note_frames(listed.files, survey.facts)
    remarks += survey.depth.notes(survey.depth.proposal)
    if survey.copies:
        remarks.append(
            f"{survey.copies:,} images repeat another one, pixel for pixel. Drawn splits keep "
            "copies together; between given splits they are reported."
        )
    keys = [look.pixels for look in survey.good]
    remarks += contradictions(survey.usable.files, survey.usable.labels, keys)
    if survey.bad:
        remarks.append(
            f"{len(survey.bad):,} images can't be used and will be left out: "
            + "; ".join(f"{image.file}: {image.reason}" for image in survey.bad[:5])
            + " ..." * (len(survey.bad) > 5)
        )
    return [*remarks, *listed.notes]


def _share(count: int, survey: Survey) -> str:
    return f"{count:,} of {len(survey.good):,} images"


def splits_found(written: Written) -> str:
    """The splits that the source gives, and those that will be drawn."""
    from pipeline.datasets.arrays import SPLITS

    given = written.survey.usable.splits
    counts = {name: int((given == i).sum()) for i, name in enumerate(SPLITS)}
    found = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    missing = [name for name in SPLITS[1:] if not counts[name]]
    if not found:
        return "No splits are given: val and test are drawn."
    return f"Splits given: {found}." + f" Drawn: {' and '.join(missing)}." * bool(missing)
