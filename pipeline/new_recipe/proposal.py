"""Size, color, network and training for surveyed images, each with its reason."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import DataError
from pipeline.recipe import DataOptions

if TYPE_CHECKING:
    from pipeline.new_recipe.survey import Survey

_SIZES = (16, 24, 32, 48, 64)  # pixels a side. Beyond 64, time grows with the area, but accuracy of
# small networks hardly does; small objects in large images need more
_STRETCHED = 1.25  # from this ratio of the sides on, images are not made square
_UNEQUAL = 4  # times the images of the smallest class get a remark
_FEW_TO_JUDGE = 20  # test images of a class or attribute: one error is 5 points
_IMAGE_PASSES = 200_000  # image presentations that a small network needs to settle, some minutes
_Z_95 = 1.645  # of the normal distribution, one-sided
_USUAL_MARGIN = 0.5  # points
_SLACK = 1.5  # times the bound without a changed answer, so that one or two may change


@dataclass(frozen=True)
class Proposal:
    """The proposed values, with the reasons that the file gives for them."""

    height: int  # pixels
    width: int
    size_reason: str
    color: str  # "gray" or "rgb"
    color_reason: str
    train_images: int  # approximate: images may become copies at the model's size
    test_images: int  # likewise
    epochs: int
    batch_size: int
    edge_width: int  # of the network's family, pipeline/learning/networks/edge.py
    margin_points: float  # of accuracy that a variant may lose
    margin_reason: str
    white_level: int | None  # of 16-bit pixels; None: there are none, or they use all 16
    remarks: tuple[str, ...]  # what the user should check


def propose(survey: Survey, options: DataOptions) -> Proposal:
    """Return size, color, network and training for the surveyed images."""
    height, width, size_reason = _size(survey)
    gray = sum(look.gray for look in survey.good)
    color = "gray" if gray == len(survey.good) else "rgb"
    white_level = survey.depth.proposal
    if (refusal := survey.depth.refusal(white_level)) is not None:
        raise DataError(refusal)
    train, test = split_sizes(survey, options)
    margin, margin_reason = _margin(test, survey)
    return Proposal(
        height,
        width,
        size_reason,
        color,
        "no image has a color" if color == "gray" else f"{_share(gray, survey)} have no color",
        train,
        test,
        epochs=max(12, min(100, round(_IMAGE_PASSES / max(train, 1)))),
        # some 30 steps an epoch at least, and small enough to generalize
        batch_size=next(size for size in (128, 64, 32, 16, 8) if size == 8 or train >= 32 * size),
        edge_width=6 if train < 500 else 10 if train < 5_000 else 16,
        margin_points=margin,
        margin_reason=margin_reason,
        white_level=white_level,
        remarks=tuple(_remarks(survey, options)),
    )


def _size(survey: Survey) -> tuple[int, int, str]:
    """Return (height, width) and the reason: a size that most images reach, square unless nearly
    all have another shape."""
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


def split_sizes(survey: Survey, options: DataOptions) -> tuple[int, int]:
    """Return the number of images to train with and to test with. Raises DataError where the data
    stage would refuse the splits.

    The numbers are exact unless different images become the same at the model's size.
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
    """Return a sentence for each picture that many images are copies of."""
    from pipeline.datasets.preparation.duplicates import same_pictures

    good = survey.good
    return same_pictures(
        survey.usable.files,
        [look.pixels for look in good],
        lambda row: good[row].level,
        lambda row: good[row].facts.transparent,
    )


def _margin(test: int, survey: Survey) -> tuple[float, str]:
    """Return the gate's margin in points, and the reason: half a point, or more for few images."""
    answers = survey.listed.task.answers(test, len(survey.listed.names))
    # the score interval's upper bound of a loss when no answer changes, as in evaluate/gates.py
    shown = 100 * _Z_95**2 / (max(answers, 1) + _Z_95**2)
    if shown * _SLACK <= _USUAL_MARGIN:
        return _USUAL_MARGIN, "Few users will notice half a point."
    return round(shown * _SLACK, 1), (
        f"About {test:,} test images can't show less than {shown:.1f} points, even if no answer "
        "changes; more images allow a smaller margin."
    )


def _remarks(survey: Survey, options: DataOptions) -> list[str]:
    from pipeline.datasets.decoding.depth import note_frames
    from pipeline.datasets.preparation.duplicates import contradictions

    listed, remarks = survey.listed, _unequal(survey, options)
    ratios = [look.width / look.height for look in survey.good]
    if max(ratios) / min(ratios) > _STRETCHED**2:
        remarks.append(
            f"the sides of the images have ratios (width to height) from {min(ratios):.2f} to "
            f"{max(ratios):.2f}, and all are stretched to one shape. Crop them to the object, or "
            "set  preprocess.crop and preprocess.reference."
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


def _unequal(survey: Survey, options: DataOptions) -> list[str]:
    """Return remarks on labels with far more or far fewer images than others."""
    listed, counts = survey.listed, survey.counts
    remarks = []
    largest, smallest = max(counts), min(counts)
    named = {count: name for name, count in zip(listed.names, counts, strict=True)}
    if listed.task.exclusive and largest > _UNEQUAL * max(smallest, 1):
        remarks.append(
            f"unequal classes: {named[largest]!r} has {largest:,} images, {named[smallest]!r} "
            f"{smallest:,}. Accuracy hides errors in the small ones; the report's table by class "
            "shows them."
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
    return remarks


def _share(count: int, survey: Survey) -> str:
    return f"{count:,} of {len(survey.good):,} images"
